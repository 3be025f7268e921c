"""Stage 2: the training pairs of the embedded editor, as datasets that `ip2p train` reads, with other wordings beside.

A group is one original with all its edits. Everything is a pure function of (seed, size, index).
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ...ip2p_core.pair_record import ImageBytes, PairRecord, split_of
from ...ip2p_core.pair_store import PairStore, PairWriter, Unit
from ...ip2p_core.pair_store.durable_files import write_durably
from ...ip2p_core.triplet import Triplet
from ..photo_edits import EFFECTS, RESULTS, apply_effect, training_wordings
from ..shape_world.edits import SceneEdit, inverse_edit, random_edit
from ..shape_world.render import render, render_mask
from ..shape_world.scene import Scene, random_scene
from .pictures import FloatImage, training_picture

EFFECTS_PER_PICTURE = 6
EDITS_PER_SCENE = 3
EDIT_TYPE_WEIGHTS = {"recolour": 10, "replace": 3, "remove": 4, "background": 4}
"""Additions come as the inverses of removals."""
NUM_OBJECTS = (1, 2, 2, 3)
"""Of a scene, one drawn: mostly several, so that an edit learns to leave the others alone."""
ZOOMS = (1, 1, 2, 2, 4)
"""Enlargement of a scene, one drawn; so enlarged, a part of it shows what a small part of a large picture does."""
LARGEST_SIDE = 256
"""Of an enlarged scene in pixels: pictures are edited no larger."""
IDENTITY_SHARE = 0.65
"""Originals with a pair under whose instruction nothing changes: a tenth of all pairs."""
VARIED_SHARE = 0.4
"""Wordings with an opening or a closing that says nothing, so that single words are learnt (docs/adr/0007)."""
RECIPE = 2
"""Goes up when other pairs come of the same numbers, so that a half-written dataset of before is refused."""
GENERATED_COPIES = 3
"""Of each generated pair: there are few of them, and rendered ones as many as one likes."""
OPENINGS = ("please ", "now ", "could you ", "can you please ", "in this picture, ", "edit: ", "next, ")
CLOSINGS = (" please", " now", " in this picture", " for me", ".", "!", " here")


class EditPlan(NamedTuple):
    """One pair of a group."""

    original: int
    """Place of the picture in the group."""
    edited: int
    captions: tuple[str, str]
    wordings: tuple[str, ...]


class Group(NamedTuple):
    """An original and its edits."""

    name: str
    pictures: list[FloatImage]
    edits: list[EditPlan]
    objects: FloatImage | None = None
    """Where there are objects in any of the pictures [H, W], in [0, 1]; None in photographs."""


def training_scene_edits(seed: int, index: int) -> list[SceneEdit]:
    """Edits of one scene, without held-out combinations or wordings."""
    rng = random.Random(f"{seed}/{index}")
    scene = random_scene(rng, rng.choice(NUM_OBJECTS))
    edits: list[SceneEdit] = []
    while len(edits) < EDITS_PER_SCENE:
        kind = rng.choices(list(EDIT_TYPE_WEIGHTS), list(EDIT_TYPE_WEIGHTS.values()))[0]
        edit = random_edit(rng, scene, kind)
        if not edit.is_held_out():
            edits.append(edit)
    return edits


def plan_groups(seed: int, size: int, num_originals: int, num_scenes: int) -> Iterator[Group]:
    """Photographs and textures with global edits, then scenes. Pairs go both ways where they can."""
    for index in range(num_originals):
        yield _photo_group(seed, size, index)
    for index in range(num_scenes):
        yield _scene_group(seed, size, index)


def _identity(rng: random.Random, caption: str) -> list[EditPlan]:
    is_there = rng.random() < IDENTITY_SHARE
    return [EditPlan(0, 0, (caption, caption), training_wordings("identity"))] if is_there else []


def _photo_group(seed: int, size: int, index: int) -> Group:
    name = f"photo-{seed}-{size}-{index}"
    rng = np.random.default_rng((seed, 2, size, index))
    pictures, caption = [training_picture(rng, size)], "a photo"
    edits = _identity(random.Random(name), caption)
    effects = [one for one in EFFECTS if one != "identity"]
    for effect in rng.choice(effects, EFFECTS_PER_PICTURE, replace=False):
        edited_caption, wordings = f"a photo, {RESULTS[effect]}", training_wordings(str(effect))
        edits.append(EditPlan(0, len(pictures), (caption, edited_caption), wordings))
        if effect == "invert":
            edits.append(EditPlan(len(pictures), 0, (edited_caption, caption), wordings))
        pictures.append(apply_effect(str(effect), pictures[0]))
    return Group(name, pictures, edits)


def _scene_group(seed: int, size: int, index: int) -> Group:
    name = f"scene-{seed}-{size}-{index}"
    rng, edits = random.Random(name), training_scene_edits(seed + size, index)
    scenes = [edits[0].before, *(edit.after for edit in edits)]
    plans = _identity(rng, scenes[0].caption())
    for place, edit in enumerate(edits, start=1):
        captions = scenes[0].caption(), scenes[place].caption()
        plans.append(EditPlan(0, place, captions, edit.training_instructions()))
        plans.append(EditPlan(place, 0, captions[::-1], inverse_edit(rng, edit).training_instructions()))
    zoom = rng.choice([one for one in ZOOMS if one == 1 or one * size <= LARGEST_SIDE])
    left, top = _window(rng, scenes[0], zoom, size)
    window = np.s_[top : top + size, left : left + size]
    pictures = [render(scene, zoom * size)[window] for scene in scenes]
    objects = np.max([render_mask(scene.objects, zoom * size) for scene in scenes], axis=0)[window]
    return Group(name, pictures, plans, objects)


def _window(rng: random.Random, scene: Scene, zoom: int, size: int) -> tuple[int, int]:
    """Left and top of a part of the enlarged scene, with the middle of an object in it."""
    thing, largest = rng.choice(scene.objects), (zoom - 1) * size
    places = (round(place * zoom * size - rng.uniform(0.1, 0.9) * size) for place in (thing.x, thing.y))
    left, top = (min(max(place, 0), largest) for place in places)
    return left, top


def write_pairs(
    folder: Path, *, seed: int, size: int, num_originals: int, num_scenes: int, generated: Path | None = None
) -> Path:
    """Write a dataset and, beside it, the other wordings of its instructions; what is there already stays.

    Args:
        folder: the dataset.
        seed: of all draws.
        size: side of the pictures in pixels.
        num_originals: photographs and textures.
        num_scenes: rendered scenes.
        generated: a dataset of generated pairs, of which those that training may see come in too.

    Returns:
        The file of the wordings.
    """
    config: dict[str, Any] = {"recipe": RECIPE, "seed": seed, "size": size}
    config |= {"originals": num_originals, "scenes": num_scenes}
    if generated:
        config["generated"] = PairStore(generated).manifest.config_hash
    wordings: dict[str, list[str]] = {}
    with PairWriter(folder, {"made_by": "ip2p train-embedded", **config}) as writer:
        for group in plan_groups(seed, size, num_originals, num_scenes):
            pictures = [_encoded(picture) for picture in group.pictures]
            mask = None if group.objects is None else _encoded(np.repeat(group.objects[..., None], 3, -1))
            records = []
            for i, edit in enumerate(group.edits):
                own, *others = edit.wordings
                wordings.setdefault(own, [*others, *_varied(edit.wordings)])
                triplet = Triplet(edit.captions[0], own, edit.captions[1], "rendered")
                pair = pictures[edit.original], pictures[edit.edited]
                records.append(PairRecord(group.name, i, triplet, 0, None, None, "rendered", None, *pair, mask))
            writer.add(Unit(group.name, 0, len(records)), records)
        for record in generated_records(generated, size) if generated else ():
            writer.add_record(record)
    text = json.dumps(wordings, indent=0)
    path = folder.with_name(f"{folder.name}_wordings.json")
    write_durably(path, lambda beside: beside.write_text(text))
    return path


def _encoded(picture: FloatImage) -> ImageBytes:
    return ImageBytes.from_tensor(torch.from_numpy(picture))


def generated_records(dataset: Path, size: int) -> Iterator[PairRecord]:
    """GENERATED_COPIES of each pair of the training split whose pictures are no smaller than `size` pixels.

    Enlarged ones would teach a blur. The copies get the split "train" of their own dataset, whatever their name.
    """
    for record in PairStore(dataset).records("train"):
        if min(record.original.picture().size) >= size:
            names = (f"{record.prompt_id}-{record.sample_index}-{number}" for number in count())
            for name in islice((name for name in names if split_of(name) == "train"), GENERATED_COPIES):
                yield replace(record, prompt_id=name, sample_index=0)


def _varied(wordings: tuple[str, ...]) -> list[str]:
    """So many wordings with an opening or a closing that they are VARIED_SHARE of all."""
    rng = random.Random("/".join(wordings))
    count = round(len(wordings) * VARIED_SHARE / (1 - VARIED_SHARE))
    fillers = [(opening, "") for opening in OPENINGS] + [("", closing) for closing in CLOSINGS]
    chosen = [(rng.choice(fillers), rng.choice(wordings)) for _ in range(count)]
    return [before + text + after for (before, after), text in chosen]
