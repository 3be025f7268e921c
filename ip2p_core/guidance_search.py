"""A small search over both guidance scales and the seed of one edit, within a number of edits.

The model's own scales come first, then a coarse grid, all with the first seed, so that the noise hides nothing of what the scales do.
Then the points around the best are tried, nearer with every round, and last the best pair of scales with the other seeds. A judge
errs, so other scales than the model's own have to be clearly better.
Shapes: H W height and width in pixels, h w in latent cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from torch import Tensor

from .errors import ConfigError

SMALLEST_BUDGET, LARGEST_BUDGET = 2, 400
COARSE_SHARE, SEED_SHARE = 0.5, 0.25
"""Of the budget, for the coarse grid and, where there are several seeds, for these."""
_DIGITS = 4


class Edited(NamedTuple):
    """One edit."""

    picture: Tensor
    """[H, W, 3] in [0, 1]."""
    relevance: Tensor | None = None
    """[h, w] in [0, 1], where the instruction acts; None where that is not known."""


class Worth(NamedTuple):
    """What an edit is worth, see edit_tradeoff.py."""

    score: float
    follows: float
    keeps: float


class Place(NamedTuple):
    """Where in the search an edit lies."""

    text_scale: float
    image_scale: float
    seed: int


class Trial(NamedTuple):
    """An edit that was tried."""

    place: Place
    edited: Edited
    worth: Worth


Edit = Callable[[float, float, int], Edited]
"""Text scale, image scale and seed to an edit."""
Judge = Callable[[Sequence[Edited]], Sequence[Worth]]
"""All edits so far to their worths, so that one measure serves them all."""


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """What may be tried.

    Attributes:
        budget: edits in all.
        text_scales: lowest and highest.
        image_scales: lowest and highest.
        seeds: at least one; the first serves the search of the scales.
        own: text and image scale of the model, brought inside the ranges.
        margin: by which part of it the score of others must lie above that of these.

    Raises:
        ConfigError: if the budget is too small or large, a range is empty, or there is no seed.
    """

    budget: int
    text_scales: tuple[float, float]
    image_scales: tuple[float, float]
    seeds: Sequence[int]
    own: tuple[float, float]
    margin: float = 0.1

    def __post_init__(self) -> None:
        mistakes = []
        if not SMALLEST_BUDGET <= self.budget <= LARGEST_BUDGET:
            mistakes.append(
                f"The budget is {self.budget} edits; a search needs {SMALLEST_BUDGET} to {LARGEST_BUDGET}. Change it."
            )
        for name, (low, high) in (("text", self.text_scales), ("image", self.image_scales)):
            if not (math.isfinite(low) and math.isfinite(high) and 0 <= low <= high):
                mistakes.append(
                    f"The {name} scales go from {low:g} to {high:g}; the lowest must not be below 0, nor above the highest. "
                    "Change them."
                )
        if not self.seeds:
            mistakes.append("There are no seeds to try. Give at least one.")
        if mistakes:
            raise ConfigError(*mistakes)


class Found(NamedTuple):
    """What a search has tried, in order; the first trial is that of the model's own scales."""

    trials: tuple[Trial, ...]
    margin: float = 0.0

    @property
    def best(self) -> Trial:
        """The trial of the highest score, the margin counted; of equal ones the first. One that is no number is the lowest."""
        return max(self.trials, key=self._preference)

    def ranked(self) -> list[Trial]:
        """All trials, the best first."""
        return sorted(self.trials, key=self._preference, reverse=True)

    def table(self) -> str:
        """All trials in the order in which they were tried, parted by tabs; the best is marked by a star."""
        lines = ["text_scale\timage_scale\tseed\tscore\tfollows\tkeeps\tbest"]
        for trial in self.trials:
            (text_scale, image_scale, seed), _, worth = trial
            numbers = "\t".join(f"{value:.4f}" for value in worth)
            star = "*" if trial is self.best else ""
            lines.append(f"{text_scale:g}\t{image_scale:g}\t{seed}\t{numbers}\t{star}")
        return "\n".join(lines)

    def _preference(self, trial: Trial) -> float:
        score = trial.worth.score
        is_own = trial.place[:2] == self.trials[0].place[:2]
        return -math.inf if math.isnan(score) else score + abs(score) * self.margin * is_own


def search(
    edit: Edit, judge: Judge, settings: SearchSettings, report: Callable[[Edited], object] | None = None
) -> Found:
    """Look for the best edit.

    Args:
        edit: makes one edit.
        judge: scores edits.
        settings: budget, ranges and seeds.
        report: called after every edit.

    Returns:
        Everything that was tried: no place twice, and never more than the budget.
    """
    run = _Search(edit, judge, report or (lambda _: None), settings.margin)
    num_seeds = min(len(settings.seeds) - 1, round(SEED_SHARE * settings.budget))
    for_scales = settings.budget - num_seeds
    text_scale, image_scale = settings.own
    own = Place(
        _inside(text_scale, settings.text_scales), _inside(image_scale, settings.image_scales), settings.seeds[0]
    )
    points, spacing = coarse_grid(settings, max(1, round(COARSE_SHARE * settings.budget)))
    run.attempt([own, *points], for_scales)
    while run.num_tried < for_scales and any(one > 10**-_DIGITS for one in spacing):
        spacing = (spacing[0] / 2, spacing[1] / 2)
        run.attempt(around(run.found.best.place, spacing, settings), for_scales)
    best = run.found.best.place
    run.attempt([best._replace(seed=seed) for seed in settings.seeds], settings.budget)
    return run.found


class _Search:
    def __init__(self, edit: Edit, judge: Judge, report: Callable[[Edited], object], margin: float) -> None:
        self._edit, self._judge, self._report, self._margin = edit, judge, report, margin
        self._edits: dict[Place, Edited] = {}
        self.found = Found(())

    @property
    def num_tried(self) -> int:
        return len(self._edits)

    def attempt(self, places: Iterable[Place], most: int) -> None:
        """Make the edits that are new, while fewer than `most` are there, and judge all again."""
        for place in places:
            if place in self._edits or self.num_tried >= most:
                continue
            edited = self._edit(*place)
            self._edits[place] = edited
            self._report(edited)
        worths = self._judge(list(self._edits.values()))
        trials = zip(self._edits, self._edits.values(), worths, strict=True)
        self.found = Found(tuple(Trial(*one) for one in trials), self._margin)


def coarse_grid(settings: SearchSettings, most: int) -> tuple[list[Place], tuple[float, float]]:
    """Spread at most so many pairs of scales evenly over both ranges, with the first seed.

    Args:
        settings: the ranges.
        most: how many; at least 1.

    Returns:
        The places, and the distance of neighbours in both scales.
    """
    is_fixed = [low == high for low, high in (settings.text_scales, settings.image_scales)]
    num_text = 1 if is_fixed[0] else most if is_fixed[1] else math.ceil(math.sqrt(most))
    num_image = 1 if is_fixed[1] else max(1, most // num_text)
    columns, text_spacing = _spread(settings.text_scales, num_text)
    rows, image_spacing = _spread(settings.image_scales, num_image)
    places = [Place(column, row, settings.seeds[0]) for row, column in product(rows, columns)]
    return places, (text_spacing, image_spacing)


def _spread(limits: tuple[float, float], parts: int) -> tuple[list[float], float]:
    """The middles of equal parts of a range, and their distance."""
    low, high = limits
    spacing = (high - low) / parts
    return [round(low + (part + 0.5) * spacing, _DIGITS) for part in range(parts)], spacing


def around(place: Place, spacing: tuple[float, float], settings: SearchSettings) -> list[Place]:
    """List the four neighbours of a place, each in one scale alone, inside the ranges.

    Args:
        place: the middle.
        spacing: distance in the text scale and in the image scale.
        settings: the ranges.

    Returns:
        Places with the same seed.
    """
    text_scale, image_scale, seed = place
    across = [_inside(text_scale + step * spacing[0], settings.text_scales) for step in (1, -1)]
    along = [_inside(image_scale + step * spacing[1], settings.image_scales) for step in (1, -1)]
    return [Place(one, image_scale, seed) for one in across] + [Place(text_scale, one, seed) for one in along]


def _inside(value: float, limits: tuple[float, float]) -> float:
    return round(min(max(value, limits[0]), limits[1]), _DIGITS)
