"""Training pictures: augmented crops of the photographs that ship in wheels, and procedural textures.

Every picture is a pure function of the `numpy.random.Generator` passed in. Float32 [H, W, 3] in [0, 1].
"""

from __future__ import annotations

import random
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from ..shape_world.render import render
from ..shape_world.scene import random_scene

FloatImage = NDArray[Any]
"""float32 [H, W, 3] in [0, 1]; masks are [H, W]."""

TRAINING_PHOTOS = (
    ("skimage.data", "coffee.png"),
    ("skimage.data", "rocket.jpg"),
    ("skimage.data", "motorcycle_left.png"),
    ("skimage.data", "motorcycle_right.png"),
    ("skimage.data", "hubble_deep_field.jpg"),
    ("skimage.data", "retina.jpg"),
    ("skimage.data", "ihc.png"),
    ("sklearn.datasets.images", "flower.jpg"),
)
HELD_OUT_PHOTOS = {
    "astronaut": ("skimage.data", "astronaut.png"),
    "chelsea": ("skimage.data", "chelsea.png"),
    "china": ("sklearn.datasets.images", "china.jpg"),
    "grace_hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
}
"""Never trained on."""


def open_photo(package: str, name: str) -> Image.Image:
    """A photograph that a wheel ships."""
    with resources.as_file(resources.files(package) / name) as path:
        return Image.open(path).convert("RGB")


@cache
def _training_photos() -> tuple[Image.Image, ...]:
    return tuple(open_photo(*source) for source in TRAINING_PHOTOS)


def _jitter(rng: np.random.Generator, image: FloatImage) -> FloatImage:
    """Other lights and paints: gamma, channel gains, channel order, saturation."""
    if rng.random() < 0.35:
        image = image[..., rng.permutation(3)]
    grey = image.mean(-1, keepdims=True)
    image = grey + (image - grey) * rng.uniform(0.6, 1.5)
    image = np.clip(image, 0, 1) ** np.exp(rng.uniform(-0.45, 0.45)) * rng.uniform(0.8, 1.15, 3)
    return np.clip(image, 0, 1).astype(np.float32)


def photo_crop(rng: np.random.Generator, size: int) -> FloatImage:
    """A random crop of a training photograph, between `size` pixels and all of it, flipped and jittered."""
    photos = _training_photos()
    photo = photos[rng.integers(len(photos))]
    longest = min(photo.size)
    side = int(np.exp(rng.uniform(np.log(min(size, longest)), np.log(longest))))
    x, y = int(rng.integers(photo.width - side + 1)), int(rng.integers(photo.height - side + 1))
    crop = photo.resize((size, size), Image.Resampling.LANCZOS, box=(x, y, x + side, y + side))
    image = np.asarray(crop, np.float32) / 255
    if rng.random() < 0.5:
        image = image[:, ::-1]
    return _jitter(rng, image) if rng.random() < 0.8 else np.ascontiguousarray(image)


def _noise_field(rng: np.random.Generator, size: int, power: float) -> FloatImage:
    """Coloured noise with the spectrum of photographs (amplitude 1/f^power), each channel in [0, 1]."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.rfftfreq(size), indexing="ij"))
    frequency[0, 0] = 1 / size
    spectrum = rng.normal(size=(3, *frequency.shape)) + 1j * rng.normal(size=(3, *frequency.shape))
    field = np.fft.irfft2(spectrum / frequency**power, s=(size, size), axes=(1, 2))
    field = np.einsum("ij,jhw->hwi", rng.normal(size=(3, 3)) + 1.5, field)
    field -= field.mean((0, 1))
    picture: FloatImage = np.clip(0.5 + 0.22 * field / (field.std() + 1e-6), 0, 1).astype(np.float32)
    return picture


def dead_leaves(rng: np.random.Generator, size: int) -> FloatImage:
    """Overlapping discs and polygons of all scales over coloured noise: edges and flats as in photographs."""
    side = size * 2
    base = Image.fromarray((_noise_field(rng, side, rng.uniform(1.0, 1.8)) * 255).astype(np.uint8))
    draw = ImageDraw.Draw(base)
    palette = rng.integers(0, 256, (6, 3))
    for _ in range(int(rng.integers(10, 120))):
        radius = side * 0.012 * np.exp(rng.exponential(1.0))
        x, y = rng.uniform(0, side, 2)
        colour = tuple(int(c) for c in np.clip(palette[rng.integers(6)] + rng.normal(0, 25, 3), 0, 255))
        box = (x - radius, y - radius * rng.uniform(0.3, 1), x + radius, y + radius)
        if rng.random() < 0.6:
            draw.ellipse(box, fill=colour)
        else:
            draw.regular_polygon((x, y, radius), int(rng.integers(3, 7)), float(rng.uniform(0, 360)), fill=colour)
    image = np.asarray(base.resize((size, size), Image.Resampling.BOX), np.float32) / 255
    shade = _noise_field(rng, size, 1.8)[..., :1]
    grain = rng.normal(0, rng.uniform(0, 0.04), image.shape)
    image = image * (0.6 + 0.8 * shade) + grain
    softness = rng.uniform(0, 0.8)
    picture: FloatImage = np.clip(gaussian_filter(image, (softness, softness, 0)), 0, 1).astype(np.float32)
    return picture


def texture(rng: np.random.Generator, size: int) -> FloatImage:
    """A procedural texture: coloured noise, or dead leaves."""
    if rng.random() < 0.25:
        return _noise_field(rng, size, rng.uniform(0.9, 2.2))
    return dead_leaves(rng, size)


def training_picture(rng: np.random.Generator, size: int) -> FloatImage:
    """A photograph (60 %), a texture (25 %) or a scene."""
    kind = rng.random()
    if kind < 0.6:
        return photo_crop(rng, size)
    if kind < 0.85:
        return texture(rng, size)
    scene_rng = random.Random(int(rng.integers(2**62)))
    return render(random_scene(scene_rng, scene_rng.randint(1, 3)), size)
