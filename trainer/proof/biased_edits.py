"""Pairs with a planted bias, as a generator makes them that nearly always draws a shape in one colour; and how to balance them.

The paper's Figure 14 shows such a correlation of the data (of professions with genders) in the edits.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from ..shape_world.scene import PALETTE, Scene
from ..shape_world.world_edits import WorldEdit, world_edit_at
from ..shape_world.world_settings import Planted
from .config import EDIT_TYPES, ProofConfig
from .edits import Named, captions_of

PLANTED = Planted(shape="heart", colour="red", share=0.9)
HEART_SHARE = 0.5
"""Of the replacements, that bring the planted shape."""
BIASED = "proof-bias"


class Brought(NamedTuple):
    """What a replacement brought."""

    shape: str
    """The new one."""
    old_colour: str
    """Of the shape that it replaces."""
    colour: str
    """Of the new shape; empty where it is not there."""

    @property
    def is_kept(self) -> bool:
        """Say whether the colour stayed, as it should: the instruction does not name one."""
        return self.colour == self.old_colour


def biased_edits(config: ProofConfig) -> list[WorldEdit]:
    """Edits as in the other trainings, but half of the replacements bring a heart, and nine of ten of these come out red."""
    return _different(config, _stream(config))


def balanced_edits(config: ProofConfig) -> list[WorldEdit]:
    """As many edits of the same kind, without the replacements that bring a shape in a colour that it has too often."""
    return _different(config, _without_surplus(_stream(config)))


def _different(config: ProofConfig, edits: Iterator[WorldEdit]) -> list[WorldEdit]:
    """Take as many of each kind, no two alike in their captions."""
    found: dict[tuple[str, str], WorldEdit] = {}
    left = Counter(EDIT_TYPES[place % len(EDIT_TYPES)] for place in range(config.study_prompts))
    for edit in edits:
        if len(found) >= config.study_prompts:
            break
        if left[edit.edit_type] and captions_of(edit) not in found:
            found[captions_of(edit)] = edit
            left[edit.edit_type] -= 1
    return list(found.values())


def _stream(config: ProofConfig) -> Iterator[WorldEdit]:
    world = config.lone_world
    for place in range(200 * config.study_prompts):
        rng = random.Random(f"{BIASED}/{config.seed}/{place}")
        kind = EDIT_TYPES[place % len(EDIT_TYPES)]
        edit = world_edit_at(BIASED, config.seed, place, world, kind)
        if kind == "replace":
            if rng.random() < HEART_SHARE:
                edit = _bringing(edit, PLANTED.shape)
            if new_shape(edit) == PLANTED.shape and rng.random() < PLANTED.share:
                edit = _painted(edit, PLANTED.colour)
            if edit.is_held_out():
                continue
        yield edit


def _without_surplus(edits: Iterator[WorldEdit]) -> Iterator[WorldEdit]:
    """Leave out replacements that bring a shape in a colour in which it came clearly more often than in the average one."""
    seen: Counter[tuple[str, str]] = Counter()
    for edit in edits:
        if edit.edit_type == "replace":
            one = brought_by(edit)
            average = sum(seen[one.shape, colour] for colour in PALETTE) / len(PALETTE)
            if seen[one.shape, one.colour] > average + 1:
                continue
            seen[one.shape, one.colour] += 1
        yield edit


def bias_tests(config: ProofConfig) -> list[Named]:
    """Replacements on renders that do not have the planted colour: half of them bring the planted shape."""
    found: list[Named] = []
    world, place = config.lone_world, 0
    while len(found) < 2 * config.num_tests:
        edit = world_edit_at(f"{BIASED}-test", config.seed, place, world, "replace", held_out_wording=True)
        place += 1
        if len(found) % 2 == 0:
            edit = _bringing(edit, PLANTED.shape)
        old = edit.before.objects[0]
        is_planted = new_shape(edit) == PLANTED.shape
        if old.colour != PLANTED.colour and old.shape != new_shape(edit) and is_planted == (len(found) % 2 == 0):
            found.append(Named(f"bias-{place:03d}", edit))
    return found


def new_shape(edit: WorldEdit) -> str:
    """The shape that a replacement brings."""
    return edit.change.subjects[1]


def brought_by(edit: WorldEdit) -> Brought:
    """What a replacement brings in its exact result."""
    old, new = edit.before.objects[0], edit.after.objects[0]
    return Brought(new.shape, old.colour, new.colour)


def _bringing(edit: WorldEdit, shape: str) -> WorldEdit:
    """The same replacement bringing another shape, unless that is the one that goes."""
    old = edit.before.objects[0]
    if old.shape == shape:
        return edit
    after = _with(edit.after, shape=shape)
    slots = tuple((name, f"a {shape}" if name == "new" else value) for name, value in edit.slots)
    instruction = edit.instruction.replace(dict(edit.slots)["new"], f"a {shape}")
    change = edit.change._replace(after=after, subjects=(old.shape, shape))
    return replace(edit, change=change, slots=slots, instruction=instruction)


def _painted(edit: WorldEdit, colour: str) -> WorldEdit:
    return replace(edit, change=edit.change._replace(after=_with(edit.after, colour=colour)))


def _with(scene: Scene, **values: str) -> Scene:
    return replace(scene, objects=(replace(scene.objects[0], **values),))  # type: ignore[arg-type]
