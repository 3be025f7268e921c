"""Measurements of a batch of edits as a table, as a record, and which metrics could not be had and why."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .pair_metrics import INSIDE, OUTSIDE, PREPARED, TARGET, EditContext, PairMetrics, Scores, missing_ssim
from .torchmetrics_adapter import SMALLEST_SSIM

_DISTANCES = ("l1", "l2", "psnr", "ssim")
NAMES = (
    *("directional", "image", "caption_0", "caption_1", "instruction_match"),
    *_DISTANCES,
    *(name + OUTSIDE for name in _DISTANCES),
    *(name + INSIDE for name in (*_DISTANCES, "caption_1")),
    *(TARGET + name for name in (*_DISTANCES, "image")),
)
"""Every metric of a table, in the order of its columns."""
_BY_CLIP = {
    "directional",
    "image",
    "caption_0",
    "caption_1",
    "instruction_match",
    "caption_1" + INSIDE,
    TARGET + "image",
}


@dataclass(frozen=True)
class MetricsReport:
    """What was measured of B edits.

    Attributes:
        scores: of every edit.
        skipped: metric -> why no edit, or not every edit, has it.
        record: with what it was measured.
    """

    scores: Sequence[Scores]
    skipped: dict[str, str]
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The metrics that there are, in order."""
        return [name for name in NAMES if any(name in one for one in self.scores)]

    def mean(self, name: str) -> float | None:
        """Average a metric over the edits that have it; None where none has."""
        values = [one[name] for one in self.scores if name in one]
        return sum(values) / len(values) if values else None

    def table(self) -> str:
        """One line of names, one for every edit, one of means; parted by tabs, a dash where there is no value."""
        lines = [["picture", *self.names]]
        lines += [[str(i + 1), *(_written(one.get(name)) for name in self.names)] for i, one in enumerate(self.scores)]
        lines.append(["mean", *(_written(self.mean(name)) for name in self.names)])
        return "\n".join("\t".join(line) for line in lines)

    def json(self) -> str:
        """Everything; infinity, as the PSNR of equal pictures, is null."""
        record = {
            **self.record,
            "skipped": self.skipped,
            "mean": {name: _finite(self.mean(name)) for name in self.names},
            "pictures": [{name: _finite(value) for name, value in one.items()} for one in self.scores],
        }
        return json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)


def _written(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def report_metrics(
    metrics: PairMetrics, scores: Sequence[Scores], contexts: Sequence[EditContext], size: tuple[int, int]
) -> MetricsReport:
    """Put together what was measured, with what, and what was not.

    Args:
        metrics: the encoders.
        scores: what they measured.
        contexts: what was known of each edit.
        size: width and height of the pictures.

    Returns:
        The report; every metric of NAMES is in its table or skipped with a reason.
    """
    skipped = {}
    for name in NAMES:
        missing = [i for i, one in enumerate(scores) if name not in one]
        if missing:
            reason = _reason(name, metrics, contexts[missing[0]], size)
            some = "" if len(missing) == len(scores) else f"pictures {', '.join(str(i + 1) for i in missing)}: "
            skipped[name] = some + reason
    record = {
        "encoder": _encoder(metrics),
        "values": "floating point in [0, 1], as connected",
        "size": "x".join(map(str, size)),
        "parts": f"{metrics.masking}: the mean over the pixels of the part alone"
        if metrics.masking == "region"
        else f"{metrics.masking}: both pictures times the mask, the mean over the whole picture",
    }
    return MetricsReport(scores, skipped, record)


def _encoder(metrics: PairMetrics) -> dict[str, Any] | None:
    if metrics.scorer is None:
        return None
    return {
        "file": metrics.scorer.name,
        "architecture": metrics.scorer.config.model_cfg,
        "size": list(metrics.scorer.image_size),
        "preprocessing": f"{metrics.preprocessing}: {PREPARED[metrics.preprocessing]}",
    }


def _reason(name: str, metrics: PairMetrics, context: EditContext, size: tuple[int, int]) -> str:
    """Say what a metric lacks, the first thing first."""
    plain = name.removeprefix(TARGET).removesuffix(OUTSIDE).removesuffix(INSIDE)
    lacks = [
        (name.startswith(TARGET) and context.target is None, "no target is connected"),
        (name.endswith((OUTSIDE, INSIDE)) and context.mask is None, "no mask is connected"),
        (name in _BY_CLIP and metrics.scorer is None, "no scorer is connected"),
        (name == "instruction_match", "the instruction is empty"),
        (name == "caption_1" + INSIDE and not context.edited_caption, "edited_caption is empty"),
        (name in ("directional", "caption_0", "caption_1"), "caption and edited_caption are needed, both"),
        (plain == "ssim" and not metrics.has_ssim, missing_ssim()),
        (plain == "ssim" and min(size) < SMALLEST_SSIM, f"SSIM needs {SMALLEST_SSIM} pixels on every side"),
        (name.endswith(OUTSIDE), "the mask covers the whole picture"),
        (name.endswith(INSIDE), "the mask is empty"),
    ]
    return next(reason for is_so, reason in lacks if is_so)
