"""Say of an edited picture whether the edit was done and what else was kept, fact by fact.

The facts of a scene are its looks and, of every shape, how many there are, their colour, material, size and centre.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from .attribute_judge import AttributeJudge, Seen
from .scene import SHAPES, FloatImage, Scene
from .world import groups_of
from .world_edits import WorldEdit

ATTRIBUTES = ("background", "weather", "medium", "number", "colour", "material", "size", "centre")
SIZE_TOLERANCE = 0.15
"""Of a radius that is right, as a share of it; small and large differ by more."""
CENTRE_TOLERANCE = 0.1
"""Of a centre that is right, as a fraction of the picture's side."""

_EDITED: dict[str, tuple[str, ...]] = {
    "recolour": ("colour",),
    "replace": ("number",),
    "material": ("material",),
    "medium": ("medium",),
    "background": ("background",),
    "weather": ("weather",),
    "add": ("number", "colour", "material", "size"),
    "remove": ("number",),
    "count": ("number",),
    "move": ("centre",),
    "swap": ("centre",),
    "viewpoint": ("centre", "size"),
}
"""The attributes that an edit is about."""
_FREE: dict[str, tuple[str, ...]] = {"add": ("centre",), "count": ("centre",)}
"""Attributes of the edit's subjects that the instruction leaves open."""


class Fact(NamedTuple):
    """Something that can be right or wrong."""

    attribute: str
    """One of ATTRIBUTES."""
    shape: str = ""
    """Of which shape; empty for the looks."""


Value = str | int | float | tuple[float, float]


class EditVerdict(NamedTuple):
    """What an edited picture is worth."""

    is_edited: bool
    """Everything that the instruction asks for is there."""
    kept: Mapping[str, bool]
    """Per attribute, whether everything else is as it was; attributes of which there is nothing else are left out."""

    @property
    def is_kept(self) -> bool:
        """Everything else is as it was."""
        return all(self.kept.values())


class EditAccuracy(NamedTuple):
    """Shares of edited pictures."""

    num_edits: int
    edited: float
    """The edit was done."""
    kept: float
    """Everything else was kept."""
    both: float
    kept_attributes: Mapping[str, float]
    """Per attribute, of the pictures in which there was something to keep."""


def facts_of(scene: Scene) -> dict[Fact, Value]:
    """All facts of a scene; of shapes that are not there, that there are none."""
    facts: dict[Fact, Value] = {
        Fact("background"): scene.background,
        Fact("weather"): scene.weather,
        Fact("medium"): scene.medium,
    }
    facts |= {Fact("number", shape): 0 for shape in SHAPES}
    for group in groups_of(scene):
        one = group.first
        facts |= {
            Fact("number", group.shape): group.number,
            Fact("colour", group.shape): one.colour,
            Fact("material", group.shape): one.material,
            Fact("size", group.shape): sum(thing.radius for thing in group.objects) / group.number,
            Fact("centre", group.shape): group.centre,
        }
    return facts


def is_fact_right(fact: Fact, value: Value, seen: Seen) -> bool:
    """Say whether a picture shows a fact."""
    if not fact.shape:
        return bool(getattr(seen, fact.attribute) == value)
    shape = seen.shapes.get(fact.shape)
    if fact.attribute == "number":
        return value == (shape.number if shape else 0)
    if shape is None:
        return False
    if fact.attribute == "size" and isinstance(value, float):
        return abs(shape.radius / value - 1) <= SIZE_TOLERANCE
    if fact.attribute == "centre" and isinstance(value, tuple):
        return math.dist(shape.centre, value) <= CENTRE_TOLERANCE
    return bool(getattr(shape, fact.attribute) == value)


def is_asked_for(edit: WorldEdit, fact: Fact) -> bool:
    """Say whether an edit is about a fact of its edited side."""
    is_subject = not fact.shape or fact.shape in edit.change.subjects
    if edit.change.variant == "mirrored" and fact.attribute == "size":
        return False
    return is_subject and fact.attribute in _EDITED[edit.edit_type]


def is_left_open(edit: WorldEdit, fact: Fact) -> bool:
    """Say whether an edit leaves a fact of its edited side open."""
    return fact.shape in edit.change.subjects and fact.attribute in _FREE.get(edit.edit_type, ())


def verdict_of(edit: WorldEdit, seen: Seen) -> EditVerdict:
    """Compare what a picture shows with the edited scene.

    Args:
        edit: what was asked for.
        seen: what the edited picture shows.

    Returns:
        Whether the edit was done, and what else was kept.
    """
    edited: list[bool] = []
    kept: dict[str, bool] = {}
    renamed = _by_new_name(edit, seen)
    for fact, value in facts_of(edit.after).items():
        if is_asked_for(edit, fact):
            edited.append(is_fact_right(fact, value, seen))
        elif not is_left_open(edit, fact):
            kept[fact.attribute] = kept.get(fact.attribute, True) and is_fact_right(fact, value, renamed)
    return EditVerdict(all(edited), kept)


def _by_new_name(edit: WorldEdit, seen: Seen) -> Seen:
    """Call what stands for a replaced object by its new name: whether all else was kept must not hang on its shape."""
    if edit.edit_type != "replace" or edit.change.subjects[1] in seen.shapes:
        return seen
    others = {group.shape for group in groups_of(edit.after)}
    strangers = [shape for shape in seen.shapes if shape not in others]
    if len(strangers) != 1:
        return seen
    names = {strangers[0]: edit.change.subjects[1]}
    return seen._replace(shapes={names.get(shape, shape): one for shape, one in seen.shapes.items()})


def judge_edits(judge: AttributeJudge, edits: Sequence[WorldEdit], pictures: Sequence[FloatImage]) -> list[EditVerdict]:
    """Judge edited pictures [H, W, 3] in [0, 1], one for each edit."""
    return [verdict_of(edit, seen) for edit, seen in zip(edits, judge.judge(pictures), strict=True)]


def judge_edit(judge: AttributeJudge, edit: WorldEdit, picture: FloatImage) -> EditVerdict:
    """Judge one edited picture [H, W, 3] in [0, 1]."""
    return judge_edits(judge, [edit], [picture])[0]


def edit_accuracy(verdicts: Sequence[EditVerdict]) -> EditAccuracy:
    """Sum up verdicts, of at least one edit."""
    per_attribute = {
        name: _share(verdict.kept[name] for verdict in verdicts if name in verdict.kept)
        for name in ATTRIBUTES
        if any(name in verdict.kept for verdict in verdicts)
    }
    edited, kept = _share(one.is_edited for one in verdicts), _share(one.is_kept for one in verdicts)
    both = _share(one.is_edited and one.is_kept for one in verdicts)
    return EditAccuracy(len(verdicts), edited, kept, both, per_attribute)


def accuracy_by_type(edits: Sequence[WorldEdit], verdicts: Sequence[EditVerdict]) -> dict[str, EditAccuracy]:
    """Sum up verdicts for each type of edit that occurs."""
    pairs = list(zip(edits, verdicts, strict=True))
    types = dict.fromkeys(edit.edit_type for edit in edits)
    return {name: edit_accuracy([verdict for edit, verdict in pairs if edit.edit_type == name]) for name in types}


def _share(rights: Iterable[bool]) -> float:
    values = list(rights)
    return sum(values) / len(values)
