"""Edits of the whole world: an instruction in several wordings, both captions, both exact scenes, the mask of what changes."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...ip2p_core.errors import ConfigError
from .render import FloatImage, ink_mask, render_mask
from .scene import Scene, SceneObject
from .world import Group, group_of, groups_of, random_world_scene
from .world_captions import Phrasing, describe, noun_phrase, random_phrasing, relation_of, short_name
from .world_changes import MAKERS, Change, inverse_change
from .world_settings import Planted, WorldSettings
from .world_wordings import (
    LOOKS,
    MEDIUM_NAMES,
    NUMBERS,
    PATTERNS,
    WEATHER_NAMES,
    WORLD_WORDINGS,
    Slots,
    fill,
    plural,
    training_wordings,
)

EDIT_TRIES = 3000
"""Scenes that are drawn for an edit before it is given up."""
INVERSES = {"add": "remove", "remove": "add"}
VIEWS = {"near": ", seen from nearby", "far": ", seen from far away"}
"""What captions say about the side that a viewpoint leads to; its other side is the other one."""


@dataclass(frozen=True)
class WorldEdit:
    """One edit with its exact result."""

    edit_type: str
    instruction: str
    change: Change
    slots: Slots
    """What the instruction names: the gaps of the wordings, filled."""
    caption: str
    edited_caption: str
    phrasing: Phrasing

    @property
    def before(self) -> Scene:
        """The scene that is edited."""
        return self.change.before

    @property
    def after(self) -> Scene:
        """The scene that comes out."""
        return self.change.after

    @property
    def wording_set(self) -> str:
        """A key of world_wordings.WORLD_WORDINGS."""
        return _wording_set(self.edit_type, self.change)

    def mask(self, size: int) -> FloatImage:
        """Coverage [size, size] in [0, 1] of the region outside which no pixel changes."""
        if self.edit_type in ("medium", "weather"):
            return np.ones((size, size), np.float32)
        if self.edit_type == "background":
            return 1 - ink_mask(self.before, size)
        covered: FloatImage = np.max([render_mask((one,), size) for one in _changed(self.before, self.after)], axis=0)
        return covered

    def is_held_out(self) -> bool:
        """Say whether a combination occurs that training never sees."""
        return self.before.is_held_out() or self.after.is_held_out()

    def training_instructions(self) -> tuple[str, ...]:
        """The same edit in every wording that training may use."""
        return tuple(fill(wording, self.slots) for wording in training_wordings(self.wording_set))


def _changed(before: Scene, after: Scene) -> tuple[SceneObject, ...]:
    there, then = set(before.objects), set(after.objects)
    return tuple(there ^ then)


def _wording_set(edit_type: str, change: Change) -> str:
    return f"viewpoint/{change.variant}" if edit_type == "viewpoint" else edit_type


def edit_of_scene(
    rng: random.Random, scene: Scene, settings: WorldSettings, edit_type: str, *, held_out_wording: bool = False
) -> WorldEdit | None:
    """A random edit of a scene.

    Args:
        rng: source of all draws.
        scene: drawn with the same settings; the edited side of an addition and of a view from nearby.
        settings: what may occur.
        edit_type: one of world_wordings.WORLD_EDIT_TYPES.
        held_out_wording: take the wording that training never sees.

    Returns:
        The edit; none where the scene has nothing to be edited so, or no room was found.
    """
    change = MAKERS[edit_type](rng, scene, settings)
    if change is None or _is_left_out(rng, change, settings.planted):
        return None
    phrasing = _phrasing_of(rng, edit_type, change, settings)
    return _in_words(rng, edit_type, change, phrasing, held_out_wording=held_out_wording)


def random_world_edit(
    rng: random.Random,
    settings: WorldSettings,
    edit_type: str | None = None,
    *,
    allow_held_out: bool = False,
    held_out_wording: bool = False,
) -> WorldEdit:
    """A random edit of a random scene.

    Args:
        rng: source of all draws.
        settings: what may occur.
        edit_type: one of the settings' edit types; any by default.
        allow_held_out: combinations that training never sees may occur.
        held_out_wording: take the wording that training never sees.

    Returns:
        The edit.

    Raises:
        ConfigError: if the settings leave no room for such an edit.
    """
    wanted = edit_type or rng.choice(settings.edit_types)
    for _ in range(EDIT_TRIES):
        scene = random_world_scene(rng, settings, allow_held_out=allow_held_out)
        edit = edit_of_scene(rng, scene, settings, wanted, held_out_wording=held_out_wording)
        if edit is not None and (allow_held_out or not edit.is_held_out()):
            return edit
    raise ConfigError(
        f"None of {EDIT_TRIES} scenes could be edited by {wanted!r} without a held-out combination; the settings are too "
        "narrow for it. Allow more shapes, colours or materials, or leave the edit out of edit_types."
    )


def world_edit_at(
    purpose: str,
    seed: int,
    index: int,
    settings: WorldSettings,
    edit_type: str | None = None,
    *,
    allow_held_out: bool = False,
    held_out_wording: bool = False,
) -> WorldEdit:
    """The edit of a place in an endless list: a pure function of its arguments, otherwise as random_world_edit."""
    rng = random.Random(f"{purpose}/{seed}/{index}")
    return random_world_edit(rng, settings, edit_type, allow_held_out=allow_held_out, held_out_wording=held_out_wording)


def inverse_world_edit(rng: random.Random, edit: WorldEdit) -> WorldEdit | None:
    """The edit that leads back, in a random wording of training; none for a move, whose old place has no name."""
    change = inverse_change(edit.edit_type, edit.change)
    if change is None:
        return None
    return _in_words(rng, INVERSES.get(edit.edit_type, edit.edit_type), change, edit.phrasing)


def _is_left_out(rng: random.Random, change: Change, plant: Planted | None) -> bool:
    """Leave out most changes that break a planted correlation."""
    if plant is None or _breaks(change.before, plant) or not _breaks(change.after, plant):
        return False
    return rng.random() < plant.share


def _breaks(scene: Scene, plant: Planted) -> bool:
    group = group_of(scene, plant.shape)
    return group is not None and group.first.colour != plant.colour


def _phrasing_of(rng: random.Random, edit_type: str, change: Change, settings: WorldSettings) -> Phrasing:
    """Captions name what the edit changes, so that they differ."""
    phrasing = random_phrasing(rng, is_sized=len(settings.sizes) > 1 and edit_type != "viewpoint")
    if edit_type == "swap":
        return phrasing._replace(related=change.subjects)
    if edit_type == "move":
        return phrasing._replace(placed=change.subjects, is_related=False)
    if change.variant == "mirrored":
        return phrasing._replace(placed=change.subjects, is_related=False)
    if edit_type not in ("viewpoint", "count") and rng.random() < 0.25:
        return phrasing._replace(placed=tuple(group.shape for group in groups_of(change.after)), is_related=False)
    return phrasing


def _in_words(
    rng: random.Random, edit_type: str, change: Change, phrasing: Phrasing, *, held_out_wording: bool = False
) -> WorldEdit:
    wordings, held_out = training_wordings(_wording_set(edit_type, change)), WORLD_WORDINGS
    wording = held_out[_wording_set(edit_type, change)][-1] if held_out_wording else rng.choice(wordings)
    slots = _SLOTS[edit_type](rng, change, phrasing)
    captions = [describe(scene, phrasing) for scene in (change.before, change.after)]
    if change.variant in VIEWS:
        other = "near" if change.variant == "far" else "far"
        captions = [captions[0] + VIEWS[other], captions[1] + VIEWS[change.variant]]
    return WorldEdit(edit_type, fill(wording, slots), change, slots, captions[0], captions[1], phrasing)


def _group(scene: Scene, shape: str) -> Group:
    return next(group for group in groups_of(scene) if group.shape == shape)


def _thing(rng: random.Random, change: Change, place: int = 0) -> str:
    return short_name(rng, _group(change.before, change.subjects[place]))


def _slots_of_colour(rng: random.Random, change: Change, phrasing: Phrasing) -> Slots:  # noqa: ARG001
    colour = _group(change.after, change.subjects[0]).first.colour
    return ("thing", _thing(rng, change)), ("colour", colour)


def _slots_of_material(rng: random.Random, change: Change, phrasing: Phrasing) -> Slots:  # noqa: ARG001
    material = _group(change.after, change.subjects[0]).first.material
    return ("thing", _thing(rng, change)), ("pattern", PATTERNS[material])


def _slots_of_replacement(rng: random.Random, change: Change, phrasing: Phrasing) -> Slots:  # noqa: ARG001
    new = _group(change.after, change.subjects[1])
    return ("thing", _thing(rng, change)), ("new", f"a {new.shape}" if new.number == 1 else plural(new.shape))


def _slots_of_addition(rng: random.Random, change: Change, phrasing: Phrasing) -> Slots:
    new = _group(change.after, change.subjects[0])
    relations = [(relation_of(new, group), group) for group in groups_of(change.before)]
    said = [f" {relation} the {short_name(rng, group)}" for relation, group in relations if relation]
    place = rng.choice(said) if said and rng.random() < 0.5 else ""
    return ("new", noun_phrase(new, phrasing._replace(has_tails=False))), ("place", place)


def _slots_of_number(rng: random.Random, change: Change, phrasing: Phrasing) -> Slots:  # noqa: ARG001
    group = _group(change.after, change.subjects[0])
    return (("number", f"{NUMBERS[group.number]} {short_name(rng, group)}"),)


SlotWriter = Callable[[random.Random, Change, Phrasing], Slots]
_SLOTS: dict[str, SlotWriter] = {
    "recolour": _slots_of_colour,
    "replace": _slots_of_replacement,
    "material": _slots_of_material,
    "medium": lambda rng, change, phrasing: (("medium", MEDIUM_NAMES[change.after.medium]),),  # noqa: ARG005
    "background": lambda rng, change, phrasing: (("ground", change.after.background),),  # noqa: ARG005
    "weather": lambda rng, change, phrasing: (  # noqa: ARG005
        ("weather", WEATHER_NAMES[change.after.weather]),
        ("look", LOOKS[change.after.weather]),
    ),
    "add": _slots_of_addition,
    "remove": lambda rng, change, phrasing: (("thing", _thing(rng, change)),),  # noqa: ARG005
    "count": _slots_of_number,
    "move": lambda rng, change, phrasing: (("thing", _thing(rng, change)), ("side", change.variant)),  # noqa: ARG005
    "swap": lambda rng, change, phrasing: (  # noqa: ARG005
        ("thing", _thing(rng, change)),
        ("other", _thing(rng, change, 1)),
    ),
    "viewpoint": lambda rng, change, phrasing: (),  # noqa: ARG005
}
