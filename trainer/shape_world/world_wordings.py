"""How the edits of the world are asked for. The last wording of every set is held out: training never uses it.

The gaps: {thing} names objects of the scene, {new} those that come, {pattern}, {ground}, {medium}, {weather}, {look},
{side}, {number}, {other} and {place} say how it shall be.
"""

from __future__ import annotations

import re

from .edits import WORDINGS

WORLD_WORDINGS: dict[str, tuple[str, ...]] = {
    "recolour": WORDINGS["recolour"],
    "replace": (
        "replace the {thing} with {new}",
        "turn the {thing} into {new}",
        "swap the {thing} for {new}",
        "make the {thing} {new}",
        "change the {thing} into {new}",
        "exchange the {thing} with {new}",
    ),
    "material": (
        "make the {thing} {pattern}",
        "the {thing} should be {pattern}",
        "turn the {thing} {pattern}",
        "change the {thing} so that it looks {pattern}",
        "let the {thing} be {pattern}",
        "give the {thing} a {pattern} surface",
    ),
    "medium": (
        "make it {medium}",
        "turn the picture into {medium}",
        "change the picture to {medium}",
        "show it as {medium}",
        "it should be {medium}",
        "redo the picture as {medium}",
    ),
    "background": WORDINGS["background"],
    "weather": (
        "show it {weather}",
        "make it look {look}",
        "put the scene {weather}",
        "turn it into a {look} scene",
        "let it be {look}",
        "paint it as it looks {weather}",
    ),
    "add": (
        "add {new}{place}",
        "put {new}{place} in the picture",
        "insert {new}{place}",
        "draw {new}{place}",
        "there should be {new}{place}",
        "put in {new}{place}",
    ),
    "remove": WORDINGS["remove"],
    "count": (
        "make it {number}",
        "there should be {number}",
        "show {number}",
        "let there be {number}",
        "let the picture have {number}",
        "let me see exactly {number}",
    ),
    "move": (
        "move the {thing} to the {side}",
        "put the {thing} at the {side}",
        "shift the {thing} to the {side}",
        "place the {thing} on the {side}",
        "the {thing} should be at the {side}",
        "slide the {thing} over to the {side}",
    ),
    "swap": (
        "swap the {thing} and the {other}",
        "let the {thing} and the {other} change places",
        "switch the places of the {thing} and the {other}",
        "put the {thing} where the {other} is and the other way round",
        "exchange the positions of the {thing} and the {other}",
        "the {thing} and the {other} should trade places",
    ),
    "viewpoint/mirrored": (
        "mirror the picture",
        "flip it left to right",
        "show it as in a mirror",
        "show it from the other side",
        "flip the picture horizontally",
        "turn left into right",
    ),
    "viewpoint/near": (
        "zoom in",
        "move the camera closer",
        "show it from nearby",
        "come nearer",
        "make it a close view",
        "bring the viewer closer",
    ),
    "viewpoint/far": (
        "zoom out",
        "move the camera away",
        "show it from far away",
        "step back",
        "make it a distant view",
        "take the viewer farther off",
    ),
}
"""By the type of the edit, for "viewpoint" also by which one."""
WORLD_EDIT_TYPES = tuple(dict.fromkeys(name.split("/")[0] for name in WORLD_WORDINGS))

PATTERNS = {"plain": "plain", "stripes": "striped", "dots": "dotted", "checker": "checkered"}
MEDIUM_NAMES = {"flat": "a flat picture", "outline": "an outline drawing", "mosaic": "a mosaic", "pastel": "a pastel"}
WEATHER_NAMES = {
    "clear": "in clear weather",
    "rain": "in the rain",
    "snow": "in the snow",
    "fog": "in the fog",
    "night": "at night",
}
LOOKS = {"clear": "sunny", "rain": "rainy", "snow": "snowy", "fog": "foggy", "night": "moonlit"}
NUMBERS = ("no", "one", "two", "three", "four")

Slots = tuple[tuple[str, str], ...]


def plural(shape: str) -> str:
    """The name of several shapes."""
    return f"{shape}es" if shape == "cross" else f"{shape}s"


def fill(wording: str, slots: Slots) -> str:
    """Fill the gaps of a wording."""
    return re.sub(r"\ba (?=[aeiou])", "an ", wording.format(**dict(slots)))


def training_wordings(wording_set: str) -> tuple[str, ...]:
    """All wordings of a set but the held-out one."""
    return WORLD_WORDINGS[wording_set][:-1]
