"""The four CLIP similarities of a pair, the thresholds on them, and the best pairs of every prompt.

Brooks et al. 2022 (arXiv:2211.09800, section 3.1.2); directional similarity: Gal et al. 2021 (arXiv:2108.00946).
Shapes: B pairs, D length of a feature.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy
import torch
from torch import Tensor

from .errors import ConfigError
from .pair_record import PairScores


class PairFeatures(NamedTuple):
    """CLIP features of B pairs, each [B, D] of length 1."""

    original: Tensor
    edited: Tensor
    caption: Tensor
    edited_caption: Tensor


def require_equal_counts(**counts: int) -> None:
    """Refuse lists of different lengths.

    Args:
        **counts: what it is -> how many there are.

    Raises:
        ConfigError: if they differ.
    """
    if len(set(counts.values())) > 1:
        seen = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
        raise ConfigError(f"There are {seen}; every pair needs one of each. Make the numbers equal.")


def score_pairs(features: PairFeatures) -> list[PairScores]:
    """Compute the four similarities, each a cosine in [-1, 1].

    Where the two images, or the two captions, have the same feature there is no direction, and the directional
    similarity is 0.

    Args:
        features: of B pairs.

    Returns:
        The scores of every pair.

    Raises:
        ConfigError: if the four do not have the same number of rows.
    """
    rows = {name: len(value) for name, value in features._asdict().items()}
    require_equal_counts(**{f"features_of_{name}": count for name, count in rows.items()})
    original, edited, caption, edited_caption = (value.to(_precision(value)) for value in features)
    columns = {
        "caption_0": torch.cosine_similarity(original, caption),
        "caption_1": torch.cosine_similarity(edited, edited_caption),
        "image": torch.cosine_similarity(original, edited),
        "directional": _directional(edited - original, edited_caption - caption),
    }
    rows_of_scores = torch.stack([columns[name] for name in PairScores._fields], dim=1).tolist()
    return [PairScores(*row) for row in rows_of_scores]


def _precision(features: Tensor) -> torch.dtype:
    return torch.float64 if features.dtype == torch.float64 else torch.float32


def _directional(image_change: Tensor, text_change: Tensor) -> Tensor:
    """cos(E_I(edited) - E_I(original), E_T(edited caption) - E_T(caption)); 0 where a change is mere rounding."""
    rounding = 100.0 * torch.finfo(image_change.dtype).eps
    has_direction = (image_change.norm(dim=1) > rounding) & (text_change.norm(dim=1) > rounding)
    cosine = torch.cosine_similarity(image_change, text_change)
    return torch.where(has_direction | cosine.isnan(), cosine, torch.zeros_like(cosine))


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """The lowest similarities that a pair may have, each in [-1, 1]; the tests are >=.

    Attributes:
        image: original and edited image.
        caption: each image and its own caption.
        directional: change of the images and change of the captions.

    Raises:
        ConfigError: if one lies outside [-1, 1].
    """

    image: float = 0.75
    caption: float = 0.2
    directional: float = 0.2

    def __post_init__(self) -> None:
        _require_range(self, "threshold", -1.0, 1.0, "a cosine")

    def of(self, score: str) -> float:
        """Return the threshold of one field of PairScores."""
        return float(getattr(self, "caption" if score.startswith("caption") else score))


@dataclass(frozen=True, kw_only=True)
class Percentiles:
    """Thresholds as the share of the pairs, in percent, that each of the three tests takes out.

    The caption threshold is the percentile of the lower of a pair's two caption similarities, so that the share holds
    for the pair.

    Attributes:
        image: in [0, 100].
        caption: in [0, 100].
        directional: in [0, 100].

    Raises:
        ConfigError: if one lies outside [0, 100].
    """

    image: float = 25.0
    caption: float = 25.0
    directional: float = 50.0

    def __post_init__(self) -> None:
        _require_range(self, "percentile", 0.0, 100.0, "a percentage")

    def thresholds(self, scores: Iterable[PairScores]) -> Thresholds:
        """Turn the percentiles of these scores into thresholds; each is the score of one of the pairs.

        Args:
            scores: of all pairs; those with a score that is not a finite number are left out.

        Returns:
            The thresholds.

        Raises:
            ConfigError: if no pair has finite scores.
        """
        finite = [one for one in scores if all(map(math.isfinite, one))]
        if not finite:
            raise ConfigError("There are no scores to take percentiles of. Score some pairs first, or set thresholds.")
        values = {
            "image": [one.image for one in finite],
            "caption": [min(one.caption_0, one.caption_1) for one in finite],
            "directional": [one.directional for one in finite],
        }
        cuts = {
            name: float(numpy.percentile(numpy.array(seen), getattr(self, name), method="higher"))
            for name, seen in values.items()
        }
        # rounding may put the cosine of two equal features a little above 1
        return Thresholds(**{name: min(max(cut, -1.0), 1.0) for name, cut in cuts.items()})


def _require_range(record: Thresholds | Percentiles, what: str, low: float, high: float, kind: str) -> None:
    mistakes = [
        f"The {one.name} {what} is {getattr(record, one.name):g}; it is {kind} and must lie between {low:g} and {high:g}."
        for one in fields(record)
        if not low <= getattr(record, one.name) <= high
    ]
    if mistakes:
        raise ConfigError(*mistakes)


PRESETS: Mapping[str, Thresholds] = {
    "paper": Thresholds(image=0.75, caption=0.2, directional=0.2),
    "published_code": Thresholds(image=0.7, caption=0.2, directional=0.2),
}
PRESET_NAMES = (*PRESETS, "custom", "percentile")


def choose_thresholds(
    preset: str,
    scores: Iterable[PairScores],
    *,
    custom: Thresholds | None = None,
    percentiles: Percentiles | None = None,
) -> Thresholds:
    """Return the thresholds of a preset.

    Args:
        preset: one of PRESET_NAMES.
        scores: of all pairs; only "percentile" reads them.
        custom: the thresholds of "custom"; None means those of the paper.
        percentiles: those of "percentile"; None means the default ones.

    Returns:
        The thresholds.

    Raises:
        ConfigError: if the preset is unknown, or percentiles are asked of no scores.
    """
    if preset not in PRESET_NAMES:
        raise ConfigError(f"The preset {preset!r} does not exist; choose one of {', '.join(PRESET_NAMES)}.")
    if preset == "custom":
        return custom or Thresholds()
    if preset == "percentile":
        return (percentiles or Percentiles()).thresholds(scores)
    return PRESETS[preset]


def first_failure(scores: PairScores, thresholds: Thresholds) -> str | None:
    """Name the first score that does not reach its threshold, or None; one that is not a number reaches none."""
    return next((name for name, value in scores._asdict().items() if not value >= thresholds.of(name)), None)


def passes(scores: PairScores, thresholds: Thresholds) -> bool:
    """Say whether a pair reaches every threshold."""
    return first_failure(scores, thresholds) is None


def keep_best(
    prompt_ids: Sequence[str],
    seeds: Sequence[int],
    scores: Sequence[PairScores],
    thresholds: Thresholds,
    keep: int = 4,
) -> list[int]:
    """Choose the pairs that pass, at most `keep` of every prompt: those of the highest directional similarity.

    Args:
        prompt_ids: of every pair.
        seeds: of every pair; of two with the same directional similarity the higher seed comes first.
        scores: of every pair.
        thresholds: what a pair must reach.
        keep: at most so many pairs of one prompt.

    Returns:
        Indices of the kept pairs: prompts in the order of their first pair, the best pair first.

    Raises:
        ConfigError: if the numbers of prompts, seeds and scores differ, or `keep` is below 1.
    """
    require_equal_counts(prompts=len(prompt_ids), seeds=len(seeds), scores=len(scores))
    if keep < 1:
        raise ConfigError(f"keep is {keep}; it must be at least 1, usually 4.")
    passing: dict[str, list[int]] = {}
    for index, (prompt_id, pair) in enumerate(zip(prompt_ids, scores, strict=True)):
        if passes(pair, thresholds):
            passing.setdefault(prompt_id, []).append(index)
    kept: list[int] = []
    for prompt_id in dict.fromkeys(prompt_ids):
        best = sorted(passing.get(prompt_id, []), key=lambda i: (scores[i].directional, seeds[i]), reverse=True)
        kept.extend(best[:keep])
    return kept
