"""The outlines of the shapes: polygons around (0, 0), mirror images of themselves left to right."""

from __future__ import annotations

import math

from .scene import SceneObject


def _regular(points: int, inner: float = 1.0, start: float = -math.pi / 2) -> list[tuple[float, float]]:
    count = points if inner == 1.0 else 2 * points
    radii = [1.0 if i % 2 == 0 or inner == 1.0 else inner for i in range(count)]
    angles = [start + 2 * math.pi * i / count for i in range(count)]
    return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]


def _heart() -> list[tuple[float, float]]:
    ts = [2 * math.pi * i / 60 for i in range(60)]
    return [
        (
            16 * math.sin(t) ** 3 / 17,
            -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 17,
        )
        for t in ts
    ]


def _cross(w: float = 0.36) -> list[tuple[float, float]]:
    return [(-w, -1), (w, -1), (w, -w), (1, -w), (1, w), (w, w), (w, 1), (-w, 1), (-w, w), (-1, w), (-1, -w), (-w, -w)]


_OUTLINES: dict[str, list[tuple[float, float]]] = {
    "circle": _regular(64),
    "square": [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)],
    "triangle": _regular(3),
    "star": _regular(5, inner=0.42),
    "heart": _heart(),
    "diamond": [(0, -1), (0.66, 0), (0, 1), (-0.66, 0)],
    "hexagon": _regular(6),
    "cross": _cross(),
}


def outline(thing: SceneObject, side: float) -> list[tuple[float, float]]:
    """The polygon of an object in a picture of `side` pixels."""
    cos, sin = math.cos(thing.angle), math.sin(thing.angle)
    return [
        (side * (thing.x + thing.radius * (cos * u - sin * v)), side * (thing.y + thing.radius * (sin * u + cos * v)))
        for u, v in _OUTLINES[thing.shape]
    ]
