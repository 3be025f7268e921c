"""What a run says to people: on the screen, and in its folder."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path


def say(text: str) -> None:
    """Show a line to people."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


class TextLog:
    """Writes lines into log.txt of a run folder and on the screen.

    Args:
        folder: of the run; it is there.
        seconds: at least so many between two reports of progress.
        is_first_shown: the first report comes at once instead of after these seconds.
    """

    def __init__(self, folder: Path, seconds: float, *, is_first_shown: bool) -> None:
        self._path, self._seconds = folder / "log.txt", seconds
        self._last = 0.0 if is_first_shown else time.monotonic()

    def report(self, describe: Callable[[], str]) -> None:
        """Write how far the run is, unless that was said a moment ago."""
        if time.monotonic() - self._last >= self._seconds:
            self._last = time.monotonic()
            self.write(describe())

    def write(self, line: str) -> None:
        """Write a line to the log and the screen."""
        with self._path.open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
        say(line)
