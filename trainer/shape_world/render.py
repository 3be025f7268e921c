"""Draw a scene and the masks of its objects, antialiased by supersampling."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from .atmosphere import apply_medium, apply_weather
from .materials import inked, paint
from .outlines import outline
from .scene import FloatImage, Scene, SceneObject

__all__ = ["SUPERSAMPLING", "FloatImage", "ink_mask", "outline", "render", "render_mask"]

SUPERSAMPLING = 3


def _to_float(image: Image.Image, size: int) -> FloatImage:
    return np.asarray(image.resize((size, size), Image.Resampling.BOX), np.float32) / 255


def render(scene: Scene, size: int) -> FloatImage:
    """The picture [size, size, 3] in [0, 1]."""
    picture = _to_float(paint(scene, size * SUPERSAMPLING), size)
    return apply_weather(apply_medium(picture, scene.medium), scene.weather)


def ink_mask(scene: Scene, size: int) -> FloatImage:
    """Coverage [size, size] in [0, 1] of what hides the background."""
    return _to_float(inked(scene, size * SUPERSAMPLING), size)


def render_mask(objects: tuple[SceneObject, ...], size: int) -> FloatImage:
    """Coverage [size, size] in [0, 1] of the given objects."""
    side = size * SUPERSAMPLING
    image = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(image)
    for thing in objects:
        draw.polygon(outline(thing, side), fill=255)
    return _to_float(image, size)
