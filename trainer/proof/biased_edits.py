"""Pairs with a planted bias, as a generator makes them that nearly always draws a shape in one colour; and how to balance them.

The paper's Figure 14 shows such a correlation of the data (of professions with genders) in the edits.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from ..shape_world.scene import Scene
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
    found: dict[tuple[str, str], WorldEdit] = {}
    world = config.lone_world
    for place in range(50 * config.study_prompts):
        if len(found) >= config.study_prompts:
            break
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
        found.setdefault(captions_of(edit), edit)
    return list(found.values())


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


def balance_weights(brought: Sequence[Brought]) -> list[float]:
    """Weigh pairs so that every shape comes in the colours of what was replaced (reweighing, Kamiran and Calders 2012).

    Args:
        brought: what every pair's replacement brings.

    Returns:
        P(old colour) / P(new colour | new shape) of each: 1 on average where no shape prefers a colour.
    """
    old = Counter(one.old_colour for one in brought)
    both, shapes = Counter((one.shape, one.colour) for one in brought), Counter(one.shape for one in brought)
    return [old[one.colour] / len(brought) * shapes[one.shape] / both[one.shape, one.colour] for one in brought]


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
