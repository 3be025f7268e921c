"""The edits of the proof: those that become triplets and pairs, and those on renders that editors are tested with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ...ip2p_core.image_tensor import to_pil
from ...ip2p_core.pair_record import ImageBytes, PairRecord
from ...ip2p_core.pair_store import PairWriter, Unit
from ...ip2p_core.pair_store.durable_files import write_durably, write_text_durably
from ...ip2p_core.triplet import Triplet, prompt_id
from ..shape_world.render import render
from ..shape_world.world_edits import WorldEdit, world_edit_at
from .config import EDIT_TYPES, ProofConfig

TRAINING, TUNING, TESTING = "proof", "proof-tuning", "proof-test"


class Named(NamedTuple):
    """An edit with the name of its example."""

    name: str
    edit: WorldEdit


def training_edits(config: ProofConfig) -> list[WorldEdit]:
    """The edits that become prompts: training wordings, no held-out combination, no two alike in their captions."""
    found: dict[tuple[str, str], WorldEdit] = {}
    place = 0
    while len(found) < config.num_prompts and place < 50 * config.num_prompts:
        edit = world_edit_at(TRAINING, config.seed, place, config.world, EDIT_TYPES[place % len(EDIT_TYPES)])
        found.setdefault(captions_of(edit), edit)
        place += 1
    return list(found.values())


def test_edits(config: ProofConfig, purpose: str, number: int) -> list[Named]:
    """Edits of renders in the held-out wording, held-out combinations of colour and shape included.

    Args:
        config: of the run.
        purpose: TUNING or TESTING.
        number: of each kind.

    Returns:
        The edits, all kinds in turn.
    """
    return [
        Named(f"{kind}-{place:03d}", world_edit_at(
            purpose, config.seed, place, config.world, kind, allow_held_out=True, held_out_wording=True
        ))
        for place in range(number)
        for kind in EDIT_TYPES
    ]  # fmt: skip


def captions_of(edit: WorldEdit) -> tuple[str, str]:
    """What both sides show, in the plain words that the generator was trained with."""
    return edit.before.caption(), edit.after.caption()


def triplet_of(edit: WorldEdit) -> Triplet:
    """An edit as a triplet of texts."""
    return Triplet(captions_of(edit)[0], edit.instruction, captions_of(edit)[1], "shape_world")


def write_triplets(path: Path, edits: Sequence[WorldEdit]) -> None:
    """Write the triplets, and beside them the other training wordings of their instructions."""
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
    wordings = {edit.instruction: list(edit.training_instructions()) for edit in edits}
    write_text_durably(wordings_path(path), json.dumps(wordings, indent=0))


def wordings_path(triplets: Path) -> Path:
    """Where the wordings lie."""
    return triplets.with_name("wordings.json")


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
            image = to_pil(torch.from_numpy(picture))
            write_durably(folder / f"{name}-{kind}.png", lambda beside, image=image: image.save(beside, "PNG"))  # type: ignore[misc]
        caption, edited_caption = captions_of(edit)
        texts = {"instruction": edit.instruction, "caption": caption, "edited_caption": edited_caption}
        files = {kind: f"{name}-{kind}.png" for kind in pictures}
        lines.append(json.dumps({"id": name, **files, **texts, "edit_type": edit.edit_type}))
    path = folder / "examples.jsonl"
    write_text_durably(path, "\n".join(lines) + "\n")
    return path


def write_rendered_pairs(folder: Path, edits: Sequence[WorldEdit], size: int) -> None:
    """Write a dataset of exact renders of edits."""
    with PairWriter(folder, {"made_by": "ip2p proof", "rendered": True, "size": size}) as writer:
        for edit in edits:
            triplet = triplet_of(edit)
            pair = [
                ImageBytes.from_tensor(torch.from_numpy(render(scene, size))) for scene in (edit.before, edit.after)
            ]
            name = prompt_id(triplet)
            record = PairRecord(name, 0, triplet, 0, None, None, "rendered", None, pair[0], pair[1])
            writer.add(Unit(name, 0, 1), [record])
