"""The losses of a run as a picture: of the training, smoothed, and of held-out pairs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...ip2p_core.pair_store.durable_files import write_durably

SMOOTHING = 50
"""The training's curve is a running mean over this part of it."""
TRAINED, HELD_OUT = "#0072b2", "#d55e00"  # told apart by colour-blind eyes too


def draw_losses(log: Path, records: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """Draw the losses so far.

    Args:
        log: of the run, an event a line.
        records: step and loss of held-out pairs.
        path: of the picture, PNG.

    Returns:
        Whether there is a picture: without matplotlib, or before the first loss, there is none.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    steps, losses = _training_losses(log)
    if not len(steps):
        return False
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="loss", yscale="log")
    width = max(1, len(losses) // SMOOTHING)
    smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
    axes.plot(steps, losses, color=TRAINED, alpha=0.2, linewidth=0.8)
    axes.plot(steps[width - 1 :], smooth, color=TRAINED, label="training pairs (with dropout)")
    if records:
        held_out = [[one[name] for one in records] for name in ("step", "loss")]
        axes.plot(*held_out, "o-", color=HELD_OUT, label="held-out pairs, averaged weights")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    write_durably(path, lambda beside: figure.savefig(beside, format="png", dpi=110))
    return True


def _training_losses(log: Path) -> tuple[np.ndarray, np.ndarray]:
    """Steps and losses; where a run went on from before a line, its newest loss counts."""
    found: dict[int, float] = {}
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else []:
        event = json.loads(line)
        if event["kind"] == "step":
            found[event["step"]] = event["loss"]
    steps = sorted(found)
    return np.array(steps), np.array([found[step] for step in steps])
