"""Stage 2: the training pairs, as latents of the trained autoencoder.

A `PairPlan` says what picture is edited how; pictures are deduplicated (one original serves several edits), encoded
once, and kept as half-precision posterior modes. Everything is a pure function of (seed, index).
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..photo_edits import EFFECTS, apply_effect, training_wordings
from ..shape_world.edits import SceneEdit, inverse_edit, random_edit
from ..shape_world.render import render
from ..shape_world.scene import random_scene
from .pictures import FloatImage, training_picture

logger = logging.getLogger(__name__)

EFFECTS_PER_PICTURE = 6
ENCODE_BATCH = 32
EDITS_PER_SCENE = 3
EDIT_TYPE_WEIGHTS = {"recolour": 10, "replace": 3, "remove": 4, "background": 4}
"""Additions come as the inverses of removals."""
Encode = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class LatentPairs:
    """Latents [N, 4, h, w] (unscaled modes, float16), and for every pair the two rows and its possible instructions."""

    latents: Tensor
    rows: Tensor
    """[P, 2] original, edited."""
    instructions: list[tuple[str, ...]]


def training_scene_edits(seed: int, index: int) -> list[SceneEdit]:
    """Edits of one scene, without held-out combinations or wordings."""
    rng = random.Random(f"{seed}/{index}")
    scene = random_scene(rng, rng.choice((1, 1, 2, 2, 3)))
    edits: list[SceneEdit] = []
    while len(edits) < EDITS_PER_SCENE:
        kind = rng.choices(list(EDIT_TYPE_WEIGHTS), list(EDIT_TYPE_WEIGHTS.values()))[0]
        edit = random_edit(rng, scene, kind)
        if not edit.is_held_out():
            edits.append(edit)
    return edits


class Step(NamedTuple):
    """A picture to encode, and the pairs that it completes: (original row, edited row, instructions)."""

    picture: FloatImage
    pairs: tuple[tuple[int, int, tuple[str, ...]], ...]


def plan_pictures(seed: int, size: int, num_originals: int, num_scenes: int) -> Iterator[Step]:
    """All pictures in the order of their rows; an original comes before its edits. Pairs go both ways where they can."""
    row = 0
    effects = [name for name in EFFECTS if name != "identity"]
    for index in range(num_originals):
        rng = np.random.default_rng((seed, 2, size, index))
        original, first = training_picture(rng, size), row
        yield Step(original, ())
        for effect in rng.choice(effects, EFFECTS_PER_PICTURE, replace=False):
            row, name = row + 1, str(effect)
            pairs = [(first, row, training_wordings(name))]
            if name == "invert":
                pairs.append((row, first, training_wordings(name)))
            yield Step(apply_effect(name, original), tuple(pairs))
        row += 1
    for index in range(num_scenes):
        edits = training_scene_edits(seed + size, index)
        inverse_rng, first = random.Random(f"{seed}/{size}/{index}/inverse"), row
        yield Step(render(edits[0].before, size), ())
        for edit in edits:
            row += 1
            back = inverse_edit(inverse_rng, edit)
            pairs = [(first, row, edit.training_instructions()), (row, first, back.training_instructions())]
            yield Step(render(edit.after, size), tuple(pairs))
        row += 1


def build_pairs(
    encode: Encode, path: Path, *, seed: int, size: int, num_originals: int, num_scenes: int
) -> LatentPairs:
    """Encode all pictures, or read the file of an earlier run with the same settings."""
    if path.exists():
        saved = torch.load(path, weights_only=True)  # noqa: TID251 - our own file, weights only
        return LatentPairs(saved["latents"], saved["rows"], [tuple(texts) for texts in saved["instructions"]])
    latents: list[Tensor] = []
    rows: list[tuple[int, int]] = []
    instructions: list[tuple[str, ...]] = []
    steps = plan_pictures(seed, size, num_originals, num_scenes)
    batch_size = ENCODE_BATCH * 128**2 // size**2
    while batch := list(islice(steps, batch_size)):
        pictures = [step.picture for step in batch] + [batch[-1].picture] * (batch_size - len(batch))  # one shape only
        images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) * 2 - 1
        latents.append(encode(images)[: len(batch)].half())
        for step in batch:
            rows.extend((original, edited) for original, edited, _ in step.pairs)
            instructions.extend(texts for _, _, texts in step.pairs)
        if len(latents) % 100 == 0:
            logger.info("encoded %d batches of pictures of %d px", len(latents), size)
    built = LatentPairs(torch.cat(latents), torch.tensor(rows), instructions)
    beside = path.with_suffix(".tmp")
    torch.save({"latents": built.latents, "rows": built.rows, "instructions": built.instructions}, beside)
    beside.replace(path)
    return built
