"""What scenes of the whole world show, in words: captions in several phrasings, names of objects, relations and places."""

from __future__ import annotations

import random
from typing import NamedTuple

from .scene import Scene, SceneObject
from .world import Group, groups_of
from .world_wordings import MEDIUM_NAMES, NUMBERS, PATTERNS, WEATHER_NAMES, fill, plural

FRAMES = ("{}", "{}", "a picture of {}", "a drawing of {}", "a scene with {}")
MEDIUM_FRAMES = ("{medium} of {scene}", "{scene} as {medium}", "{medium} that shows {scene}")
GROUNDS = ("on a {} background", "in front of a {} background", "with a {} background")
TAILS = {"plain": "", "stripes": " with stripes", "dots": " with dots", "checker": " with checks"}
CLEAR = 1.5
"""A relation is said where objects are so many times farther apart one way than the other."""
MIDDLE = (0.38, 0.62)
"""Between these, a place is neither left nor right, and neither at the top nor at the bottom."""
OPPOSITES = {"to the left of": "to the right of", "above": "below"}


class Phrasing(NamedTuple):
    """How a caption says what it says; both sides of an edit are said the same way."""

    frame: int = 0
    ground: int = 0
    has_tails: bool = False
    """Colours and patterns stand behind the shape: a heart in red with stripes."""
    is_sized: bool = True
    """Sizes are named."""
    is_related: bool = False
    """Of two single objects it is said how they lie to each other."""
    placed: tuple[str, ...] = ()
    """Shapes of which it is said where they are."""
    related: tuple[str, ...] = ()
    """Two shapes that come first, with how they lie to each other."""


def random_phrasing(rng: random.Random, *, is_sized: bool) -> Phrasing:
    """Draw a way to say things."""
    return Phrasing(rng.randrange(15), rng.randrange(len(GROUNDS)), rng.random() < 0.3, is_sized, rng.random() < 0.5)


def describe(scene: Scene, phrasing: Phrasing) -> str:
    """A caption of a scene."""
    groups = sorted(groups_of(scene), key=lambda group: group.shape not in phrasing.related)
    parts = [noun_phrase(group, phrasing) + _where(group, phrasing) for group in groups]
    is_pair = len(groups) == 2 and phrasing.is_related
    relation = relation_of(*groups[:2]) if len(groups) >= 2 and (is_pair or phrasing.related) else None
    if relation is not None:
        parts[:2] = [f"{parts[0]} {relation} {parts[1]}"]
    if parts:
        ground = GROUNDS[phrasing.ground % len(GROUNDS)].format(scene.background)
        text = f"{_listed(parts)} {ground}"
    else:
        text = f"an empty {scene.background} background"
    if scene.weather != "clear":
        text += f" {WEATHER_NAMES[scene.weather]}"
    if scene.medium == "flat":
        return FRAMES[phrasing.frame % len(FRAMES)].format(text)
    frame = MEDIUM_FRAMES[phrasing.frame % len(MEDIUM_FRAMES)]
    return frame.format(medium=MEDIUM_NAMES[scene.medium], scene=text)


def noun_phrase(group: Group, phrasing: Phrasing) -> str:
    """The objects of a group with all that they are: "two small red striped hearts"."""
    one = group.first
    noun = one.shape if group.number == 1 else plural(one.shape)
    pattern = PATTERNS[one.material] if one.material != "plain" else ""
    words = [one.size if phrasing.is_sized else ""]
    if phrasing.has_tails:
        words += [f"{noun} in {one.colour}{TAILS[one.material]}"]
    else:
        words += [one.colour, pattern, noun]
    number = "a" if group.number == 1 else NUMBERS[group.number]
    return fill(" ".join([number, *filter(None, words)]), ())


def short_name(rng: random.Random, group: Group) -> str:
    """A name by which an instruction calls the objects of a group: "heart", "red heart", "striped hearts"."""
    one = group.first
    noun = one.shape if group.number == 1 else plural(one.shape)
    pattern = PATTERNS[one.material] if one.material != "plain" else ""
    words = rng.choice(([], [], [one.colour], [one.colour], [pattern], [one.colour, pattern]))
    return " ".join([*filter(None, words), noun])


def relation_of(group: Group, other: Group) -> str | None:
    """How a single object lies to another, or none where that is not clear or there are several."""
    if group.number > 1 or other.number > 1:
        return None
    right, down = group.first.x - other.first.x, group.first.y - other.first.y
    if abs(right) > CLEAR * abs(down):
        return "to the left of" if right < 0 else "to the right of"
    if abs(down) > CLEAR * abs(right):
        return "above" if down < 0 else "below"
    return None


def place_of(thing: SceneObject) -> str:
    """Where an object is: "on the left", "at the top right", "in the middle"."""
    across, down = (
        low if at < MIDDLE[0] else high if at > MIDDLE[1] else ""
        for at, low, high in ((thing.x, "left", "right"), (thing.y, "top", "bottom"))
    )
    if not across and not down:
        return "in the middle"
    return f"on the {across}" if not down else f"at the {' '.join(filter(None, (down, across)))}"


def _where(group: Group, phrasing: Phrasing) -> str:
    is_said = group.shape in phrasing.placed and group.number == 1
    return f" {place_of(group.first)}" if is_said else ""


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
