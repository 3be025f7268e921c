"""Draw objects in their materials, each as a pattern of two tones that turns and grows with the object."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from .outlines import outline
from .scene import BACKGROUNDS, PALETTE, Colour, FloatImage, Scene, SceneObject

LINE = 0.021
"""Width of a line of the medium "outline", of the picture's side."""
LIGHT = 150
"""Luminance from which on a colour's second tone is darker than it, not lighter."""
BAND, DOT_SPACING, DOT_RADIUS, CELL = 0.38, 0.62, 0.21, 0.46
"""Of the patterns, in radii of the object."""


def second_tone(colour: Colour) -> Colour:
    """The other tone of a pattern."""
    luminance = 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2]
    if luminance > LIGHT:
        return (round(colour[0] * 0.32), round(colour[1] * 0.32), round(colour[2] * 0.32))
    return (round(190 + colour[0] * 0.25), round(190 + colour[1] * 0.25), round(190 + colour[2] * 0.25))


def pattern(material: str, u: FloatImage, v: FloatImage) -> FloatImage:
    """Say where the second tone goes; the same for u and -u, so that a mirrored object keeps its pattern.

    Args:
        material: one of scene.MATERIALS.
        u: across the object [H, W], in radii from its centre.
        v: down the object [H, W], in radii from its centre.

    Returns:
        Booleans [H, W].
    """
    has_tone: FloatImage = np.zeros(np.broadcast_shapes(u.shape, v.shape), bool)
    if material == "stripes":
        has_tone |= np.floor(v / BAND) % 2 == 1
    elif material == "dots":
        near = [place - DOT_SPACING * np.round(place / DOT_SPACING) for place in (u, v)]
        has_tone |= np.square(near[0]) + np.square(near[1]) < DOT_RADIUS**2
    elif material == "checker":
        has_tone |= (np.round(u / CELL) + np.round(v / CELL)) % 2 == 1
    return has_tone


def _covered(thing: SceneObject, side: int) -> FloatImage:
    image = Image.new("L", (side, side), 0)
    ImageDraw.Draw(image).polygon(outline(thing, side), fill=255)
    return np.asarray(image) > 0


def _box(thing: SceneObject, side: int) -> tuple[slice, slice]:
    reach = 1.2 * thing.radius
    rows, columns = (
        slice(max(0, math.floor((middle - reach) * side)), max(0, math.ceil((middle + reach) * side)))
        for middle in (thing.y, thing.x)
    )
    return rows, columns


def _pattern_of(thing: SceneObject, side: int, box: tuple[slice, slice]) -> FloatImage:
    down, right = (
        ((np.arange(places.start, min(side, places.stop)) + 0.5) / side - middle) / thing.radius
        for places, middle in zip(box, (thing.y, thing.x), strict=True)
    )
    down = down[:, None]
    cos, sin = math.cos(thing.angle), math.sin(thing.angle)
    return pattern(thing.material, cos * right + sin * down, cos * down - sin * right)


def _inner(covered: FloatImage, width: int) -> FloatImage:
    """What is left of a region [H, W] without its edge."""
    padded = np.pad(covered, width)
    height, length = covered.shape
    left = covered.copy()
    for step in range(16):
        distance = width if step % 2 else width / 2
        down, right = (round(distance * part(math.pi * step / 8)) for part in (math.sin, math.cos))
        left &= padded[width + down : width + down + height, width + right : width + right + length]
    return left


def _ink(thing: SceneObject, side: int, medium: str) -> tuple[tuple[slice, slice], FloatImage, FloatImage]:
    """Where an object is painted in its colour, and where in its second tone, inside a box of the picture."""
    box = _box(thing, side)
    covered, toned = _covered(thing, side)[box], _pattern_of(thing, side, box)
    if medium == "outline":
        return box, covered & (toned | ~_inner(covered, round(LINE * side))), np.zeros_like(covered)
    return box, covered, covered & toned


def paint(scene: Scene, side: int) -> Image.Image:
    """The background and the objects, without edges softened, before medium and weather."""
    image = Image.new("RGB", (side, side), BACKGROUNDS[scene.background])
    for thing in scene.objects:
        if thing.material == "plain" and scene.medium != "outline":
            ImageDraw.Draw(image).polygon(outline(thing, side), fill=PALETTE[thing.colour])
            continue
        box, own, other = _ink(thing, side, scene.medium)
        for ink, colour in ((own, PALETTE[thing.colour]), (other, second_tone(PALETTE[thing.colour]))):
            image.paste(colour, (box[1].start, box[0].start), Image.fromarray(ink.astype(np.uint8) * 255))
    return image


def inked(scene: Scene, side: int) -> Image.Image:
    """Where the objects hide the background, 0 or 255."""
    image = Image.new("L", (side, side), 0)
    for thing in scene.objects:
        box, own, _ = _ink(thing, side, scene.medium)
        image.paste(255, (box[1].start, box[0].start), Image.fromarray(own.astype(np.uint8) * 255))
    return image
