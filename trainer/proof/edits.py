"""The edits of the proof: those that become triplets and pairs, and those on renders that editors are tested with."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...ip2p_core.image_tensor import to_pil
from ...ip2p_core.pair_record import ImageBytes, PairRecord
from ...ip2p_core.pair_store import PairWriter, Unit
from ...ip2p_core.pair_store.durable_files import write_durably, write_text_durably
from ...ip2p_core.triplet import Triplet, prompt_id
from ..shape_world.render import render
from ..shape_world.world_edits import WorldEdit, world_edit_at
from .config import ATTRIBUTE_EDITS, EDIT_TYPES, ProofConfig

TRAINING, TUNING, TESTING, SPATIAL = "proof", "proof-tuning", "proof-test", "proof-spatial"


class Named(NamedTuple):
    """An edit with the name of its example."""

    name: str
    edit: WorldEdit


def training_edits(config: ProofConfig) -> list[WorldEdit]:
    """The edits that become prompts: training wordings, no held-out combination, no two alike in their captions."""
    return _different_edits(config, TRAINING, EDIT_TYPES, config.num_prompts)


def spatial_training_edits(config: ProofConfig) -> list[WorldEdit]:
    """The edits that become the prompts of the study of failures: changes of attributes, moves, views and so on."""
    return _different_edits(config, SPATIAL, ATTRIBUTE_EDITS + config.spatial_edits, config.study_prompts)


def _different_edits(config: ProofConfig, purpose: str, kinds: Sequence[str], number: int) -> list[WorldEdit]:
    found: dict[tuple[str, str], WorldEdit] = {}
    world, place = config.world, 0
    while len(found) < number and place < 50 * number:
        edit = world_edit_at(purpose, config.seed, place, world, kinds[place % len(kinds)])
        found.setdefault(captions_of(edit), edit)
        place += 1
    return list(found.values())


def held_out_edits(config: ProofConfig, purpose: str, number: int, kinds: Sequence[str] = EDIT_TYPES) -> list[Named]:
    """Edits of renders in the held-out wording, held-out combinations of colour and shape included.

    Args:
        config: of the run.
        purpose: TUNING or TESTING.
        number: of each kind.
        kinds: of edits.

    Returns:
        The edits, all kinds in turn.
    """
    return [
        Named(f"{kind}-{place:03d}", world_edit_at(
            purpose, config.seed, place, config.world, kind, allow_held_out=True, held_out_wording=True
        ))
        for place in range(number)
        for kind in kinds
    ]  # fmt: skip


def captions_of(edit: WorldEdit) -> tuple[str, str]:
    """What both sides show, in plain words; with places, distances or numbers where the edit is about these."""
    if edit.edit_type in EDIT_TYPES:
        return edit.before.caption(), edit.after.caption()
    return edit.caption, edit.edited_caption


def triplet_of(edit: WorldEdit) -> Triplet:
    """An edit as a triplet of texts."""
    return Triplet(captions_of(edit)[0], edit.instruction, captions_of(edit)[1], "shape_world")


def write_triplets(path: Path, edits: Sequence[WorldEdit]) -> None:
    """Write the triplets of edits, as `ip2p pairs` reads them."""
    lines = []
    for edit in edits:
        triplet = triplet_of(edit)
        record = {
            "caption": triplet.caption,
            "instruction": triplet.instruction,
            "edited_caption": triplet.edited_caption,
        }
        lines.append(json.dumps({**record, "edit_type": edit.edit_type}))
    write_text_durably(path, "\n".join(lines) + "\n")


def write_wordings(path: Path, edits: Sequence[WorldEdit]) -> None:
    """Write the other training wordings of the instructions of edits, as `ip2p train` reads them."""
    write_text_durably(path, json.dumps({edit.instruction: list(edit.training_instructions()) for edit in edits}))


def write_examples(folder: Path, named: Sequence[Named], size: int) -> Path:
    """Write renders, exact targets and masks as `ip2p evaluate` reads them.

    Args:
        folder: of the examples.
        named: the edits.
        size: side in pixels.

    Returns:
        The list of the examples.
    """
    lines = []
    for name, edit in named:
        pictures: Mapping[str, Any] = {
            "image": render(edit.before, size), "target": render(edit.after, size), "mask": edit.mask(size)
        }  # fmt: skip
        for kind, picture in pictures.items():
            write_picture(folder / f"{name}-{kind}.png", torch.from_numpy(picture))
        caption, edited_caption = captions_of(edit)
        texts = {"instruction": edit.instruction, "caption": caption, "edited_caption": edited_caption}
        files = {kind: f"{name}-{kind}.png" for kind in pictures}
        lines.append(json.dumps({"id": name, **files, **texts, "edit_type": edit.edit_type}))
    path = folder / "examples.jsonl"
    write_text_durably(path, "\n".join(lines) + "\n")
    return path


def write_picture(path: Path, picture: Tensor) -> None:
    """Write a picture [H, W, 3] in [0, 1] as a PNG file."""
    write_durably(path, lambda beside: to_pil(picture).save(beside, "PNG"))


def read_rows(output: Path) -> list[dict[str, str]]:
    """Read what `ip2p evaluate` wrote into its run folder, one row for each edit."""
    with (output / "rows.csv").open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def write_rendered_pairs(folder: Path, edits: Sequence[WorldEdit], size: int) -> None:
    """Write a dataset of exact renders of edits; one that was begun goes on."""
    with PairWriter(folder, {"made_by": "ip2p proof", "rendered": True, "size": size}) as writer:
        for edit in edits:
            triplet = triplet_of(edit)
            unit = Unit(prompt_id(triplet), 0, 1)
            if writer.is_done(unit):
                continue
            pair = [
                ImageBytes.from_tensor(torch.from_numpy(render(scene, size))) for scene in (edit.before, edit.after)
            ]
            record = PairRecord(unit.prompt_id, 0, triplet, 0, None, None, "rendered", None, pair[0], pair[1])
            writer.add(unit, [record])
