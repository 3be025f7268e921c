"""Which pairs the filter leaves: thresholds that a wanted share of the prompts survives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...ip2p_core.errors import ConfigError
from ...ip2p_core.similarity import Percentiles, Thresholds, keep_best


def calibrate(records: Sequence[Any], survival: float) -> Thresholds:
    """Choose thresholds that the share of prompts reaches: equal percentiles of all four scores, by bisection.

    Args:
        records: all pairs, with scores.
        survival: share of the prompts of which a pair is to pass.

    Returns:
        The thresholds.

    Raises:
        ConfigError: if there are no scores.
    """
    scored = [one for one in records if one.scores is not None]
    if not scored:
        raise ConfigError("The pairs have no scores. Make them with a scorer.")
    prompts, scores = {one.prompt_id for one in scored}, [one.scores for one in scored]
    low, high = 0.0, 100.0
    thresholds = Thresholds(image=-1.0, caption=-1.0, directional=-1.0)
    for _ in range(30):
        percentile = (low + high) / 2
        found = Percentiles(image=percentile, caption=percentile, directional=percentile).thresholds(scores)
        passing = {key[0] for key in best_keys(scored, found, 1)}
        if len(passing) >= survival * len(prompts):
            low, thresholds = percentile, found
        else:
            high = percentile
    return thresholds


def best_keys(records: Sequence[Any], thresholds: Thresholds, keep: int) -> list[tuple[str, int]]:
    """Choose the pairs that pass, at most `keep` of each prompt."""
    chosen = keep_best(
        [one.prompt_id for one in records],
        [one.seed for one in records],
        [one.scores for one in records],
        thresholds,
        keep,
    )
    return [records[row].key for row in chosen]
