"""Edits of a scene: an instruction in several wordings, the exact edited scene, and the mask of what changes.

The last wording of every edit is held out: it is never used in training and only there for evaluation.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from .render import FloatImage, render_mask
from .scene import BACKGROUNDS, PALETTE, SHAPES, Scene, SceneObject

WORDINGS: dict[str, tuple[str, ...]] = {
    "recolour": (
        "make the {thing} {colour}",
        "turn the {thing} {colour}",
        "paint the {thing} {colour}",
        "change the color of the {thing} to {colour}",
        "the {thing} should be {colour}",
        "change the {thing} to {colour}",
    ),
    "replace": (
        "replace the {thing} with a {shape}",
        "turn the {thing} into a {shape}",
        "swap the {thing} for a {shape}",
        "make the {thing} a {shape}",
        "change the {thing} into a {shape}",
        "exchange the {thing} with a {shape}",
    ),
    "add": (
        "add a {colour} {shape}",
        "put a {colour} {shape} in the picture",
        "insert a {colour} {shape}",
        "draw a {colour} {shape}",
        "there should be a {colour} {shape}",
        "put in a {colour} {shape}",
    ),
    "remove": (
        "remove the {thing}",
        "delete the {thing}",
        "take away the {thing}",
        "erase the {thing}",
        "get rid of the {thing}",
        "take the {thing} out of the picture",
    ),
    "background": (
        "make the background {ground}",
        "change the background to {ground}",
        "put it on a {ground} background",
        "turn the background {ground}",
        "paint the background {ground}",
        "the background should be {ground}",
    ),
}
EDIT_TYPES = tuple(WORDINGS)


@dataclass(frozen=True)
class SceneEdit:
    """One edit with its exact result."""

    edit_type: str
    instruction: str
    before: Scene
    after: Scene
    changed: tuple[SceneObject, ...] | None
    """The objects that cover what changes; `None` when the background changes."""
    slots: tuple[tuple[str, str], ...]
    """What the instruction names: the gaps of the wordings, filled."""
    colour: str | None = None
    """The colour that the changed part should have, where one is named."""

    def mask(self, size: int) -> FloatImage:
        """Coverage [size, size] in [0, 1] of the changed region."""
        if self.changed is None:
            return 1 - render_mask(self.before.objects, size)
        mask: FloatImage = np.max([render_mask((thing,), size) for thing in self.changed], axis=0)
        return mask

    def is_held_out(self) -> bool:
        """Say whether a combination occurs that training never sees."""
        return self.before.is_held_out() or self.after.is_held_out()

    def training_instructions(self) -> tuple[str, ...]:
        """The same edit in every wording that training may use."""
        return tuple(_fill(wording, self.slots) for wording in WORDINGS[self.edit_type][:-1])


def _fill(wording: str, slots: tuple[tuple[str, str], ...]) -> str:
    return re.sub(r"\ba (?=[aeiou])", "an ", wording.format(**dict(slots)))


def _name(rng: random.Random, thing: SceneObject) -> str:
    return thing.shape if rng.random() < 0.5 else f"{thing.colour} {thing.shape}"


class _Change(NamedTuple):
    """An edit without its wording."""

    after: Scene
    changed: tuple[SceneObject, ...] | None
    slots: tuple[tuple[str, str], ...]
    colour: str | None = None
    before: Scene | None = None


def _recolour(rng: random.Random, scene: Scene, index: int) -> _Change:
    thing = scene.objects[index]
    colour = rng.choice([c for c in PALETTE if c != thing.colour])
    after = scene.with_object(index, replace(thing, colour=colour))
    return _Change(after, (thing,), (("thing", _name(rng, thing)), ("colour", colour)), colour)


def _replace(rng: random.Random, scene: Scene, index: int) -> _Change:
    thing = scene.objects[index]
    new = replace(thing, shape=rng.choice([s for s in SHAPES if s not in {o.shape for o in scene.objects}]))
    slots = (("thing", _name(rng, thing)), ("shape", new.shape))
    return _Change(scene.with_object(index, new), (thing, new), slots, thing.colour)


def _add(rng: random.Random, scene: Scene, index: int) -> _Change:  # noqa: ARG001
    """The inverse of a removal, so that there is always room; the place is where the object was."""
    thing = scene.objects[index]
    slots = (("colour", thing.colour), ("shape", thing.shape))
    return _Change(scene, (thing,), slots, thing.colour, before=scene.with_object(index, None))


def _remove(rng: random.Random, scene: Scene, index: int) -> _Change:
    thing = scene.objects[index]
    return _Change(scene.with_object(index, None), (thing,), (("thing", _name(rng, thing)),))


def _background(rng: random.Random, scene: Scene, index: int) -> _Change:  # noqa: ARG001
    ground = rng.choice([b for b in BACKGROUNDS if b != scene.background])
    return _Change(replace(scene, background=ground), None, (("ground", ground),))


_MAKERS: dict[str, Callable[[random.Random, Scene, int], _Change]] = {
    "recolour": _recolour,
    "replace": _replace,
    "add": _add,
    "remove": _remove,
    "background": _background,
}


def random_edit(rng: random.Random, scene: Scene, edit_type: str, *, held_out_wording: bool = False) -> SceneEdit:
    """A random edit of the given type; its wording is the held-out one only where that is asked for."""
    change = _MAKERS[edit_type](rng, scene, rng.randrange(len(scene.objects)))
    wordings = WORDINGS[edit_type]
    wording = wordings[-1] if held_out_wording else rng.choice(wordings[:-1])
    instruction = _fill(wording, change.slots)
    before = change.before or scene
    return SceneEdit(edit_type, instruction, before, change.after, change.changed, change.slots, change.colour)


def inverse_edit(rng: random.Random, edit: SceneEdit) -> SceneEdit:
    """The edit that leads back, in a random wording of training."""
    before, after = edit.after, edit.before
    edit_type, colour = {"add": "remove", "remove": "add"}.get(edit.edit_type, edit.edit_type), edit.colour
    if edit_type == "background":
        slots: tuple[tuple[str, str], ...] = (("ground", after.background),)
    else:
        gone = [thing for thing in before.objects if thing not in after.objects]
        come = [thing for thing in after.objects if thing not in before.objects]
        named = {"thing": _name(rng, gone[0])} if gone else {}
        named |= {"colour": come[0].colour, "shape": come[0].shape} if come else {}
        slots, colour = tuple(named.items()), come[0].colour if come else None
    instruction = _fill(rng.choice(WORDINGS[edit_type][:-1]), slots)
    return SceneEdit(edit_type, instruction, before, after, edit.changed, slots, colour)
