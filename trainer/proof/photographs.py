"""What the editor makes of real photographs: it knows shapes on plain backgrounds, and none of these was ever seen in training."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import ImageOps
from torch import Tensor

from ...ip2p_core.guidance_grid import draw_grid
from ...ip2p_core.image_tensor import load_image
from ...ip2p_core.pair_store.durable_files import write_text_durably
from ...ip2p_core.picture_metrics import l1
from ..diffusers_adapter import load_generator
from ..embedded.pictures import HELD_OUT_PHOTOS, open_photo
from ..measure import round_trip, to_tensor
from .edits import read_rows, write_picture
from .findings import Estimate, of_numbers
from .markdown import markdown_table
from .stages import BASE, Run
from .trials import Scales, editor_system, run_evaluation, score_of

PHOTOGRAPHS = "photographs"
INSTRUCTIONS = ("make the background brown", "make the background white", "change the star to green")
ABSENT = INSTRUCTIONS[-1]
"""Asks for something that no photograph shows."""
GRID = "photographs.png"
ENLARGED = 2
"""Photographs have so many times the side of renders: convolutions do not mind."""


def photograph_stage(run: Run, scales: Scales) -> dict[str, Any]:
    """Edit photographs by `ip2p evaluate`.

    Args:
        run: the run folder.
        scales: of all edits.

    Returns:
        By instruction the L1 distance and the CLIP image similarity to the photograph; the autoencoder's own L1 distance. A
        picture of all edits lies beside the evaluation.
    """
    config, folder = run.config, run.folder / "examples" / PHOTOGRAPHS
    photos = {name: _square(name, ENLARGED * config.size) for name in HELD_OUT_PHOTOS}
    lines = []
    for name, photo in photos.items():
        write_picture(folder / f"{name}.png", photo)
        for number, instruction in enumerate(INSTRUCTIONS):
            lines.append(json.dumps({"id": f"{name}-{number}", "image": f"{name}.png", "instruction": instruction}))
    examples = folder / "examples.jsonl"
    write_text_durably(examples, "\n".join(lines) + "\n")
    seed = config.seeds[0]
    systems = [editor_system(run, config.best, seed, scales)]
    output = run_evaluation(run, PHOTOGRAPHS, examples, systems, seed=seed, shown=0)
    rows = read_rows(output)
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: {"l1": [], "image": []})
    for row in rows:
        for name, values in found[row["instruction"]].items():
            values.append(score_of(row, name))
    model, batch = load_generator(BASE, models_dir=run.models), torch.stack(list(photos.values()))
    decoded = round_trip(model, batch).cpu()
    edited = {(row["example"].rsplit("-", 2)[0], row["instruction"]): output / row["picture"] for row in rows}
    shown = [
        [photos[name], alone, *(load_image(edited[name, text]).pixels for text in INSTRUCTIONS)]
        for name, alone in zip(photos, decoded, strict=True)
    ]
    columns = ["original", "autoencoder alone", *INSTRUCTIONS]
    grid = draw_grid(
        [one for row in shown for one in row], [name.replace("_", " ") for name in photos], columns, cell=190
    )
    write_picture(output / GRID, grid)
    table = {text: {name: of_numbers(some) for name, some in values.items()} for text, values in found.items()}
    return {"instructions": table, "autoencoder": of_numbers(l1(decoded, batch).tolist())}


def _square(name: str, side: int) -> Tensor:
    """The middle of a photograph [side, side, 3] in [0, 1]."""
    photo = open_photo(*HELD_OUT_PHOTOS[name])
    return to_tensor([np.asarray(ImageOps.fit(photo, (side, side)), np.float32) / 255])[0]


def photograph_section(found: Mapping[str, Any]) -> str:
    """The part of the report about photographs."""
    rows = [
        [text, Estimate(*values["l1"]).plain(), Estimate(*values["image"]).plain()]
        for text, values in found["instructions"].items()
    ]
    return f"""## Photographs

![Photographs, edited](photographs.png)

{markdown_table(("instruction", "L1 to the photograph", "CLIP image similarity"), rows)}

{len(HELD_OUT_PHOTOS)} photographs that no training saw. The autoencoder alone changes them by {Estimate(*found["autoencoder"]).plain()} (L1): it learned
the small renders. No photograph shows a star, so that "{ABSENT}" should change nothing more than that."""
