"""Processes beside this one, which end with it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..worker_context import worker_context

Work = Callable[..., Any]


@contextmanager
def exit_when_told() -> Iterator[None]:
    """Leave by SystemExit when this process is told to end (SIGTERM), so that what it began is ended too."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def begun(works: Sequence[Work], argument: Any) -> Iterator[Callable[[Work], None]]:
    """Begin works in processes of their own.

    Args:
        works: functions of modules; each leaves what it finds on the disk.
        argument: what each is called with.

    Yields:
        Callable[[Work], None]: waits until one of them, if it was begun, has ended, well or not.
    """
    context = worker_context([work.__module__ for work in works])
    processes = {work: context.Process(target=work, args=(argument,), daemon=True) for work in works}

    def wait_for(work: Work) -> None:
        if work in processes:
            processes[work].join()

    with exit_when_told():
        try:
            for process in processes.values():
                process.start()
            yield wait_for
        finally:
            for process in processes.values():
                process.terminate()
