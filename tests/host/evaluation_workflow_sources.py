"""The workflows that look at what settings do; see workflow_sources.py."""

from __future__ import annotations

from ip2p.tests.host.pair_workflow_sources import CLIP, GENERATOR
from ip2p.tests.host.workflow_parts import EMBEDDED, INPUT_PICTURE, Node, Workflow, note

GRID_NOTE = """## Which scales suit my picture?

**Guidance Grid** edits one picture at every pair of scales and shows them in one labelled picture. Further right: the instruction \
counts more. Further down: more of the picture stays. The plot beside it shows what each pair trades, by CLIP: up and to the right is \
better.

The embedded editor has its best values near 1. For Stable Diffusion models list `3, 5, 7.5, 10` and `1, 1.2, 1.5, 2`, and load a real \
open_clip model: the embedded one knows coloured shapes, so that its curves of photographs mean little.
"""

SDEDIT_NOTE = """## SDEdit beside an editor

Both start from the same picture, a red square that the nodes on the left draw.

- **SDEdit** (above): a text-to-image model. The picture is encoded, noised up to `denoise` and sampled again by the host's KSampler \
towards a *caption of the result*. More `denoise`: the caption counts more, and less of the picture stays.
- **Instruct Edit** (below): an editor. It reads an *instruction*, and keeps what the instruction is not about.

The embedded generator draws coloured shapes at 96 pixels. For pictures of your own put **Load Image** (and **Scale Image** to the \
model's size) in place of the square, and load a Stable Diffusion checkpoint and a full editor.
"""
SIDE, SQUARE = 96, 40
"""Of the embedded generator's pictures, and of what is drawn in the middle."""
WHITE, RED = 0xFFFFFF, 0xE61E1E


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


def sdedit_baseline() -> Workflow:
    """The stock nodes' way to edit by a caption, beside the editor's."""
    instruction = "make the square blue"
    middle = (SIDE - SQUARE) // 2
    composed = {"destination": [2, 0], "source": [3, 0], "x": middle, "y": middle}
    sampled = {
        "model": [1, 0], "positive": [6, 0], "negative": [7, 0], "latent_image": [5, 0], "seed": 0, "steps": 20, "cfg": 3.0,
        "sampler_name": "euler_ancestral", "scheduler": "normal", "denoise": 0.7,
    }  # fmt: skip
    edited = {"model": [11, 0], "clip": [11, 1], "vae": [11, 2], "image": [4, 0], "instruction": instruction}
    nodes = [
        note(20, SDEDIT_NOTE, (0, 0), (420, 460)),
        Node(2, "EmptyImage", (0, 520), (200, 150), {"width": SIDE, "height": SIDE, "color": WHITE}, "Background"),
        Node(3, "EmptyImage", (220, 520), (200, 150), {"width": SQUARE, "height": SQUARE, "color": RED}, "Square"),
        Node(4, "ImageCompositeMasked", (0, 740), (420, 170), composed, "The picture"),
        Node(1, "LoadInstructPix2Pix", (460, 0), (400, 130), {"model_name": GENERATOR}),
        Node(5, "VAEEncode", (460, 190), (400, 60), {"pixels": [4, 0], "vae": [1, 2]}),
        Node(
            6, "CLIPTextEncode", (460, 310), (400, 110), {"clip": [1, 1], "text": "a blue square on a white background"}
        ),
        Node(7, "CLIPTextEncode", (460, 480), (400, 110), {"clip": [1, 1], "text": ""}, "Negative: nothing"),
        Node(8, "KSampler", (900, 0), (360, 300), sampled),
        Node(9, "VAEDecode", (900, 360), (360, 60), {"samples": [8, 0], "vae": [1, 2]}),
        Node(11, "LoadInstructPix2Pix", (460, 650), (400, 130), {"model_name": EMBEDDED}),
        Node(12, "InstructEdit", (900, 480), (360, 600), edited),
        Node(13, "PreviewImage", (460, 840), (400, 340), {"images": [4, 0]}, "Before"),
        Node(
            14, "SaveImage", (1300, 0), (400, 420), {"images": [9, 0], "filename_prefix": "sdedit_baseline"}, "SDEdit"
        ),
        Node(
            15,
            "SaveImage",
            (1300, 480),
            (400, 420),
            {"images": [12, 0], "filename_prefix": "sdedit_baseline_editor"},
            "Editor",
        ),
    ]
    return Workflow("sdedit_baseline", nodes, instruction, GENERATOR)


def evaluation_workflows() -> list[Workflow]:
    """The workflows that compare settings, and ways to edit."""
    return [guidance_grid(), sdedit_baseline()]
