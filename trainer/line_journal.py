"""A file of JSON lines that grows as work is done, each line on the disk as soon as it is known.

A line is whole or, where the program was killed in the middle of it, the last one; that one is cut off on reading.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from ..ip2p_core.errors import PairStoreError
from ..ip2p_core.pair_store.durable_files import WriterLock, describe_write_error


class LineJournal:
    """Reads and extends a journal in a run folder; one process at a time.

    Args:
        folder: of the run; it is made.
        name: of the file.

    Raises:
        PairStoreError: if another process writes there, or the folder cannot be written.
    """

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / name
        self._lock = WriterLock(folder)
        self._lock.acquire()
        self._opened: IO[bytes] | None = None

    def close(self) -> None:
        """Wait until everything is on the disk, and let others write."""
        if self._opened is not None:
            self._opened.flush()
            os.fsync(self._opened.fileno())
            self._opened.close()
            self._opened = None
        self._lock.release()

    def records(self) -> Iterator[dict[str, Any]]:
        """Read what is known; a half line at the end is cut off.

        Yields:
            dict[str, Any]: In the order of writing.

        Raises:
            PairStoreError: if a line before the last one is damaged.
        """
        if not self._path.exists():
            return
        whole = 0
        with self._path.open("r+b") as opened:
            for number, line in enumerate(opened, 1):
                if not line.endswith(b"\n"):
                    break
                try:
                    yield dict(json.loads(line))
                except (ValueError, TypeError) as error:
                    raise PairStoreError(
                        f"Line {number} of {self._path} is damaged ({error}). Delete that line; what it says is done again."
                    ) from None
                whole += len(line)
            opened.truncate(whole)

    def add(self, record: Mapping[str, Any]) -> None:
        """Write one line, at once: it survives the death of this process.

        Args:
            record: what JSON can hold.

        Raises:
            PairStoreError: if the disk is full or the file cannot be written; what was there is whole.
        """
        try:
            if self._opened is None:
                self._opened = self._path.open("ab", buffering=0)
            self._opened.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        except OSError as error:
            raise PairStoreError(describe_write_error(self._path, error)) from None

    def start_anew(self) -> None:
        """Forget everything."""
        self._path.unlink(missing_ok=True)
