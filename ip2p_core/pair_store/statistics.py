"""Counts and averages of a dataset, from manifest and ledger alone, so that large ones take seconds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy
import pyarrow

from ..pair_record import SPLITS, split_of
from .reader import PairStore
from .schema import SCORE_COLUMNS

_MEASURED = ("p2p_threshold", "text_guidance_scale", *SCORE_COLUMNS)
_COLUMNS = ["prompt_id", "is_accepted", "reason", "mode", *_MEASURED]


@dataclass
class Span:
    """Running count, sum and range of one number; null values do not count."""

    count: int = 0
    total: float = 0.0
    low: float = float("inf")
    high: float = float("-inf")

    def add(self, values: numpy.ndarray) -> None:
        """Take in more values; NaN stands for null."""
        values = values[~numpy.isnan(values)]
        if len(values):
            self.count += len(values)
            self.total += float(values.sum())
            self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))

    def to_dict(self) -> dict[str, float] | None:
        """Return mean and range, or None without values."""
        return {"mean": self.total / self.count, "min": self.low, "max": self.high} if self.count else None


@dataclass
class Statistics:
    """What a dataset holds. Of the spans, the first is over all candidates, the second over accepted ones."""

    num_pairs: int
    num_rejected_by_hand: int
    num_shards: int
    num_bytes: int
    num_candidates: int = 0
    prompts: dict[str, bool] = field(default_factory=dict)
    """prompt_id -> has an accepted pair."""
    splits: Counter[str] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    spans: dict[str, tuple[Span, Span]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return everything that JSON can hold."""
        return {
            "pairs": self.num_pairs,
            "rejected_by_hand": self.num_rejected_by_hand,
            "shards": self.num_shards,
            "bytes": self.num_bytes,
            "candidates": self.num_candidates,
            "prompts": len(self.prompts),
            "prompts_without_pair": sum(not has_pair for has_pair in self.prompts.values()),
            "splits": {name: self.splits[name] for name in SPLITS},
            "modes": dict(self.modes),
            "not_accepted_because": dict(self.reasons),
            "candidates_span": {name: both[0].to_dict() for name, both in self.spans.items()},
            "accepted_span": {name: both[1].to_dict() for name, both in self.spans.items()},
        }


def compute_statistics(store: PairStore) -> Statistics:
    """Count and average; pairs rejected by hand still count as accepted by the filter.

    Args:
        store: the dataset.

    Returns:
        The figures.

    Raises:
        PairStoreError: if a file is missing or damaged.
    """
    manifest = store.manifest
    paths = [store.folder / name for entry in manifest.shards for name, _ in entry.files()]
    result = Statistics(
        num_pairs=len(store),
        num_rejected_by_hand=manifest.num_rejected,
        num_shards=sum(entry.rows > 0 for entry in manifest.shards),
        num_bytes=sum(path.stat().st_size for path in paths if path.exists()),
        spans={name: (Span(), Span()) for name in _MEASURED},
    )
    for batch in store.ledger(_COLUMNS):
        _add(result, batch)
    return result


def _add(result: Statistics, batch: pyarrow.RecordBatch) -> None:
    accepted = batch.column("is_accepted").to_numpy(zero_copy_only=False).astype(bool)
    result.num_candidates += len(accepted)
    prompts = batch.column("prompt_id").to_pylist()
    for prompt, is_accepted in zip(prompts, accepted.tolist(), strict=True):
        if is_accepted:
            result.splits[split_of(prompt)] += 1
        result.prompts[prompt] = result.prompts.get(prompt, False) or is_accepted
    modes = batch.column("mode").to_pylist()
    result.modes.update(mode for mode, is_one in zip(modes, accepted.tolist(), strict=True) if is_one)
    result.reasons.update(reason for reason in batch.column("reason").to_pylist() if reason)
    for name, (over_all, over_accepted) in result.spans.items():
        values = batch.column(name).to_numpy(zero_copy_only=False).astype(numpy.float64)
        over_all.add(values)
        over_accepted.add(values[accepted])
