"""What a filter did, in words and in numbers: how many pairs reach each threshold, and how the scores are spread."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy

from .pair_record import PairScores
from .similarity import Thresholds, passes, require_equal_counts

SCORE_LABELS: Mapping[str, str] = {
    "caption_0": "original image and caption",
    "caption_1": "edited image and edited caption",
    "image": "original and edited image",
    "directional": "directional similarity",
}


def report(prompt_ids: Sequence[str], scores: Sequence[PairScores], thresholds: Thresholds, kept: Sequence[int]) -> str:
    """Tell how many pairs passed each threshold and, where none passed all, how near the best came.

    Args:
        prompt_ids: of every pair.
        scores: of every pair.
        thresholds: what a pair had to reach.
        kept: result of `keep_best`.

    Returns:
        Some lines of text.

    Raises:
        ConfigError: if the numbers of prompts and scores differ.
    """
    require_equal_counts(prompts=len(prompt_ids), scores=len(scores))
    if not scores:
        return "There are no pairs to filter."
    num_passing = sum(passes(one, thresholds) for one in scores)
    num_prompts, num_kept_prompts = len(set(prompt_ids)), len({prompt_ids[index] for index in kept})
    lines = [
        f"{num_passing} of {len(scores)} pairs pass every threshold; {len(kept)} kept, "
        f"from {num_kept_prompts} of {num_prompts} prompts."
    ]
    lines += [_report_line(name, [getattr(one, name) for one in scores], thresholds.of(name)) for name in SCORE_LABELS]
    if num_passing == 0:
        lines.append(_nearest(prompt_ids, scores, thresholds))
    return "\n".join(lines)


def _report_line(name: str, values: Sequence[float], threshold: float) -> str:
    finite = [value for value in values if math.isfinite(value)]
    line = f"- {SCORE_LABELS[name]} >= {threshold:.4g}: {sum(value >= threshold for value in finite)} of {len(values)}"
    if not finite:
        return f"{line}; no finite score"
    line += f"; median {numpy.median(finite):.3f}, best {max(finite):.3f}"
    if max(finite) < threshold:
        line += f", {_missing(max(finite), threshold)} short"
    if len(finite) < len(values):
        line += f"; {len(values) - len(finite)} not a finite number"
    return line


def _missing(value: float, threshold: float) -> str:
    """Write how much is missing, never as 0."""
    difference = threshold - value
    return f"{difference:.3f}" if difference >= 0.0005 else "less than 0.001"


def _nearest(prompt_ids: Sequence[str], scores: Sequence[PairScores], thresholds: Thresholds) -> str:
    """Name the pair whose largest shortfall is the smallest."""
    gaps = [max(thresholds.of(name) - value for name, value in one._asdict().items()) for one in scores]
    finite = [index for index, one in enumerate(scores) if all(map(math.isfinite, one))]
    if not finite:
        return "No pair has finite scores: the images or the scorer's weights are not finite numbers. Check both."
    nearest = min(finite, key=lambda index: gaps[index])
    short = [
        f"{SCORE_LABELS[name]} {value:.3f}, {_missing(value, thresholds.of(name))} short"
        for name, value in scores[nearest]._asdict().items()
        if value < thresholds.of(name)
    ]
    return (
        f"The nearest is pair {nearest + 1}, of prompt {prompt_ids[nearest]}: {'; '.join(short)}. "
        "Lower these thresholds, or make more pairs."
    )


class Histogram(NamedTuple):
    """How often the values of one score occur; the threshold is an edge between two bins."""

    score: str  # field of PairScores
    edges: tuple[float, ...]  # one more than counts
    counts: tuple[int, ...]
    threshold: float


def histograms(scores: Sequence[PairScores], thresholds: Thresholds, max_bins: int = 40) -> list[Histogram]:
    """Count the four scores in bins of equal width; scores that are not finite are left out.

    Args:
        scores: of all pairs.
        thresholds: always inside the range that is shown.
        max_bins: at most about so many bins.

    Returns:
        One histogram per field of PairScores.
    """
    return [
        _histogram(name, [getattr(one, name) for one in scores], thresholds.of(name), max_bins) for name in SCORE_LABELS
    ]


def _histogram(name: str, values: Sequence[float], threshold: float, max_bins: int) -> Histogram:
    distances = numpy.array([value - threshold for value in values if math.isfinite(value)])
    low, high = min(distances, default=0.0), max(distances, default=0.0)
    low, high = min(low, 0.0), max(high, 0.0)
    width = next((one for one in (0.005, 0.01, 0.02, 0.05) if (high - low) / one <= max_bins), 0.1)
    # counted from the threshold, so that a value never falls on the wrong side of the cut
    bins = numpy.floor(distances / width).astype(int)
    first, last = min(bins.min(initial=0), -1), max(bins.max(initial=0), 0)
    counts = numpy.bincount(bins - first, minlength=last - first + 1)
    edges = (threshold + width * step for step in range(first, last + 2))
    return Histogram(name, tuple(map(float, edges)), tuple(map(int, counts)), threshold)
