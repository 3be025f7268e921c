"""Say what a picture of one shape shows, by looking at its pixels: background, colour, shape, place."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .render import FloatImage, render_mask
from .scene import BACKGROUNDS, PALETTE, SHAPES, Colour, SceneObject

BORDER = 4
"""Pixels at the edge of the picture that show the background."""
DIFFERENT = 0.2
"""Distance of a colour from the background, in [0, sqrt(3)], from which on a pixel belongs to the object."""
SMALLEST_SHARE, LARGEST_SHARE = 0.01, 0.5
"""Of the picture; less or more than that is no object."""
ANGLES = (-0.2, -0.1, 0.0, 0.1, 0.2)


class Judgement(NamedTuple):
    """What a picture shows."""

    background: str
    colour: str | None
    """None where there is no object."""
    shape: str | None
    mask: FloatImage
    """Where the object is [H, W], 0 or 1."""


def judge(picture: FloatImage) -> Judgement:
    """Judge a square picture of at most one object.

    Args:
        picture: [H, W, 3] in [0, 1].

    Returns:
        The nearest background, the object's nearest colour, and the shape whose outline of the same place and area
        overlaps it most.
    """
    ring = np.ones(picture.shape[:2], bool)
    ring[BORDER:-BORDER, BORDER:-BORDER] = False
    behind = np.median(picture[ring], axis=0)
    mask = np.linalg.norm(picture - behind, axis=-1) > DIFFERENT
    background = nearest_name(behind, BACKGROUNDS)
    if not SMALLEST_SHARE < mask.mean() < LARGEST_SHARE:
        return Judgement(background, None, None, mask.astype(np.float32))
    colour = nearest_name(np.median(picture[mask], axis=0), PALETTE)
    return Judgement(background, colour, nearest_shape(mask), mask.astype(np.float32))


def nearest_name(value: FloatImage, colours: dict[str, Colour]) -> str:
    """Name the colour nearest to a value [3] in [0, 1]."""
    return min(colours, key=lambda name: float(np.square(value * 255 - colours[name]).sum()))


def nearest_shape(mask: FloatImage) -> str:
    """Name the shape whose outline of the same centre and area overlaps a mask [H, W] most."""
    size = mask.shape[0]
    y, x = (float(places.mean() + 0.5) / size for places in np.nonzero(mask))
    overlaps: dict[str, float] = {}
    for shape in SHAPES:
        area, dx, dy = _unit(shape)
        radius = float(np.sqrt(mask.mean() / area))
        for angle in ANGLES:
            cos, sin = np.cos(angle), np.sin(angle)
            centre = x - radius * (cos * dx - sin * dy), y - radius * (sin * dx + cos * dy)
            drawn = render_mask((SceneObject(shape, "red", *centre, radius, angle),), size) > 0.5
            overlap = (drawn & (mask > 0)).sum() / (drawn | (mask > 0)).sum()
            overlaps[shape] = max(overlaps.get(shape, 0.0), float(overlap))
    return max(overlaps, key=overlaps.__getitem__)


@lru_cache
def _unit(shape: str) -> tuple[float, float, float]:
    """Area and centre of gravity of a shape of radius 1 around (0, 0)."""
    size = 200
    drawn = render_mask((SceneObject(shape, "red", 0.5, 0.5, 0.4),), size)
    y, x = np.mgrid[:size, :size]
    centre = [float((drawn * place).sum() / drawn.sum() + 0.5) / size - 0.5 for place in (x, y)]
    return float(drawn.mean()) / 0.4**2, centre[0] / 0.4, centre[1] / 0.4
