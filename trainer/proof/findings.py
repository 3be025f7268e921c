"""What the proof found, as numbers with 95 % intervals: of edits, of scales, of pairs."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy
from scipy.stats import spearmanr

from ...ip2p_core.pair_store import PairStore
from ..evaluation.summary import bootstrap
from ..shape_world.attribute_judge import AttributeJudge, Seen
from .config import ATTRIBUTE_EDITS, EDIT_TYPES, ProofConfig
from .stages import Run, dataset, judge_path, triplets_path
from .trials import Trial

BATCH = 64
SAME_PLACE = 0.1
"""Centres nearer to each other than this part of the side have the same place."""
SIMILARITIES = ("directional similarity", "image similarity")
"""CLIP's, as the tables call them."""


class Estimate(NamedTuple):
    """A mean with its 95 % interval (bootstrap over examples) and the number of examples."""

    value: float
    low: float
    high: float
    number: int

    def percent(self) -> str:
        """Write it in percent."""
        return f"{100 * self.value:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f})"

    def plain(self) -> str:
        """Write it as a number."""
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def estimate(trials: Iterable[Trial], value: Callable[[Trial], float]) -> Estimate:
    """Average over examples, those of several trainings first.

    Args:
        trials: of one system at one setting.
        value: of a trial.

    Returns:
        The mean; not a number where there are no trials.
    """
    groups: dict[str, list[float]] = defaultdict(list)
    for one in trials:
        groups[one.example].append(float(value(one)))
    return of_numbers([float(numpy.mean(some)) for some in groups.values()])


def of_numbers(values: Sequence[float]) -> Estimate:
    """Average numbers that are independent of each other."""
    finite = numpy.array([value for value in values if numpy.isfinite(value)])
    if not len(finite):
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    return Estimate(float(finite.mean()), *bootstrap(finite), len(finite))


def accuracy_table(trials: Sequence[Trial], variants: Sequence[str]) -> dict[str, dict[str, Estimate]]:
    """Shares of edits that were done, and of those in which all else was kept, of every variant and kind of edit."""
    table: dict[str, dict[str, Estimate]] = {}
    for variant in variants:
        own = [one for one in trials if one.system == variant]
        attribute = [one for one in own if one.kind in ATTRIBUTE_EDITS]
        table[variant] = {
            "attribute edits done": estimate(attribute, lambda one: one.is_edited),
            "all else kept in these": estimate(attribute, lambda one: one.is_kept),
            "all else kept in all edits": estimate(own, lambda one: one.is_kept),
            "done and kept": estimate(own, lambda one: one.is_edited and one.is_kept),
            "L1 to the exact target": estimate(own, lambda one: one.target_l1),
            "directional similarity": estimate(own, lambda one: one.directional),
            "image similarity": estimate(own, lambda one: one.image),
        }
        for kind in EDIT_TYPES:
            some = [one for one in own if one.kind == kind]
            table[variant][f"{kind} done"] = estimate(some, lambda one: one.is_edited)
            table[variant][f"{kind} kept"] = estimate(some, lambda one: one.is_kept)
    return table


def shape_table(trials: Sequence[Trial], variants: Sequence[str]) -> dict[str, dict[str, Estimate]]:
    """Shares of edits of attributes in which all else was kept, of every shape and variant: which outlines are lost."""
    attribute = [one for one in trials if one.kind in ATTRIBUTE_EDITS]
    return {
        shape: {
            variant: estimate(
                [one for one in attribute if (one.system, one.shape) == (variant, shape)], lambda one: one.is_kept
            )
            for variant in variants
        }
        for shape in sorted({one.shape for one in attribute})
    }


class Curve(NamedTuple):
    """What one swept setting does."""

    scales: list[float]
    done: list[Estimate]
    kept: list[Estimate]
    directional: list[Estimate]
    image: list[Estimate]

    def rho(self, name: str, until: float = float("inf")) -> float:
        """Spearman's rank correlation of the scale with one of the other fields, over scales up to a value."""
        pairs = [
            (scale, one.value) for scale, one in zip(self.scales, getattr(self, name), strict=True) if scale <= until
        ]
        if len({one for _, one in pairs}) < 2:
            return float("nan")
        return float(spearmanr(*zip(*pairs, strict=True)).statistic)


def curve_of(trials: Sequence[Trial], system: str, field: str = "") -> Curve:
    """Follow a system along a swept setting, a field of `Trial`; without one there is one point, at scale 0."""
    own = [one for one in trials if one.system == system]
    scales = sorted({getattr(one, field) for one in own}) if field else [0.0]
    groups = [[one for one in own if not field or getattr(one, field) == scale] for scale in scales]
    values: list[Callable[[Trial], float]] = [
        lambda one: one.is_edited,
        lambda one: one.is_kept,
        lambda one: one.directional,
        lambda one: one.image,
    ]
    return Curve(scales, *([estimate(some, value) for some in groups] for value in values))


def sharing_stage(run: Run) -> dict[str, Any]:
    """Compare pairs by what they share: unedited attributes that are equal, how far objects move, and L1 (Figure 3)."""
    kinds = _kinds(run)
    found: dict[str, Any] = {}
    for name, source in compared_pairs(run.config).items():
        pairs = list(seen_pairs(run, source))
        equal = [float(numpy.mean(equal_attributes(one.original, one.edited, kinds[one.instruction]))) for one in pairs]
        moved = [max(moves) for one in pairs if (moves := _moves(one.original, one.edited))]
        found[name] = {
            "equal": of_numbers(equal), "moved": of_numbers(moved), "l1": of_numbers([one.l1 for one in pairs])
        }  # fmt: skip
    return found


def compared_pairs(config: ProofConfig) -> dict[str, str]:
    """Datasets of pairs before the filter, by what their pictures share, a key of SHARING."""
    found = {"none": "unshared_all", "self-attention": "self_attention_all", "both": "shared"}
    return {
        name: source
        for name, source in found.items()
        if source != "self_attention_all" or "self_attention" in config.variants
    }


def _moves(one: Seen, other: Seen) -> list[float]:
    """How far the next object is from each, where both pictures show as many."""
    a, b = one.shapes.values(), other.shapes.values()
    return [min(math.dist(x.centre, y.centre) for y in b) for x in a] if 0 < len(a) == len(b) else []


def equal_attributes(one: Seen, other: Seen, kind: str) -> list[bool]:
    """Say of each attribute that a kind of edit leaves alone whether two pictures are judged equal in it.

    Args:
        one: the original.
        other: the edited picture.
        kind: of the edit, one of EDIT_TYPES.

    Returns:
        Background, shapes, colours and places, without what is edited; where objects are missing, theirs are unequal.
    """
    a, b = one.shapes, other.shapes
    is_there = 0 < len(a) == len(b)
    colours = [sorted(shape.colour for shape in shapes.values()) for shapes in (a, b)]
    equal = {
        "background": one.background == other.background,
        "replace": is_there and a.keys() == b.keys(),
        "recolour": is_there and colours[0] == colours[1],
        "place": is_there and max(_moves(one, other)) <= SAME_PLACE,
    }
    return [is_equal for name, is_equal in equal.items() if name != kind]


def _kinds(run: Run) -> dict[str, str]:
    lines = triplets_path(run, "shared").read_text(encoding="utf-8").splitlines()
    return {record["instruction"]: record["edit_type"] for record in map(json.loads, lines)}


class SeenPair(NamedTuple):
    """A pair, and what the judge sees in its pictures."""

    instruction: str
    original: Seen
    edited: Seen
    l1: float
    """Between the pictures."""


def seen_pairs(run: Run, name: str) -> Iterator[SeenPair]:
    """Judge the pictures of a dataset."""
    judge = AttributeJudge.from_file(judge_path(run))
    records = list(PairStore(dataset(run, name)).records())
    for first in range(0, len(records), BATCH):
        some = records[first : first + BATCH]
        pictures = [[handle.tensor().numpy() for handle in (one.original, one.edited)] for one in some]
        seen = judge.judge([picture for pair in pictures for picture in pair])
        for row, one in enumerate(some):
            l1 = float(numpy.abs(pictures[row][0] - pictures[row][1]).mean())
            yield SeenPair(one.triplet.instruction, seen[2 * row], seen[2 * row + 1], l1)


def accepted_p(run: Run, pairs: Sequence[Sequence[Any]]) -> dict[str, Estimate]:
    """Mean share of steps with shared attention of the pairs that passed the filter, by kind of edit."""
    kinds = _kinds(run)
    values: dict[str, list[float]] = defaultdict(list)
    for instruction, p in pairs:
        values[kinds[instruction]].append(float(p))
    return {kind: of_numbers(some) for kind, some in sorted(values.items())}
