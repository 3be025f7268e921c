"""What the tests of `ip2p train` share: a small dataset of rendered edits, settings on a tiny base, and what comes out."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch

from ip2p.ip2p_core.pair_record import ImageBytes, PairRecord, split_of
from ip2p.ip2p_core.pair_store import PairWriter, SaveLimits
from ip2p.ip2p_core.triplet import Triplet, prompt_id
from ip2p.trainer.shape_world.edits import random_edit
from ip2p.trainer.shape_world.render import render
from ip2p.trainer.shape_world.scene import random_scene

SIDE = 36
KINDS = ("recolour", "background", "remove")


def rendered_pair(number: int, side: int = SIDE) -> PairRecord:
    """A rendered edit with its exact mask; its caption is numbered, so that prompts differ."""
    rng = random.Random(f"train/{number}")
    edit = random_edit(rng, random_scene(rng, 1), KINDS[number % len(KINDS)])
    triplet = Triplet(f"{edit.before.caption()} {number}", edit.instruction, edit.after.caption(), "rendered")
    before, after = (torch.from_numpy(render(scene, side)) for scene in (edit.before, edit.after))
    mask = torch.from_numpy(edit.mask(side)).float()[..., None].expand(-1, -1, 3)
    handles = [ImageBytes.from_tensor(one) for one in (before, after, mask)]
    return PairRecord(prompt_id(triplet), 0, triplet, 0, None, None, "rendered", None, *handles)


def make_dataset(folder: Path, num_train: int, *, num_val: int = 2, shard_rows: int = 8, side: int = SIDE) -> Path:
    """Write so many pairs of each split, in several shards."""
    left = {"train": num_train, "val": num_val, "test": 0}
    number = 0
    with PairWriter(folder, {"made_by": "tests"}, SaveLimits(rows=shard_rows, seconds=1e9)) as writer:
        while any(left.values()):
            record = rendered_pair(number, side)
            number += 1
            split = split_of(record.prompt_id)
            if left[split]:
                left[split] -= 1
                writer.add_record(record)
    return folder


def settings(folder: Path, models: Path, dataset: Path, **changes: Any) -> dict[str, Any]:
    return {
        "dataset": str(dataset), "base": "four", "output": str(folder / "run"), "models": str(models), "name": "edited",
        "steps": 6, "batch_size": 4, "micro_batch_size": 2, "resolution": 32,
        "learning_rate": 1e-3, "cache_views": 2, "checkpoint_steps": 2, "validation_steps": 0, "device": "cpu",
        "seed": 3, **changes,
    }  # fmt: skip


def write_config(folder: Path, models: Path, dataset: Path, **changes: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(settings(folder, models, dataset, **changes)), encoding="utf-8")
    return path


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
