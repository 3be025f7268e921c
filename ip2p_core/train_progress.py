"""What a training writes as it goes, one line an event: the contract between the program and whoever watches it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True)
class ProgressEvent:
    """One line of a training's log, JSON.

    Attributes:
        kind: "start", "step", "checkpoint", "validation", "grid", "done" or "stopped".
        step: optimizer steps done.
        steps: of the whole run.
        loss: mean since the last line.
        samples_per_second: mean since the last line.
        seconds_left: estimate.
        memory_mib: largest memory so far, of the device.
        waiting: share of the time spent waiting for data.
        path: of the checkpoint or the grid.
        message: for people.
    """

    kind: str
    step: int
    steps: int
    loss: float | None = None
    samples_per_second: float | None = None
    seconds_left: float | None = None
    memory_mib: float | None = None
    waiting: float | None = None
    path: str | None = None
    message: str | None = None

    def to_json(self) -> str:
        """Write the event as one line."""
        return json.dumps({name: value for name, value in asdict(self).items() if value is not None})

    @classmethod
    def from_json(cls, line: str) -> ProgressEvent:
        """Read one line; a line that is no event raises ValueError."""
        try:
            return cls(**json.loads(line))
        except TypeError as error:
            raise ValueError(f"{line[:80]!r} is no progress event ({error}).") from None


def describe(event: ProgressEvent) -> str:
    """Write an event as a sentence for people."""
    parts = [f"step {event.step} of {event.steps}"]
    if event.loss is not None:
        parts.append(f"loss {event.loss:.4f}")
    if event.samples_per_second is not None:
        parts.append(f"{event.samples_per_second:.1f} samples/s")
    if event.seconds_left is not None:
        parts.append(f"{event.seconds_left / 60:.0f} min left" if event.seconds_left > 90 else "about a minute left")
    if event.waiting is not None and event.waiting > 0.05:
        parts.append(f"{event.waiting:.0%} waiting for data")
    if event.memory_mib is not None:
        parts.append(f"{event.memory_mib:.0f} MiB")
    if event.message:
        parts.append(event.message)
    if event.path:
        parts.append(event.path)
    return ", ".join(parts)
