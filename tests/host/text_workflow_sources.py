"""The workflows of the text stage: captions to instructions, and on to pairs; see workflow_sources.py."""

from __future__ import annotations

from ip2p.tests.host.pair_workflow_sources import CLIP, GENERATOR, KEPT, pair
from ip2p.tests.host.workflow_parts import Node, Workflow, note

WRITE_NOTE = """## Captions to instructions

1. **Caption Edit**: write what a picture shows and press **Run**. It invents an edit: the instruction, and the caption of the \
picture afterwards. Set *control after generate* to *randomize* and every run draws another one.
2. `backend`: the *grammar* works offline, by rules. A *language-model server* (vLLM, SGLang, llama.cpp, Ollama, a hosted one) \
writes freely: set the environment variables `OPENAI_BASE_URL` and, where it needs one, `OPENAI_API_KEY` before ComfyUI starts, \
and name the `model`. The question is the `template` (advanced); change it as you like.
3. With another language-model node: ask it the output `question`, and lead its answer into **Parse Triplet**.

For thousands of captions there is the command `ip2p triplets`.
"""

PAIRS_NOTE = """## One caption to filtered training pairs

**Caption Edit** invents an edit of the caption, **Prompt-to-Prompt Pair** draws both pictures with shared attention, **CLIP \
Directional Filter** keeps the pairs that show the edit, **Save Pairs** adds them to the dataset *from_captions*.

Set *control after generate* of **Caption Edit** to *randomize*, and each **Run** invents another edit. The embedded models know coloured shapes, as *a red circle and a \
blue star on a white background*; load a Stable Diffusion checkpoint and an open_clip model for everything else.
"""

ANSWER = '{"instruction": "make it night", "edited_caption": "a lighthouse by the sea at night"}'


def write_instructions() -> Workflow:
    """A caption to an edit, and the answer of another node to an edit."""
    nodes = [
        note(9, WRITE_NOTE, (0, 0), (420, 460)),
        Node(1, "CaptionEdit", (460, 0), (440, 460), {"caption": "a lighthouse by the sea on a sunny day", "seed": 4}),
        Node(2, "PreviewAny", (940, 0), (360, 120), {"source": [1, 0]}, "Instruction"),
        Node(3, "PreviewAny", (940, 180), (360, 120), {"source": [1, 1]}, "Edited caption"),
        Node(4, "PreviewAny", (940, 360), (360, 300), {"source": [1, 3]}, "Question for another language model"),
        Node(5, "ParseTriplet", (460, 720), (440, 240), {"answer": ANSWER, "caption": "a lighthouse by the sea"}),
        Node(6, "PreviewAny", (940, 720), (360, 120), {"source": [5, 0]}, "Instruction of the answer"),
        Node(7, "PreviewAny", (940, 900), (360, 120), {"source": [5, 1]}, "Edited caption of the answer"),
    ]
    return Workflow("write_instructions", nodes, "", GENERATOR)


def caption_to_pairs() -> Workflow:
    """One caption to filtered pairs in a dataset."""
    caption = "a red circle on a white background"
    filtering = {"scorer": [3, 0], "pairs": [2, 2], **KEPT}
    texts = {"caption": [8, 2], "instruction": [8, 0], "edited_caption": [8, 1]}
    nodes = [
        note(7, PAIRS_NOTE, (0, 0), (420, 300)),
        Node(8, "CaptionEdit", (0, 350), (420, 460), {"caption": caption, "edit_type": "colour", "seed": 2}),
        Node(1, "LoadInstructPix2Pix", (0, 870), (420, 130), {"model_name": GENERATOR}),
        Node(3, "LoadCLIPScorer", (0, 1060), (420, 100), {"scorer_name": CLIP}),
        pair(2, (460, 0), **texts),
        Node(4, "CLIPDirectionalFilter", (920, 0), (460, 900), filtering),
        Node(9, "PreviewAny", (1420, 0), (400, 120), {"source": [8, 0]}, "Instruction"),
        Node(5, "SavePairs", (1420, 180), (400, 160), {"pairs": [4, 2], "dataset_name": "from_captions"}),
        Node(6, "PreviewImage", (1420, 400), (400, 420), {"images": [4, 1]}, "Edited"),
        Node(10, "PreviewImage", (1420, 880), (400, 420), {"images": [4, 0]}, "Originals"),
    ]
    return Workflow("caption_to_pairs", nodes, "", GENERATOR)


def text_workflows() -> list[Workflow]:
    """The workflows that begin with a caption."""
    return [write_instructions(), caption_to_pairs()]
