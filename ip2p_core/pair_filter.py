"""The CLIP filter over records: score pairs in batches, choose thresholds, keep the best of every prompt.

Brooks et al. 2022 (arXiv:2211.09800, section 3.1.2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from .clip_scorer import CLIPScorer
from .pair_record import PairRecord, PairScores
from .score_report import Histogram, histograms, report
from .similarity import Percentiles, Thresholds, choose_thresholds, keep_best

BATCH = 32


class Filtered(NamedTuple):
    """What a filter kept, and what it saw."""

    kept: tuple[PairRecord, ...]
    scored: tuple[PairRecord, ...]
    thresholds: Thresholds
    report: str
    histograms: list[Histogram]


def score_records(
    records: Sequence[PairRecord], scorer: CLIPScorer, on_batch: Callable[[int], object] | None = None
) -> tuple[PairRecord, ...]:
    """Score pairs; the pictures of one batch at a time are in memory.

    Args:
        records: the pairs, of any sizes.
        scorer: the CLIP model.
        on_batch: called with the number of pairs done after every batch.

    Returns:
        The same pairs with their scores.
    """
    scored: list[PairRecord] = []
    for first in range(0, len(records), BATCH):
        batch = records[first : first + BATCH]
        scores = _score(batch, scorer)
        scored += [replace(record, scores=one) for record, one in zip(batch, scores, strict=True)]
        if on_batch is not None:
            on_batch(len(scored))
    return tuple(scored)


def _score(batch: Sequence[PairRecord], scorer: CLIPScorer) -> list[PairScores]:
    captions = [record.triplet.caption for record in batch], [record.triplet.edited_caption for record in batch]
    pictures = [[handle.tensor() for handle in (record.original, record.edited)] for record in batch]
    if len({picture.shape for pair in pictures for picture in pair}) == 1:
        originals, editeds = (torch.stack(side) for side in zip(*pictures, strict=True))
        return scorer.score(originals, editeds, *captions)
    alone = zip(pictures, *captions, strict=True)
    return [scorer.score(pair[0][None], pair[1][None], [one], [other])[0] for pair, one, other in alone]


def filter_pairs(
    scored: Sequence[PairRecord],
    preset: str,
    *,
    custom: Thresholds | None = None,
    percentiles: Percentiles | None = None,
    keep: int = 4,
) -> Filtered:
    """Keep the pairs that pass every threshold, the best of every prompt.

    Args:
        scored: pairs with scores.
        preset: one of similarity.PRESET_NAMES.
        custom: the thresholds of "custom".
        percentiles: those of "percentile".
        keep: at most so many pairs of a prompt, by directional similarity.

    Returns:
        The kept pairs, the best of a prompt first, with thresholds, report and histograms.
    """
    scores = [record.scores for record in scored if record.scores is not None]
    thresholds = choose_thresholds(preset, scores, custom=custom, percentiles=percentiles)
    prompts, seeds = [record.prompt_id for record in scored], [record.seed for record in scored]
    kept = keep_best(prompts, seeds, scores, thresholds, keep)
    return Filtered(
        kept=tuple(scored[index] for index in kept),
        scored=tuple(scored),
        thresholds=thresholds,
        report=report(prompts, scores, thresholds, kept),
        histograms=histograms(scores, thresholds),
    )
