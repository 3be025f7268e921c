"""Instructions by rules: works offline, for any English caption, and knows the embedded generator's coloured shapes.

An edit is a pure function of (caption, seed). It is a stand-in for a language model, for tests, demonstrations and first
tries: its edits are right but plain.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..errors import ConfigError
from ..randomness import hash64
from ..triplet import normalise
from . import grammar_words as words


class WrittenEdit(NamedTuple):
    """What the grammar proposes."""

    edit_type: str
    instruction: str
    edited_caption: str


class _Draft(NamedTuple):
    instruction: str
    edited_caption: str


_Rule = Callable[[str, random.Random], "_Draft | None"]


def write_edit(caption: str, seed: int, edit_types: Sequence[str] = ()) -> WrittenEdit:
    """Invent an edit of a caption.

    Args:
        caption: what the picture shows, in English.
        seed: of all draws.
        edit_types: kinds that are allowed; empty for all that fit.

    Returns:
        The edit; its caption differs from the original's.

    Raises:
        ConfigError: if a kind is unknown, or none of the kinds fits the caption.
    """
    if unknown := [name for name in edit_types if name not in RULES]:
        raise ConfigError(f"The grammar knows no edit type {unknown[0]!r}; choose among {', '.join(RULES)}.")
    rng = random.Random(hash64(seed, caption))
    kinds = list(edit_types) or list(SHAPE_EDITS if _is_of_shapes(caption) else RULES)
    rng.shuffle(kinds)
    for kind in kinds:
        draft = RULES[kind](caption, rng)
        if draft is not None and normalise(draft.edited_caption) != normalise(caption):
            return WrittenEdit(kind, draft.instruction, _with_articles(draft.edited_caption))
    raise ConfigError(f"None of the edits {', '.join(kinds)} fits the caption {caption!r}. Allow other edit types.")


def _is_of_shapes(caption: str) -> bool:
    """Say whether a caption speaks of the embedded generator's world: only there every word is known to it."""
    return bool(words.SHAPES.search(caption)) and bool(words.PLAIN_GROUND.search(caption))


def _with_articles(text: str) -> str:
    text = re.sub(r"\b([Aa]) (?=[aeiou])(?!one\b|uni\w|used\b|eur)", r"\1n ", text)
    return re.sub(r"\b([Aa])n (?=[^aeiou\W])(?!hour|honest)", r"\1 ", text)


def _say(rng: random.Random, wordings: Sequence[str], **gaps: str) -> str:
    return _with_articles(rng.choice(wordings).format(**gaps))


def _swap(caption: str, found: re.Match[str], new: str) -> str:
    """Put a word in the place of another, in its case."""
    old = found.group()
    if old[:1].isupper():
        new = new[:1].upper() + new[1:]
    return caption[: found.start()] + new + caption[found.end() :]


def _other(rng: random.Random, choices: Sequence[str], caption: str) -> str:
    """Draw a word that the caption does not hold."""
    free = [one for one in choices if one.split()[-1] not in caption.lower()]
    return rng.choice(free or list(choices))


def _nouns(caption: str) -> list[tuple[re.Match[str], Sequence[str]]]:
    """Find the things in a caption with the family that each belongs to."""
    return [(found, family) for family, rule in words.FAMILIES for found in rule.finditer(caption)]


def _replace(caption: str, rng: random.Random) -> _Draft | None:
    if not (found := _nouns(caption)):
        return None
    noun, family = rng.choice(found)
    new = _other(rng, family, caption)
    say = _say(rng, words.REPLACE, old=noun.group().lower(), new=new)
    return _Draft(say, _swap(caption, noun, new))


def _colour(caption: str, rng: random.Random) -> _Draft | None:
    coloured = [one for one in words.COLOURED_THING.finditer(caption) if one["thing"] not in words.NOT_THINGS]
    new = _other(rng, words.COLOURS_OF_SHAPES if _is_of_shapes(caption) else words.COLOURS, caption)
    if coloured:
        one = rng.choice(coloured)
        edited = caption[: one.start("colour")] + new + caption[one.end("colour") :]
        return _Draft(_say(rng, words.COLOUR, thing=one["thing"], colour=new), edited)
    if not (found := [noun for noun, family in _nouns(caption) if family not in words.UNCOLOURED]):
        return None
    noun = rng.choice(found)
    return _Draft(
        _say(rng, words.COLOUR, thing=noun.group().lower(), colour=new), _swap(caption, noun, f"{new} {noun.group()}")
    )


def _material(caption: str, rng: random.Random) -> _Draft | None:
    if not (found := [noun for noun, family in _nouns(caption) if family is not words.PEOPLE]):
        return None
    noun, new = rng.choice(found), _other(rng, words.MATERIALS, caption)
    say = _say(rng, words.MATERIAL, thing=noun.group().lower(), material=new)
    return _Draft(say, f"{caption[: noun.end()]} made of {new}{caption[noun.end() :]}")


def _add(caption: str, rng: random.Random) -> _Draft | None:
    ground = words.PLAIN_GROUND.search(caption)
    if ground and words.SHAPES.search(caption):
        shape, colour = (_other(rng, some, caption) for some in (words.SHAPE_NAMES, words.COLOURS_OF_SHAPES))
        new, start = f"a {colour} {shape}", ground.start()
        return _Draft(_say(rng, words.ADD, new=new), f"{caption[:start].rstrip()} and {new} {caption[start:]}")
    new = _other(rng, words.ADDED, caption)
    bare, end = _split_end(caption)
    return _Draft(_say(rng, words.ADD, new=new), f"{bare} with {new}{end}")


def _remove(caption: str, rng: random.Random) -> _Draft | None:
    listed = list(words.LISTED.finditer(caption))
    if not listed:
        return None
    one = rng.choice(listed)
    edited = (caption[: one.start()] + caption[one.end() :]).strip()
    thing = re.sub(r"^(?:an?|the|some) ", "", one["thing"])
    return _Draft(_say(rng, words.REMOVE, thing=thing), edited)


def _background(caption: str, rng: random.Random) -> _Draft | None:
    if ground := words.PLAIN_GROUND.search(caption):
        new = _other(rng, words.GROUNDS, caption)
        edited = caption[: ground.start("ground")] + new + caption[ground.end("ground") :]
        return _Draft(_say(rng, words.GROUND, ground=new), edited)
    place = words.PLACE.search(caption)
    new = _other(rng, words.PLACES, caption)
    bare, end = _split_end(caption)
    edited = caption[: place.start()] + f" {new}" + caption[place.end() :] if place else f"{bare} {new}{end}"
    return _Draft(_say(rng, words.SET, place=new), edited)


def _whole(wordings: Sequence[str], states: Sequence[tuple[str, str]], rule: re.Pattern[str]) -> _Rule:
    """An edit of the whole picture: a state is named at the end, in the place of an older one."""

    def write(caption: str, rng: random.Random) -> _Draft | None:
        old = rule.search(caption)
        told = old.group().lower() if old else ""
        free = [one for one in states if one[0] not in told and told.strip() not in one[1]] if told else list(states)
        said, clause = rng.choice(free or list(states))
        if old:
            edited = caption[: old.start()].rstrip(" ,") + f" {clause}" + caption[old.end() :]
        else:
            bare, end = _split_end(caption)
            edited = f"{bare} {clause}{end}"
        return _Draft(_say(rng, wordings, state=said), edited.strip())

    return write


def _medium(caption: str, rng: random.Random) -> _Draft | None:
    old = words.MEDIUM_START.match(caption)
    new = _other(rng, words.MEDIA, caption)
    rest = caption[old.end() :] if old else caption
    if not old and re.match(r"(?:An?|The) ", rest):  # a name stays capital
        rest = rest[0].lower() + rest[1:]
    edited = f"{new} of {rest}"
    return _Draft(
        _say(rng, words.MEDIUM, medium=new), edited[0].upper() + edited[1:] if caption[0].isupper() else edited
    )


def _style(caption: str, rng: random.Random) -> _Draft | None:
    new = _other(rng, words.STYLES, caption)
    old = words.STYLE.search(caption)
    bare, end = _split_end(caption[: old.start()].rstrip(" ,") + caption[old.end() :] if old else caption)
    return _Draft(_say(rng, words.STYLED, style=new), f"{bare}, in {new} style{end}")


def _of_person(wordings: Sequence[str], looks: Sequence[str]) -> _Rule:
    """An edit of a person: a look is named behind the person."""

    def write(caption: str, rng: random.Random) -> _Draft | None:
        if not (found := list(words.PERSON.finditer(caption))):
            return None
        person, look = rng.choice(found), _other(rng, looks, caption)
        say = _say(rng, wordings, person=f"the {person.group().lower()}", look=look)
        return _Draft(say, f"{caption[: person.end()]} with {look}{caption[person.end() :]}")

    return write


def _split_end(caption: str) -> tuple[str, str]:
    """Part a caption from the marks at its end."""
    bare = caption.rstrip(" .!")
    return bare, caption[len(bare) :].strip()


RULES: dict[str, _Rule] = {
    "replace": _replace,
    "add": _add,
    "remove": _remove,
    "colour": _colour,
    "material": _material,
    "medium": _medium,
    "style": _style,
    "season": _whole(words.SEASON, words.SEASONS, words.SEASON_STATE),
    "weather": _whole(words.WEATHER, words.WEATHERS, words.WEATHER_STATE),
    "time": _whole(words.TIME, words.TIMES, words.TIME_STATE),
    "background": _background,
    "clothing": _of_person(words.WEAR, words.CLOTHES),
    "hair": _of_person(words.HAVE, words.HAIR),
    "make_up": _of_person(words.HAVE, words.MAKE_UP),
    "spectacles": _of_person(words.WEAR, words.SPECTACLES),
    "expression": _of_person(words.HAVE, words.EXPRESSIONS),
}
"""Kind -> rule. The kinds are those of EDIT_TYPES that rules can write."""
SHAPE_EDITS = ("replace", "add", "remove", "colour", "background")
"""Kinds that the embedded generator can draw."""
