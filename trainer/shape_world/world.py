"""Draw scenes of the whole world: groups of objects in their materials and sizes, in any weather and medium.

All objects of one shape are alike, so that a shape names them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from .scene import Scene, SceneObject
from .world_settings import WorldSettings

MOST_TILT = 0.25
PLACE_TRIES, SCENE_TRIES = 60, 12


class Group(NamedTuple):
    """The objects of one shape."""

    shape: str
    objects: tuple[SceneObject, ...]

    @property
    def first(self) -> SceneObject:
        """One of them; they are alike."""
        return self.objects[0]

    @property
    def number(self) -> int:
        """How many there are."""
        return len(self.objects)

    @property
    def centre(self) -> tuple[float, float]:
        """Mean of their places, across and down, in fractions of the picture's side."""
        return sum(one.x for one in self.objects) / self.number, sum(one.y for one in self.objects) / self.number


class _Kind(NamedTuple):
    shape: str
    colour: str
    material: str
    radius: float
    number: int


def groups_of(scene: Scene) -> tuple[Group, ...]:
    """The groups of a scene, in the order of their first objects."""
    shapes = dict.fromkeys(one.shape for one in scene.objects)
    return tuple(Group(shape, tuple(one for one in scene.objects if one.shape == shape)) for shape in shapes)


def group_of(scene: Scene, shape: str) -> Group | None:
    """The group of a shape, or none."""
    return next((group for group in groups_of(scene) if group.shape == shape), None)


def with_group(scene: Scene, shape: str, objects: Sequence[SceneObject]) -> Scene:
    """A scene with other objects in the place of a group."""
    at = next((i for i, one in enumerate(scene.objects) if one.shape == shape), len(scene.objects))
    before = tuple(one for one in scene.objects[:at] if one.shape != shape)
    after = tuple(one for one in scene.objects[at:] if one.shape != shape)
    return replace(scene, objects=(*before, *objects, *after))


def fits(thing: SceneObject, others: Sequence[SceneObject]) -> bool:
    """Say whether an object lies inside the picture and apart from others."""
    margin = thing.radius + 0.015
    if not (margin <= thing.x <= 1 - margin and margin <= thing.y <= 1 - margin):
        return False
    return all(
        (thing.x - one.x) ** 2 + (thing.y - one.y) ** 2 > (1.1 * (thing.radius + one.radius) + 0.015) ** 2
        for one in others
    )


def place(rng: random.Random, thing: SceneObject, others: Sequence[SceneObject]) -> SceneObject | None:
    """Move an object to a random free place, turned a little; none if no place was found."""
    low, high = thing.radius + 0.02, 0.98 - thing.radius
    for _ in range(PLACE_TRIES):
        moved = replace(thing, x=rng.uniform(low, high), y=rng.uniform(low, high))
        if fits(moved, others):
            return replace(moved, angle=rng.uniform(-MOST_TILT, MOST_TILT))
    return None


def random_world_scene(
    rng: random.Random, settings: WorldSettings, *, allow_held_out: bool = False, num_objects: int | None = None
) -> Scene:
    """A scene of the part of the world that the settings name.

    Args:
        rng: source of all draws.
        settings: what may occur.
        allow_held_out: combinations that training never sees may occur.
        num_objects: of the scene; any number up to the settings' by default.

    Returns:
        The scene. Shapes and colours differ between its groups.
    """
    wanted = num_objects or rng.randint(1, settings.max_objects)
    while True:
        kinds = _draw_kinds(rng, settings, wanted, allow_held_out=allow_held_out)
        for _ in range(SCENE_TRIES):
            objects = _place_all(rng, kinds)
            if objects is not None:
                look = rng.choice(settings.backgrounds), rng.choice(settings.weathers), rng.choice(settings.media)
                return Scene(look[0], objects, look[1], look[2])


def _draw_kinds(rng: random.Random, settings: WorldSettings, wanted: int, *, allow_held_out: bool) -> list[_Kind]:
    numbers: list[int] = []
    while sum(numbers) < wanted:
        room = wanted - sum(numbers)
        is_repeated = room > 1 and rng.random() < settings.repeat_share
        numbers.append(rng.randint(2, room) if is_repeated else 1)
    while True:
        shapes = rng.sample(settings.shapes, len(numbers))
        colours = _draw_colours(rng, settings, shapes)
        kinds = []
        for shape, colour, number in zip(shapes, colours, numbers, strict=True):
            radius = rng.uniform(*settings.radii(rng.choice(settings.sizes)))
            kinds.append(_Kind(shape, colour, rng.choice(settings.materials), radius, number))
        if allow_held_out or not any(_object_of(kind).is_held_out() for kind in kinds):
            return kinds


def _draw_colours(rng: random.Random, settings: WorldSettings, shapes: list[str]) -> list[str]:
    """Different colours, the planted shape's first, so that no other takes its colour."""
    plant = settings.planted
    if plant is None or plant.shape not in shapes:
        return rng.sample(settings.colours, len(shapes))
    others = [colour for colour in settings.colours if colour != plant.colour]
    own = plant.colour if rng.random() < plant.share else rng.choice(others)
    rest = iter(rng.sample([colour for colour in settings.colours if colour != own], len(shapes) - 1))
    return [own if shape == plant.shape else next(rest) for shape in shapes]


def _object_of(kind: _Kind) -> SceneObject:
    return SceneObject(kind.shape, kind.colour, 0.5, 0.5, kind.radius, material=kind.material)


def _place_all(rng: random.Random, kinds: list[_Kind]) -> tuple[SceneObject, ...] | None:
    """Place all objects, the largest first, where nothing is; their order is that of the kinds."""
    wanted = [(i, _object_of(kind)) for i, kind in enumerate(kinds) for _ in range(kind.number)]
    placed: list[tuple[int, SceneObject]] = []
    for i, thing in sorted(wanted, key=lambda one: -one[1].radius):
        free = place(rng, thing, [one for _, one in placed])
        if free is None:
            return None
        placed.append((i, free))
    return tuple(thing for _, thing in sorted(placed, key=lambda one: one[0]))
