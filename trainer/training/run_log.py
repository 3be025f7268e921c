"""The folder of a run: settings, versions, a line a step for programs, one every few seconds for people; one owner."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from ...ip2p_core.errors import ConfigError
from ...ip2p_core.pair_store.durable_files import lock_file, remove_parts
from ...ip2p_core.train_job import TrainConfig
from ...ip2p_core.train_progress import ProgressEvent, describe
from ..run_record import write_run_record

LOG, LOCK, CURVES = "log.jsonl", ".lock", "tensorboard"
SHOWN_SECONDS = 5.0


class RunLog:
    """Owns a run folder while it is open, and writes what happens. Processes other than the first write nothing.

    Args:
        folder: of the run.
        config: of the run.
        is_main: whether this is the first process.

    Raises:
        ConfigError: if another process owns the folder (named), or it cannot be written.
    """

    def __init__(self, folder: Path, config: TrainConfig, *, is_main: bool) -> None:
        self.folder, self.is_main = folder, is_main
        self._shown = 0.0
        if not is_main:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = (folder / LOCK).open("a+", encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"The run folder {folder} cannot be written ({error.strerror}). Choose another output."
            ) from None
        try:
            lock_file(self._lock)
        except OSError:
            self._lock.seek(0)
            owner = self._lock.read().strip() or "another process"
            self._lock.close()
            raise ConfigError(
                f"The run folder {folder} is in use by {owner}. Wait until it is done, stop it, or choose another output."
            ) from None
        self._lock.truncate(0)
        self._lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self._lock.flush()
        remove_parts(folder)
        write_run_record(folder, config, "accelerate", "peft")
        self._log = (folder / LOG).open("a", encoding="utf-8")
        self._curves = _curves(folder / CURVES)

    def __enter__(self) -> RunLog:
        """Own the folder."""
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Give the folder back."""
        if self.is_main:
            self._log.close()
            if self._curves is not None:
                self._curves.close()
            self._lock.close()

    def write(self, event: ProgressEvent) -> None:
        """Write an event to the log, and to the screen if it is not one step of many."""
        if not self.is_main:
            return
        self._log.write(f"{event.to_json()}\n")
        self._log.flush()
        if self._curves is not None and event.kind == "step":
            for name in ("loss", "samples_per_second", "memory_mib"):
                value = getattr(event, name)
                if value is not None:
                    self._curves.add_scalar(name, value, event.step)
        is_due = time.monotonic() - self._shown >= SHOWN_SECONDS
        if event.kind != "step" or is_due:
            self._shown = time.monotonic()
            self.say(describe(event))

    def say(self, text: str) -> None:
        """Show a line to people."""
        if self.is_main:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()


def _curves(folder: Path) -> Any:
    """Open curves for TensorBoard where it is installed; None elsewhere."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder))


def peak_memory_mib(device: torch.device) -> float | None:
    """Return the largest memory so far: of a GPU, or of this process; None where the system does not say."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20)
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))
