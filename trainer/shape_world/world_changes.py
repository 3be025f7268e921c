"""What the edits of the world do to a scene, each as the exact scenes of both sides; world_edits.py puts them in words."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from .scene import Scene, SceneObject
from .world import Group, fits, group_of, groups_of, place, with_group
from .world_captions import place_of, relation_of
from .world_settings import WorldSettings

ZOOM = 1.35
FARTHEST, NEAREST = 0.05, 0.2
"""A moved object stops so far from the edge, and moves at least so far."""
SIDES = ("left", "right", "top", "bottom")
VIEWPOINTS = ("mirrored", "near", "far")
INVERSE_VIEWPOINTS = {"mirrored": "mirrored", "near": "far", "far": "near"}


class Change(NamedTuple):
    """An edit without words."""

    before: Scene
    after: Scene
    subjects: tuple[str, ...] = ()
    """The shapes that it is about; of a replacement the old and the new one."""
    variant: str = ""
    """Of a move the side, of a viewpoint which one."""


def _pick(rng: random.Random, scene: Scene, *, is_single: bool = False) -> Group | None:
    groups = [group for group in groups_of(scene) if group.number == 1 or not is_single]
    return rng.choice(groups) if groups else None


def _repainted(rng: random.Random, scene: Scene, name: str, values: list[str]) -> Change | None:
    group = _pick(rng, scene)
    values = [value for value in values if group is not None and value != getattr(group.first, name)]
    if group is None or not values:
        return None
    value = rng.choice(values)
    painted = [
        replace(one, colour=value) if name == "colour" else replace(one, material=value) for one in group.objects
    ]
    return Change(scene, with_group(scene, group.shape, painted), (group.shape,))


def _recolour(rng: random.Random, scene: Scene, settings: WorldSettings) -> Change | None:
    used = {group.first.colour for group in groups_of(scene)}
    return _repainted(rng, scene, "colour", [colour for colour in settings.colours if colour not in used])


def _material(rng: random.Random, scene: Scene, settings: WorldSettings) -> Change | None:
    return _repainted(rng, scene, "material", list(settings.materials))


def _replace(rng: random.Random, scene: Scene, settings: WorldSettings) -> Change | None:
    group = _pick(rng, scene)
    if group is None:
        return None
    used = {one.shape for one in groups_of(scene)}
    shape = rng.choice([shape for shape in settings.shapes if shape not in used])
    reshaped = [replace(one, shape=shape) for one in group.objects]
    return Change(scene, with_group(scene, group.shape, reshaped), (group.shape, shape))


def _remove(rng: random.Random, scene: Scene, settings: WorldSettings) -> Change | None:  # noqa: ARG001
    group = _pick(rng, scene)
    return group and Change(scene, with_group(scene, group.shape, ()), (group.shape,))


def _add(rng: random.Random, scene: Scene, settings: WorldSettings) -> Change | None:
    """The inverse of a removal, so that there is always room; the place is where the objects were."""
    removal = _remove(rng, scene, settings)
    return removal and removal._replace(before=removal.after, after=scene)


def _background(rng: random.Random, scene: Scene, settings: WorldSettings) -> Change:
    ground = rng.choice([one for one in settings.backgrounds if one != scene.background])
    return Change(scene, replace(scene, background=ground))


def _weather(rng: random.Random, scene: Scene, settings: WorldSettings) -> Change:
    weather = rng.choice([one for one in settings.weathers if one != scene.weather])
    return Change(scene, replace(scene, weather=weather))


def _medium(rng: random.Random, scene: Scene, settings: WorldSettings) -> Change:
    medium = rng.choice([one for one in settings.media if one != scene.medium])
    return Change(scene, replace(scene, medium=medium))


def _count(rng: random.Random, scene: Scene, settings: WorldSettings) -> Change | None:
    group = _pick(rng, scene)
    if group is None:
        return None
    most = settings.max_objects - len(scene.objects) + group.number
    numbers = [number for number in range(1, most + 1) if number != group.number]
    if not numbers:
        return None
    number = rng.choice(numbers)
    objects = list(group.objects) if number > group.number else rng.sample(group.objects, number)
    others = [one for one in scene.objects if one.shape != group.shape]
    while len(objects) < number:
        new = place(rng, group.first, [*objects, *others])
        if new is None:
            return None
        objects.append(new)
    return Change(scene, with_group(scene, group.shape, objects), (group.shape,))


def _at_side(thing: SceneObject, side: str) -> SceneObject:
    near = thing.radius + FARTHEST
    if side in ("left", "right"):
        return replace(thing, x=near if side == "left" else 1 - near)
    return replace(thing, y=near if side == "top" else 1 - near)


def _move(rng: random.Random, scene: Scene, settings: WorldSettings) -> Change | None:  # noqa: ARG001
    group = _pick(rng, scene, is_single=True)
    if group is None:
        return None
    thing, side = group.first, rng.choice(SIDES)
    moved = _at_side(thing, side)
    is_far = abs(moved.x - thing.x) + abs(moved.y - thing.y) > NEAREST and place_of(moved) != place_of(thing)
    if not is_far or not fits(moved, [one for one in scene.objects if one is not thing]):
        return None
    return Change(scene, with_group(scene, group.shape, (moved,)), (group.shape,), side)


def _swap(rng: random.Random, scene: Scene, settings: WorldSettings) -> Change | None:  # noqa: ARG001
    single = [group for group in groups_of(scene) if group.number == 1]
    if len(single) < 2:
        return None
    first, second = rng.sample(single, 2)
    one, other = first.first, second.first
    moved, back = replace(one, x=other.x, y=other.y), replace(other, x=one.x, y=one.y)
    rest = [thing for thing in scene.objects if thing not in (one, other)]
    if relation_of(first, second) is None or not (fits(moved, [*rest, back]) and fits(back, [*rest, moved])):
        return None
    after = with_group(with_group(scene, first.shape, (moved,)), second.shape, (back,))
    return Change(scene, after, (first.shape, second.shape))


def _mirrored(scene: Scene) -> Scene:
    return replace(scene, objects=tuple(replace(one, x=1 - one.x, angle=-one.angle) for one in scene.objects))


def _from_afar(scene: Scene) -> Scene:
    smaller = [
        replace(one, x=0.5 + (one.x - 0.5) / ZOOM, y=0.5 + (one.y - 0.5) / ZOOM, radius=one.radius / ZOOM)
        for one in scene.objects
    ]
    return replace(scene, objects=tuple(smaller))


def _viewpoint(rng: random.Random, scene: Scene, settings: WorldSettings) -> Change | None:  # noqa: ARG001
    """Mirrored, or from near or far; what is seen from near first fills the picture, so that nothing is lost."""
    variant, subjects = rng.choice(VIEWPOINTS), tuple(group.shape for group in groups_of(scene))
    if variant == "mirrored":
        after = _mirrored(scene)
        pairs = [(group, group_of(after, group.shape)) for group in groups_of(scene) if group.number == 1]
        is_seen = any(b and place_of(a.first) != place_of(b.first) for a, b in pairs)
        return Change(scene, after, subjects, variant) if is_seen else None
    if any(one.size != "large" for one in scene.objects):
        return None
    sides = (scene, _from_afar(scene)) if variant == "far" else (_from_afar(scene), scene)
    return Change(*sides, subjects, variant)


Maker = Callable[[random.Random, Scene, WorldSettings], Change | None]
MAKERS: dict[str, Maker] = {
    "recolour": _recolour,
    "replace": _replace,
    "material": _material,
    "medium": _medium,
    "background": _background,
    "weather": _weather,
    "add": _add,
    "remove": _remove,
    "count": _count,
    "move": _move,
    "swap": _swap,
    "viewpoint": _viewpoint,
}


def inverse_change(edit_type: str, change: Change) -> Change | None:
    """What leads back; none for a move, whose old place has no name."""
    if edit_type == "move":
        return None
    subjects = change.subjects[::-1] if edit_type == "replace" else change.subjects
    return Change(change.after, change.before, subjects, INVERSE_VIEWPOINTS.get(change.variant, change.variant))
