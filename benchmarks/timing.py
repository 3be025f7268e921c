"""Interleaved timing: contenders take turns, each round begins with another one, and the ratios of the rounds are compared."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import torch


def measure(contenders: Mapping[str, Callable[[], object]], num_rounds: int) -> dict[str, list[float]]:
    """Time contenders against each other.

    Args:
        contenders: name -> what to run; each runs once before the clock starts.
        num_rounds: timed runs of each.

    Returns:
        Name -> seconds of every round.
    """
    names = list(contenders)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        contenders[name]()
    for round_number in range(num_rounds):
        shift = round_number % len(names)
        for name in names[shift:] + names[:shift]:
            _wait_for_device()
            start = time.perf_counter()
            contenders[name]()
            _wait_for_device()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def _wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def report(title: str, seconds: Mapping[str, Sequence[float]], baseline: str, goals: Mapping[str, float]) -> None:
    """Print one line per contender: median, median ratio to the baseline of the same round, and the goal if there is one.

    Machines speed up and slow down; within a round less so.

    Args:
        title: what was compared.
        seconds: name -> seconds of every round.
        baseline: whose time is 1.
        goals: name -> the largest ratio wanted.
    """
    say(f"\n{title}")
    for name, values in seconds.items():
        value = statistics.median(values)
        ratio = statistics.median(own / other for own, other in zip(values, seconds[baseline], strict=True))
        goal = (
            f"   goal <= {goals[name]:.2f}: {'reached' if ratio <= goals[name] else 'MISSED'}" if name in goals else ""
        )
        say(f"  {name:34} {value:8.3f} s   {ratio:5.2f} x {baseline}{goal}")


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def run_child(module: str, *arguments: object) -> str:
    """Run a module of this folder in a process of its own, and return the last line that it prints."""
    command = [sys.executable, "-W", "ignore", "-m", f"ip2p.benchmarks.{module}", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own module
    if done.returncode:
        raise SystemExit(f"{module} failed:\n{done.stderr[-3000:]}")
    return done.stdout.strip().splitlines()[-1]
