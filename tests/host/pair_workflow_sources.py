"""The workflows that make pairs and train on them: nodes, wiring, places and notes; see workflow_sources.py."""

from __future__ import annotations

from typing import Any

from ip2p.tests.host.workflow_parts import Node, Workflow, note

GENERATOR, CLIP = "embedded: generator", "embedded: clip"
TRIPLETS_FILE = "ip2p_triplets.jsonl"
"""docs/examples/ has it; the README says to copy it into the input folder."""
RANGES: dict[str, Any] = {
    "num_samples": 8, "p_max": 0.7, "guidance_min": 2.0, "guidance_max": 4.0, "batch_size": 8,
    "mode": "paper_text", "self_replace": 0.5, "self_attention_limit": "none",
}  # fmt: skip
"""What suits the embedded generator; the nodes' own defaults are those of the paper's code."""
KEPT: dict[str, Any] = {
    "preset": "percentile", "image_percentile": 0.0, "caption_percentile": 10.0, "directional_percentile": 25.0,
}  # fmt: skip
"""Of eight samples about half; embedded CLIP's numbers are not those that the paper's thresholds are made for."""

PAIRS_NOTE = """## Make training pairs from two captions

1. **Prompt-to-Prompt Pair**: write what the original shows, the instruction, and what the edited picture shows.
2. Press **Run**: eight pairs are sampled, each with its own share `p` of steps in which words that both captions have look at the \
same places. Self-attention is shared too, in nine of ten steps (`self_replace`): that keeps the layout. To change a *shape*, \
share less of it (0.5).
3. **CLIP Directional Filter** keeps the best four and shows their scores and the four histograms.

`embedded: generator` and `embedded: clip` are small models of coloured shapes that come with this pack: a *red circle*, a \
*blue star*, on a *white* background. For everything else load a Stable Diffusion checkpoint and an open_clip model \
(the paper: SD 1.5 and ViT-L-14), set 100 samples, guidance 7.5 to 15 and the preset *paper*.
"""

DATASET_NOTE = f"""## A dataset of pairs from a file of triplets

1. Put a `.jsonl` file into ComfyUI's input folder, one object a line: `caption`, `instruction`, `edited_caption`. The file \
`{TRIPLETS_FILE}` of the pack (docs/examples) shows how.
2. **Load Triplets**: choose it. What follows runs once for every triplet.
3. Press **Run**. The pairs that pass land in `output/ip2p_datasets`; run again to add others.

Look at them with `ip2p dataset browse`, export them for other trainers with `ip2p dataset export`.
"""

PROMPT_NOTE = """## Prompt-to-Prompt's own edits, side by side

The same noise three times, with the mode *paper_text*:

- **replace** swaps words one for one;
- **refine** adds words;
- **reweight** changes how much a word counts (`word_weights`).

`p_min` and `p_max` say for which part of the steps the words look where they looked in the original.
"""


TRAIN_NOTE = """## Train an editor on a dataset of pairs

1. Run **make_dataset** first: it makes the dataset *shapes*, which **Load Pairs** opens here.
2. Press **Run**. **Train InstructPix2Pix** widens the generator to eight input channels and trains it, in a process of its own; \
progress shows on the node, *Cancel* saves, and *Run* goes on from there.
3. The checkpoint goes straight into **Load InstructPix2Pix**, and **Instruct Edit** edits four of the pictures with it.

A few hundred steps on a few pairs show how it works. For a model of use: a Stable Diffusion checkpoint as base, the preset \
*finetune* or *lora*, tens of thousands of pairs, and a GPU.
"""


def pair(node_id: int, pos: tuple[int, int], title: str = "", **inputs: Any) -> Node:
    """A Prompt-to-Prompt Pair on the generator of node 1."""
    links = {"model": [1, 0], "clip": [1, 1], "vae": [1, 2]}
    return Node(node_id, "Prompt2PromptPair", pos, (420, 900), {**links, **RANGES, **inputs}, title)


def make_pairs() -> Workflow:
    """One prompt to filtered pairs."""
    texts = {
        "caption": "a red circle on a white background",
        "instruction": "make the circle blue",
        "edited_caption": "a blue circle on a white background",
    }
    filtering = {"scorer": [3, 0], "pairs": [2, 2], **KEPT}
    nodes = [
        note(7, PAIRS_NOTE, (0, 0), (420, 520)),
        Node(1, "LoadInstructPix2Pix", (0, 580), (420, 130), {"model_name": GENERATOR}),
        Node(3, "LoadCLIPScorer", (0, 770), (420, 100), {"scorer_name": CLIP}),
        pair(2, (460, 0), **texts, self_replace=0.9),
        Node(4, "CLIPDirectionalFilter", (920, 0), (460, 900), filtering),
        Node(5, "PreviewImage", (1420, 0), (400, 420), {"images": [4, 0]}, "Originals"),
        Node(6, "PreviewImage", (1420, 480), (400, 420), {"images": [4, 1]}, "Edited"),
    ]
    return Workflow("make_pairs", nodes, texts["instruction"], GENERATOR)


def make_dataset() -> Workflow:
    """A file of triplets to a dataset."""
    texts = {name: [8, place] for place, name in enumerate(("caption", "instruction", "edited_caption"))}
    filtering = {"scorer": [3, 0], "pairs": [2, 2], **KEPT}
    nodes = [
        note(7, DATASET_NOTE, (0, 0), (420, 420)),
        Node(8, "LoadTriplets", (0, 470), (420, 170), {"file": TRIPLETS_FILE}),
        Node(1, "LoadInstructPix2Pix", (0, 700), (420, 130), {"model_name": GENERATOR}),
        Node(3, "LoadCLIPScorer", (0, 890), (420, 100), {"scorer_name": CLIP}),
        pair(2, (460, 0), **texts),
        Node(4, "CLIPDirectionalFilter", (920, 0), (460, 900), filtering),
        Node(5, "SavePairs", (1420, 0), (400, 160), {"pairs": [4, 2], "dataset_name": "shapes"}),
        Node(6, "PreviewImage", (1420, 240), (400, 420), {"images": [4, 1]}, "Edited"),
    ]
    return Workflow("make_dataset", nodes, "", GENERATOR)


def prompt_to_prompt() -> Workflow:
    """Replace, refine and reweight beside each other."""
    caption = "a red circle on a white background"
    layout = {"self_replace": 0.4, "self_attention_limit": "16 x 16"}
    single = {"num_samples": 1, "p_min": 0.4, "p_max": 0.4, "seed": 3, **layout}
    kinds = {
        "replace": {
            "caption": caption,
            "edited_caption": "a blue circle on a white background",
            "instruction": "make the circle blue",
        },
        "refine": {
            "caption": "a star on a black background",
            "edited_caption": "a yellow star on a black background",
            "instruction": "make it yellow",
        },
        "reweight": {
            "caption": caption,
            "edited_caption": caption,
            "instruction": "make the circle smaller",
            "word_weights": "circle: -1",
        },
    }
    nodes = [
        note(20, PROMPT_NOTE, (0, 0), (420, 330)),
        Node(1, "LoadInstructPix2Pix", (0, 390), (420, 130), {"model_name": GENERATOR}),
    ]
    for place, (kind, inputs) in enumerate(kinds.items()):
        left, first = 460 + 460 * place, 2 + 3 * place
        nodes += [
            pair(first, (left, 0), kind.capitalize(), edit_kind=kind, **single, **inputs),
            Node(first + 1, "PreviewImage", (left, 960), (200, 260), {"images": [first, 0]}, "Original"),
            Node(first + 2, "PreviewImage", (left + 220, 960), (200, 260), {"images": [first, 1]}, "Edited"),
        ]
    return Workflow("prompt_to_prompt", nodes, "", GENERATOR)


def train_editor() -> Workflow:
    """A dataset to a checkpoint, and the checkpoint at work."""
    instruction = "make the circle blue"
    training = {
        "dataset": [1, 1], "base_model": GENERATOR, "checkpoint_name": "shapes_editor", "preset": "embedded", "steps": 300,
        "batch_size": 8, "micro_batch_size": 8, "resolution": 96,
    }  # fmt: skip
    editing = {"model": [3, 0], "clip": [3, 1], "vae": [3, 2], "image": [1, 3], "instruction": instruction}
    nodes = [
        note(7, TRAIN_NOTE, (0, 0), (420, 420)),
        Node(1, "LoadPairs", (0, 480), (420, 260), {"dataset_name": "shapes", "num_shown": 4}),
        Node(2, "TrainInstructPix2Pix", (460, 0), (420, 520), training),
        Node(3, "LoadInstructPix2Pix", (460, 620), (420, 150), {"model_path": [2, 0]}),
        Node(4, "InstructEdit", (920, 0), (420, 640), editing),
        Node(5, "PreviewImage", (1380, 0), (400, 420), {"images": [4, 0]}, "Edited"),
        Node(6, "PreviewImage", (1380, 480), (400, 420), {"images": [1, 3]}, "Originals"),
    ]
    return Workflow("train_editor", nodes, instruction, GENERATOR)


def pair_workflows() -> list[Workflow]:
    """The workflows that make pairs, and the one that trains on them."""
    return [make_pairs(), make_dataset(), prompt_to_prompt(), train_editor()]
