"""Scenes of coloured shapes: what is in a picture, independent of how it is drawn.

A scene is a background colour and a few objects that do not overlap. Everything random comes from the `random.Random`
that the caller passes in, so a scene is a pure function of its seed. What is drawn here is the plain world of one to three
objects; world.py draws from the whole of it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

Colour = tuple[int, int, int]
FloatImage = NDArray[Any]
"""float32 [H, W, 3] in [0, 1]; masks are [H, W]."""

PALETTE: dict[str, Colour] = {
    "red": (214, 39, 40),
    "green": (44, 150, 50),
    "blue": (38, 76, 214),
    "yellow": (240, 216, 40),
    "purple": (132, 46, 168),
    "orange": (246, 132, 24),
    "pink": (248, 150, 196),
    "cyan": (40, 200, 220),
}
BACKGROUNDS: dict[str, Colour] = {
    "white": (246, 246, 244),
    "black": (18, 18, 20),
    "gray": (128, 128, 130),
    "brown": (110, 72, 44),
    "beige": (226, 206, 170),
}
SHAPES = ("circle", "square", "triangle", "star", "heart", "diamond", "hexagon", "cross")
MATERIALS = ("plain", "stripes", "dots", "checker")
SIZES = ("small", "large")
WEATHERS = ("clear", "rain", "snow", "fog", "night")
MEDIA = ("flat", "outline", "mosaic", "pastel")

HELD_OUT_COMBINATIONS = frozenset(
    {("purple", "star"), ("orange", "circle"), ("cyan", "square"), ("pink", "triangle"), ("green", "heart")}
)
"""(colour, shape) pairs that never appear in training, neither in an input nor in a target."""
HELD_OUT_MATERIALS = frozenset({("stripes", "heart"), ("dots", "star"), ("checker", "circle")})
"""(material, shape) pairs that never appear in training."""

SMALLEST, LARGEST = 0.13, 0.23
"""Range of an object's radius, as a fraction of the picture's side."""
LARGE_FROM = 0.13
"""Radius from which on an object is large."""


@dataclass(frozen=True)
class SceneObject:
    """One shape; position and radius are fractions of the picture's side."""

    shape: str
    colour: str
    x: float
    y: float
    radius: float
    angle: float = 0.0
    material: str = "plain"

    @property
    def size(self) -> str:
        """One of SIZES."""
        return SIZES[self.radius >= LARGE_FROM]

    def is_held_out(self) -> bool:
        """Say whether a combination occurs that training never sees."""
        pairs = (self.colour, self.shape), (self.material, self.shape)
        return pairs[0] in HELD_OUT_COMBINATIONS or pairs[1] in HELD_OUT_MATERIALS


@dataclass(frozen=True)
class Scene:
    """A background colour and its objects, drawn in order; and the look of the whole picture."""

    background: str
    objects: tuple[SceneObject, ...]
    weather: str = "clear"
    medium: str = "flat"

    def with_object(self, index: int, changed: SceneObject | None) -> Scene:
        """Replace (or with `None` remove) one object."""
        kept = [changed if i == index else o for i, o in enumerate(self.objects)]
        return replace(self, objects=tuple(o for o in kept if o is not None))

    def is_held_out(self) -> bool:
        """Say whether a combination occurs that training never sees."""
        return any(o.is_held_out() for o in self.objects)

    def caption(self) -> str:
        """A scene of the plain world in words, as a text-to-image prompt would have it; world_captions.py says more."""
        things = " and ".join(f"a {o.colour} {o.shape}" for o in self.objects)
        return f"{things} on a {self.background} background" if things else f"an empty {self.background} background"


def free_place(rng: random.Random, objects: tuple[SceneObject, ...], tries: int = 40) -> tuple[float, float, float]:
    """A position and radius that overlap no object; the smallest radius where the picture is crowded."""
    for attempt in range(tries):
        radius = rng.uniform(SMALLEST, LARGEST) if attempt < tries // 2 else SMALLEST
        x, y = (rng.uniform(radius + 0.02, 0.98 - radius) for _ in range(2))
        if all((x - o.x) ** 2 + (y - o.y) ** 2 > (radius + o.radius + 0.02) ** 2 for o in objects):
            return x, y, radius
    raise RuntimeError("no free place in the scene")


def random_object(
    rng: random.Random, objects: tuple[SceneObject, ...], *, allow_held_out: bool, colour: str | None = None
) -> SceneObject:
    """An object of a random shape, colour and place; its shape and its colour occur only once in the scene."""
    x, y, radius = free_place(rng, objects)
    used_shapes, used_colours = {o.shape for o in objects}, {o.colour for o in objects}
    while True:
        candidate = SceneObject(
            rng.choice(SHAPES), colour or rng.choice(list(PALETTE)), x, y, radius, rng.uniform(-0.25, 0.25)
        )
        if candidate.shape in used_shapes or candidate.colour in used_colours:
            continue
        if allow_held_out or not candidate.is_held_out():
            return candidate


def random_scene(rng: random.Random, num_objects: int, *, allow_held_out: bool = False) -> Scene:
    """A scene of `num_objects` (1 to 3) objects."""
    objects: tuple[SceneObject, ...] = ()
    while len(objects) < num_objects:
        try:
            objects += (random_object(rng, objects, allow_held_out=allow_held_out),)
        except RuntimeError:  # crowded: place everything anew
            objects = ()
    return Scene(rng.choice(list(BACKGROUNDS)), objects)
