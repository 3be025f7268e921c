"""The workflows that look at what settings do; see workflow_sources.py."""

from __future__ import annotations

from ip2p.tests.host.pair_workflow_sources import CLIP
from ip2p.tests.host.workflow_parts import EMBEDDED, INPUT_PICTURE, Node, Workflow, note

GRID_NOTE = """## Which scales suit my picture?

**Guidance Grid** edits one picture at every pair of scales and shows them in one labelled picture. Further right: the instruction \
counts more. Further down: more of the picture stays. The plot beside it shows what each pair trades, by CLIP: up and to the right is \
better.

The embedded editor has its best values near 1. For Stable Diffusion models list `3, 5, 7.5, 10` and `1, 1.2, 1.5, 2`, and load a real \
open_clip model: the embedded one knows coloured shapes, so that its curves of photographs mean little.
"""


def guidance_grid() -> Workflow:
    """One picture at many pairs of scales, with the plot."""
    instruction = "make it black and white"
    links = {"model": [1, 0], "clip": [1, 1], "vae": [1, 2], "image": [2, 0], "scorer": [3, 0]}
    texts = {"instruction": instruction, "caption": "a photo", "edited_caption": "a black and white photo"}
    scales = {"text_scales": "0, 0.5, 1, 1.5", "image_scales": "0.5, 1, 1.5"}
    nodes = [
        note(7, GRID_NOTE, (0, 0), (420, 330)),
        Node(1, "LoadInstructPix2Pix", (0, 390), (420, 130), {"model_name": EMBEDDED}),
        Node(2, "LoadImage", (0, 580), (420, 340), {"image": INPUT_PICTURE}),
        Node(3, "LoadCLIPScorer", (0, 980), (420, 100), {"scorer_name": CLIP}),
        Node(4, "GuidanceGrid", (460, 0), (440, 760), {**links, **texts, **scales}),
        Node(5, "PreviewImage", (940, 0), (760, 620), {"images": [4, 0]}, "Grid"),
        Node(6, "PreviewImage", (940, 680), (460, 380), {"images": [4, 2]}, "What each pair trades"),
        Node(8, "PreviewAny", (1440, 680), (260, 380), {"source": [4, 3]}, "Table"),
    ]
    return Workflow("guidance_grid", nodes, instruction)


def evaluation_workflows() -> list[Workflow]:
    """The workflows that compare settings."""
    return [guidance_grid()]
