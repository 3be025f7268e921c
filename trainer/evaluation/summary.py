"""Means of the scores with their intervals: of every system and setting, and by the kind of edit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy

from .config import Setting
from .run import Row

RESAMPLES, CONFIDENCE = 1000, 95.0


class Mean(NamedTuple):
    """A mean over examples, and the 95 % interval of the bootstrap over them."""

    value: float
    low: float
    high: float
    num_examples: int
    num_left_out: int
    """Scores that are no finite number."""


class Summary(NamedTuple):
    """The means of one system at one setting."""

    system: str
    setting: Setting
    means: dict[str, Mean]

    def record(self) -> dict[str, Any]:
        """Everything as JSON."""
        means = {name: mean._asdict() for name, mean in self.means.items()}
        return {"system": self.system, **self.setting.named(), "means": means}


def metric_names(rows: Iterable[Row]) -> list[str]:
    """List the metrics that any row has, in their order."""
    return list(dict.fromkeys(name for row in rows for name in row.scores))


def summarise(rows: Sequence[Row]) -> list[Summary]:
    """Average over examples; seeds of one example are averaged first.

    Args:
        rows: of the run.

    Returns:
        One summary for every system and setting, in their order.
    """
    groups = _grouped(rows, lambda row: (row.system, row.setting))
    return [Summary(system, setting, _means(some)) for (system, setting), some in groups.items()]


def summarise_by_type(rows: Sequence[Row]) -> dict[str, list[Summary]]:
    """Average over the examples of every kind of edit; empty where kinds are not known.

    Args:
        rows: of the run.

    Returns:
        Kind -> summaries.
    """
    groups = _grouped([row for row in rows if row.example.edit_type], lambda row: row.example.edit_type)
    return {kind: summarise(some) for kind, some in sorted(groups.items())}


def _grouped(rows: Sequence[Row], key: Callable[[Row], Any]) -> Mapping[Any, list[Row]]:
    groups: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups


def _means(rows: Sequence[Row]) -> dict[str, Mean]:
    return {name: _mean(rows, name) for name in metric_names(rows)}


def _mean(rows: Sequence[Row], name: str) -> Mean:
    values: dict[str, list[float]] = defaultdict(list)
    num_left_out = 0
    for row in rows:
        score = row.scores.get(name)
        if score is None:
            continue
        if numpy.isfinite(score):
            values[row.example.key].append(score)
        else:
            num_left_out += 1
    each = numpy.array([numpy.mean(some) for some in values.values()])
    if not len(each):
        return Mean(float("nan"), float("nan"), float("nan"), 0, num_left_out)
    return Mean(float(each.mean()), *bootstrap(each), len(each), num_left_out)


def bootstrap(values: numpy.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of the mean of numbers that are independent of each other; at least one."""
    draws = numpy.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = numpy.percentile(values[draws].mean(1), [(100 - CONFIDENCE) / 2, (100 + CONFIDENCE) / 2])
    return float(low), float(high)
