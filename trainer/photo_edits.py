"""Global edits of photographs with an exact result, each with its instructions.

Pictures are float32 [H, W, 3] in [0, 1]; kernel sizes are in pixels of the working resolution. The last wording of
every edit is held out: it is never used in training and only there for evaluation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

FloatImage = NDArray[Any]
"""float32 [H, W, 3] in [0, 1]; masks are [H, W]."""

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
SEPIA = np.array([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]], np.float32)
BLUR_PX, SKETCH_PX, BLOCK_PX, LEVELS = 3.0, 4.0, 8, 4


def _grey(image: FloatImage) -> FloatImage:
    return np.repeat((image @ LUMA)[..., None], 3, axis=-1)


def _gain(*gains: float) -> Callable[[FloatImage], FloatImage]:
    return lambda image: image * np.array(gains, np.float32)


def _contrast(image: FloatImage) -> FloatImage:
    return (image - 0.5) * 1.9 + 0.5


def _blur(image: FloatImage) -> FloatImage:
    blurred: FloatImage = gaussian_filter(image, (BLUR_PX, BLUR_PX, 0), mode="nearest")
    return blurred


def _pixelate(image: FloatImage) -> FloatImage:
    height, width = image.shape[:2]
    rows, columns = np.arange(height) // BLOCK_PX, np.arange(width) // BLOCK_PX
    sums = np.add.reduceat(np.add.reduceat(image, np.arange(0, height, BLOCK_PX), 0), np.arange(0, width, BLOCK_PX), 1)
    counts = np.outer(np.bincount(rows), np.bincount(columns))[..., None]
    return (sums / counts)[rows][:, columns]


def _posterize(image: FloatImage) -> FloatImage:
    return np.round(image * (LEVELS - 1)) / (LEVELS - 1)


def _sketch(image: FloatImage) -> FloatImage:
    grey = _grey(image)
    blurred = gaussian_filter(grey, (SKETCH_PX, SKETCH_PX, 0), mode="nearest")
    lines: FloatImage = np.clip((grey + 0.02) / (blurred + 0.02), 0, 1) ** 2.5
    return lines


def _tint(colour: tuple[float, float, float]) -> Callable[[FloatImage], FloatImage]:
    return lambda image: 0.45 * image + 0.55 * _grey(image) * np.array(colour, np.float32)


EFFECTS: dict[str, Callable[[FloatImage], FloatImage]] = {
    "black_and_white": _grey,
    "sepia": lambda image: image @ SEPIA.T,
    "invert": lambda image: 1 - image,
    "darker": lambda image: image * 0.45,
    "brighter": lambda image: 1 - (1 - image) * 0.5,
    "warmer": _gain(1.3, 1.0, 0.55),
    "cooler": _gain(0.6, 0.95, 1.35),
    "contrast": _contrast,
    "blur": _blur,
    "pixelate": _pixelate,
    "posterize": _posterize,
    "sketch": _sketch,
    "red_tint": _tint((1.5, 0.25, 0.25)),
    "green_tint": _tint((0.25, 1.5, 0.25)),
    "blue_tint": _tint((0.25, 0.35, 1.6)),
    "identity": lambda image: image,
}

WORDINGS: dict[str, tuple[str, ...]] = {
    "black_and_white": (
        "make it black and white",
        "turn it into a black and white photo",
        "convert to grayscale",
        "remove all the colors",
        "make it monochrome",
        "take the color away",
        "as a black and white picture",
    ),
    "sepia": (
        "make it sepia",
        "give it a sepia tone",
        "turn it into an old sepia photo",
        "add a sepia filter",
        "make it look like an old photograph",
        "apply sepia",
        "as an old sepia picture",
    ),
    "invert": (
        "invert the colors",
        "make it a negative",
        "turn it into a photo negative",
        "swap all colors for their opposites",
        "apply a negative filter",
        "invert it",
        "as a negative picture",
    ),
    "darker": (
        "make it darker",
        "darken the image",
        "reduce the brightness",
        "turn down the light",
        "make the photo dark",
        "dim the picture",
        "it should be darker",
    ),
    "brighter": (
        "make it brighter",
        "brighten the image",
        "increase the brightness",
        "turn up the light",
        "make the photo bright",
        "lighten the picture",
        "it should be brighter",
    ),
    "warmer": (
        "make it warmer",
        "give it warm colors",
        "add a warm filter",
        "use a warmer tone",
        "warm up the image",
        "make the light warm",
        "it should be warmer",
    ),
    "cooler": (
        "make it cooler",
        "give it cool colors",
        "add a cold filter",
        "use a cooler tone",
        "cool down the image",
        "make the light cold",
        "it should be cooler",
    ),
    "contrast": (
        "add more contrast",
        "increase the contrast",
        "make it high contrast",
        "boost the contrast",
        "give it strong contrast",
        "raise the contrast",
        "it should have more contrast",
    ),
    "blur": (
        "blur it",
        "make it blurry",
        "blur the image",
        "apply a gaussian blur",
        "put it out of focus",
        "make the photo soft and blurry",
        "it should be blurry",
    ),
    "pixelate": (
        "pixelate it",
        "make it pixelated",
        "turn it into pixel art",
        "use big pixels",
        "make it look like a mosaic of pixels",
        "pixelate the image",
        "it should be pixelated",
    ),
    "posterize": (
        "posterize it",
        "make it a poster",
        "use only a few colors",
        "reduce the number of colors",
        "apply a posterize effect",
        "posterize the image",
        "it should be posterized like a poster",
    ),
    "sketch": (
        "make it a pencil sketch",
        "turn it into a pencil drawing",
        "draw it with a pencil",
        "make it look hand drawn",
        "convert it to a sketch",
        "as a line drawing",
        "as a pencil sketch",
    ),
    "red_tint": (
        "add a red tint",
        "make it red",
        "tint it red",
        "give it a red tone",
        "apply a red filter",
        "turn everything red",
        "it should be tinted red",
    ),
    "green_tint": (
        "add a green tint",
        "make it green",
        "tint it green",
        "give it a green tone",
        "apply a green filter",
        "turn everything green",
        "it should be tinted green",
    ),
    "blue_tint": (
        "add a blue tint",
        "make it blue",
        "tint it blue",
        "give it a blue tone",
        "apply a blue filter",
        "turn everything blue",
        "it should be tinted blue",
    ),
    "identity": (
        "leave it as it is",
        "do not change anything",
        "keep it the same",
        "no changes",
        "do nothing",
        "keep the image as it is",
        "leave the photo alone",
        "let the picture stay the same",
        "the same picture again",
        "leave everything in place",
        "keep the picture",
        "leave the picture the same",
    ),
}

RESULTS = {
    "black_and_white": "black and white",
    "sepia": "sepia",
    "invert": "inverted",
    "darker": "darker",
    "brighter": "brighter",
    "warmer": "warmer",
    "cooler": "cooler",
    "contrast": "high in contrast",
    "blur": "blurry",
    "pixelate": "pixelated",
    "posterize": "posterized",
    "sketch": "like a pencil sketch",
    "red_tint": "tinted red",
    "green_tint": "tinted green",
    "blue_tint": "tinted blue",
    "identity": "unchanged",
}
CARRIERS = (
    "i want it {}",
    "the photo should look {}",
    "can you make this {}",
    "let the image be {}",
    "it must look {}",
    "turn the whole thing {}",
    "a {} version of it",
    "edit the photo so that it is {}",
    "i would like the picture to be {}",
    "the result is {}",
)
"""Other sentences around the same words, so that the words are learnt and not whole sentences."""


def apply_effect(name: str, image: FloatImage) -> FloatImage:
    """The exact result of a global edit, clipped to [0, 1]."""
    return np.clip(EFFECTS[name](image), 0, 1).astype(np.float32)


def training_wordings(name: str) -> tuple[str, ...]:
    """Return the wordings of an edit that training may use."""
    return WORDINGS[name][:-1] + tuple(carrier.format(RESULTS[name]) for carrier in CARRIERS)


def held_out_wording(name: str) -> str:
    """Return the wording of an edit that training never sees."""
    return WORDINGS[name][-1]
