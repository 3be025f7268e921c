"""The look of a whole picture: its medium and its weather.

Both change every pixel by what it is and where it is alone, so that an edit of one object changes nothing elsewhere; and
always in the same pattern, so that an edited picture follows from the picture and the instruction.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from .scene import FloatImage

FINE = 4
"""Textures are drawn so many times larger."""
TILES = 11
"""Of the medium "mosaic", along one side."""


class _Layer(NamedTuple):
    """What lies over a picture: every pixel is mixed with a colour."""

    colour: FloatImage
    """[H, W, 3] or [3], in [0, 1]."""
    opacity: FloatImage
    """[H, W, 1] in [0, 1]."""

    def over(self, picture: FloatImage) -> FloatImage:
        mixed: FloatImage = picture + (self.colour - picture) * self.opacity
        return mixed


def apply_medium(picture: FloatImage, medium: str) -> FloatImage:
    """Turn a picture [H, W, 3] in [0, 1] into what the medium makes of it; lines are drawn by materials.py."""
    size = picture.shape[0]
    if medium == "mosaic":
        return _grout(size).over(np.clip(picture * _tiles(size), 0, 1))
    if medium == "pastel":
        return _chalk(size).over(picture)
    return picture


def apply_weather(picture: FloatImage, weather: str) -> FloatImage:
    """Lay the weather over a picture [H, W, 3] in [0, 1]."""
    for layer in _weather(weather, picture.shape[0]):
        picture = layer.over(picture)
    return picture


def _colour(red: int, green: int, blue: int) -> FloatImage:
    return np.array((red, green, blue), np.float32) / 255


def _soft(image: Image.Image, size: int) -> FloatImage:
    """A texture [size, size, 1] in [0, 1] of a larger drawing."""
    return np.asarray(image.resize((size, size), Image.Resampling.BOX), np.float32)[..., None] / 255


def _grid(size: int) -> tuple[FloatImage, FloatImage]:
    rows, columns = np.mgrid[:size, :size]
    return (rows + 0.5) / size, (columns + 0.5) / size


@lru_cache
def _tiles(size: int) -> FloatImage:
    """How bright every tile is."""
    bright = np.random.default_rng(5).uniform(0.82, 1.18, (TILES, TILES))
    places = np.arange(size) * TILES // size
    return bright[places][:, places, None].astype(np.float32)


@lru_cache
def _grout(size: int) -> _Layer:
    side = size * FINE
    image = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(image)
    for tile in range(TILES + 1):
        at = tile * size // TILES * FINE
        draw.line((at, 0, at, side), fill=150, width=max(1, side // 80))
        draw.line((0, at, side, at), fill=150, width=max(1, side // 80))
    return _Layer(_colour(150, 146, 140), _soft(image, size))


@lru_cache
def _chalk(size: int) -> _Layer:
    """Paper that shines through strokes from the lower left to the upper right."""
    y, x = _grid(size)
    wave = np.sin(2 * np.pi * (9 * (x + y) + 0.25 * np.sin(7 * (x - y))))
    grain = np.random.default_rng(6).random((64, 64))[(y * 64).astype(int), (x * 64).astype(int)]
    opacity = 0.42 + 0.16 * wave + 0.16 * (grain - 0.5)
    return _Layer(_colour(255, 240, 226), opacity[..., None].astype(np.float32))


def _even(opacity: float) -> FloatImage:
    return np.full((1, 1, 1), opacity, np.float32)


@lru_cache
def _weather(weather: str, size: int) -> tuple[_Layer, ...]:
    makers = {"rain": _rain, "snow": _snow, "fog": _fog, "night": _night}
    return makers[weather](size) if weather in makers else ()


def _rain(size: int) -> tuple[_Layer, ...]:
    side = size * FINE
    image = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(image)
    for place, x in zip(np.random.default_rng(1).permutation(40), np.linspace(-0.05, 1.1, 40), strict=True):
        y = (place + 0.5) / 40
        draw.line(tuple(side * at for at in (x, y - 0.05, x - 0.035, y + 0.05)), fill=235, width=side // 64)
    return _Layer(_colour(96, 112, 140), _even(0.25)), _Layer(_colour(120, 165, 240), _soft(image, size))


def _snow(size: int) -> tuple[_Layer, ...]:
    side = size * FINE
    rims, flakes = Image.new("L", (side, side), 0), Image.new("L", (side, side), 0)
    for place, x in zip(np.random.default_rng(2).permutation(22), np.linspace(0.02, 0.98, 22), strict=True):
        y = (place + 0.5) / 23
        for image, radius, fill in ((rims, 0.031, 190), (flakes, 0.02, 255)):
            box = tuple(side * at for at in (x - radius, y - radius, x + radius, y + radius))
            ImageDraw.Draw(image).ellipse(box, fill=fill)
    ground = [(side * x, side * (0.945 + 0.012 * np.sin(14 * x))) for x in np.linspace(0, 1, 50)]
    ImageDraw.Draw(flakes).polygon([*ground, (side, side), (0, side)], fill=255)
    tint = _Layer(_colour(214, 226, 246), _even(0.16))
    return tint, _Layer(_colour(128, 142, 186), _soft(rims, size)), _Layer(_colour(255, 255, 255), _soft(flakes, size))


def _fog(size: int) -> tuple[_Layer, ...]:
    y, x = _grid(size)
    bands = np.sin(2 * np.pi * (3.2 * y + 0.16 * np.sin(2 * np.pi * x + 5 * y)))
    opacity = 0.3 + 0.24 * y + 0.14 * bands
    return (_Layer(_colour(202, 208, 212), opacity[..., None].astype(np.float32)),)


def _night(size: int) -> tuple[_Layer, ...]:
    side = size * FINE
    image = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(image)
    for place, x in zip(np.random.default_rng(3).permutation(16), np.linspace(0.04, 0.96, 16), strict=True):
        y, radius = (place + 0.5) / 17, 0.009
        draw.ellipse(tuple(side * at for at in (x - radius, y - radius, x + radius, y + radius)), fill=255)
    draw.ellipse(tuple(side * at for at in (0.86, 0.02, 0.97, 0.13)), fill=255)
    draw.ellipse(tuple(side * at for at in (0.83, 0.01, 0.93, 0.11)), fill=0)
    return _Layer(_colour(12, 20, 72), _even(0.48)), _Layer(_colour(250, 246, 205), _soft(image, size))
