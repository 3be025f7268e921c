"""What the tests of `ip2p evaluate` share: examples, settings on tiny models, and what a run folder holds."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy
from PIL import Image

from ip2p.tests.e2e.conftest import noise_picture

NUM_EXAMPLES = 5
SYSTEMS = [
    {"name": "the editor", "model": "editor_a", "text_scales": [2, 4], "image_scales": [1, 1.5], "steps": [2]},
    {"name": "SDEdit", "kind": "sdedit", "model": "generator_a", "strengths": [0.5, 1.0], "steps": [2]},
    {"name": "unchanged", "kind": "copy"},
]
NUM_EDITS = (4 + 2 + 1) * NUM_EXAMPLES


def write_examples(folder: Path, *, has_captions: bool = True, size: tuple[int, int] = (48, 32)) -> Path:
    """Pictures with targets and masks beside a list of them."""
    folder.mkdir(parents=True, exist_ok=True)
    mask = numpy.zeros(size[::-1], numpy.uint8)
    mask[4:20, 6:30] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    lines = []
    for number in range(NUM_EXAMPLES):
        for name, seed in (("a", number), ("b", 100 + number)):
            noise_picture(*size, seed=seed).save(folder / f"{number}{name}.png")
        texts = {"caption": f"a red thing {number}", "edited_caption": f"a blue thing {number}"} if has_captions else {}
        record = {"id": f"n{number}", "image": f"{number}a.png", "target": f"{number}b.png", "mask": "mask.png"}
        kinds = {"edit_type": ("colour", "style")[number % 2]}
        lines.append(json.dumps({**record, **texts, **kinds, "instruction": f"make thing {number} blue"}))
    path = folder / "examples.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def make_config(folder: Path, models: Path, **changes) -> Path:
    if "examples" not in changes:
        write_examples(folder / "examples")
    settings = {
        "examples": str(folder / "examples" / "examples.jsonl"), "output": str(folder / "run"), "models": str(models),
        "scorer": "clip_a", "systems": SYSTEMS, "device": "cpu", "batch_size": 2, "shown": 3,
    }  # fmt: skip
    path = folder / "evaluate.json"
    path.write_text(json.dumps({**settings, **changes}), encoding="utf-8")
    return path


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "run" / "rows.csv").open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def report(folder: Path) -> dict:
    return json.loads((folder / "run" / "report.json").read_text(encoding="utf-8"))


def scores_of(folder: Path) -> set[tuple]:
    names = (
        "system",
        "text_scale",
        "image_scale",
        "strength",
        "seed",
        "example",
        "directional",
        "image",
        "l1",
        "picture",
    )
    return {tuple(row[name] for name in names) for row in rows(folder)}
