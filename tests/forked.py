"""`ip2p` in a process of its own, forked from a server that has the libraries already.

Importing torch, diffusers, transformers and peft takes some ten seconds of a processor, and what a test asks of the program
often one. A fork is as real a process: it has its own memory, takes signals, and dies alone.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Collection, Mapping
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from ip2p.trainer.__main__ import COMMANDS, main
from ip2p.trainer.diffusers_adapter import MODEL_MODULES

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
PRELOADED = [
    *(f"ip2p.trainer{module}" for module, _ in COMMANDS.values()),
    *MODEL_MODULES,
    "torch.utils.tensorboard",
    "ftfy",
]


class Limits(NamedTuple):
    """What goes wrong for a process."""

    kill_at: int | None = None
    """SIGKILL before the so manieth of `events`."""
    events: Collection[str] = ()
    """Python's audit events, such as a file's renaming."""
    file_bytes: int | None = None
    """The largest file that can be written: a full disk."""


NO_LIMITS = Limits()
_STARTING = threading.Lock()


def ip2p(
    *arguments: object,
    cwd: Path | None = None,
    environment: Mapping[str, str] = ENVIRONMENT,
    limits: Limits = NO_LIMITS,
    timeout: float = 600,
) -> subprocess.CompletedProcess[str]:
    """Run `ip2p` to its end, as subprocess.run would run `python -m ip2p.trainer`.

    Raises:
        subprocess.TimeoutExpired: if it takes longer than `timeout` seconds; it is killed.
    """
    texts = [str(one) for one in arguments]
    with tempfile.TemporaryDirectory() as folder:
        said = [str(Path(folder) / name) for name in ("stdout", "stderr")]
        work = (texts, str(cwd or Path.cwd()), dict(environment), said, limits)
        process = start_server().Process(target=_child, args=work)
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(texts, timeout)
        stdout, stderr = (Path(path).read_text(encoding="utf-8") for path in said)
        return subprocess.CompletedProcess(texts, process.exitcode, stdout, stderr)


def start_server() -> Any:
    """The context of processes; its server starts with the environment that libraries read when they are imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with _STARTING, mock.patch.dict(os.environ, ENVIRONMENT):
        forkserver.ensure_running()
    return context


def _child(arguments: list[str], cwd: str, environment: dict[str, str], said: list[str], limits: Limits) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for path, number in zip(said, (1, 2), strict=True):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", write_through=True)  # type: ignore[union-attr]
    sys.argv = ["ip2p", *arguments]
    if limits.file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limits.file_bytes, limits.file_bytes))
    if limits.kill_at is not None:
        sys.addaudithook(_Countdown(limits.kill_at, limits.events))
    sys.exit(main(arguments))


class _Countdown:
    """Kills its process before the so manieth of some events."""

    def __init__(self, count: int, events: Collection[str]) -> None:
        self._left, self._events = count, frozenset(events)

    def __call__(self, name: str, _: tuple[object, ...]) -> None:
        if name in self._events:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
