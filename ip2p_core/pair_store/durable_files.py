"""Files that are either there as a whole or not at all: written beside, synced, renamed; and one writer at a time."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from ..checkpoint_files import permit_as_usual
from ..errors import PairStoreError

PART_SUFFIX = ".part"


def write_durably(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under another name, sync it, rename it, and sync its folder.

    Args:
        path: the final name; its folder is made if need be.
        write: writes the content to the path that it gets.

    Raises:
        PairStoreError: if it cannot be written, for example because the disk is full; an old file is untouched.
    """
    beside: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem[:40]}.", suffix=PART_SUFFIX)
        os.close(descriptor)
        beside = Path(name)
        write(beside)
        permit_as_usual(beside)
        sync(beside)
        beside.replace(path)
        sync(path.parent)
    except OSError as error:
        raise PairStoreError(describe_write_error(path, error)) from None
    finally:
        if beside is not None:
            beside.unlink(missing_ok=True)


def write_text_durably(path: Path, text: str) -> None:
    """Write a text in UTF-8 as `write_durably` does."""
    write_durably(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def remove_parts(folder: Path) -> None:
    """Delete what killed writers left in a folder; its owner calls it."""
    for left in folder.glob(f".*{PART_SUFFIX}"):
        left.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open folders
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def describe_write_error(path: Path, error: OSError) -> str:
    """Say in one sentence why a file could not be written, and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return (
            f"There is no space left to write {path}; what was saved before is whole. Free some space and run it again."
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"There is no permission to write {path}. Choose a folder that you may write to."
    return f"{path} cannot be written ({error.strerror or error}). Choose another folder, or repair this one."


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits.

    Args:
        path: the file.

    Returns:
        64 digits.

    Raises:
        PairStoreError: if it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise PairStoreError(f"{path} cannot be read ({error.strerror or error}). Run ip2p dataset validate.") from None
    return digest.hexdigest()


class WriterLock:
    """Lets one process write to a folder; the system releases it when the process dies.

    Args:
        folder: the dataset.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / ".lock"
        self._opened: IO[bytes] | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            PairStoreError: if another process holds it, or the folder cannot be written.
        """
        try:
            opened = self._path.open("ab")
        except OSError as error:
            raise PairStoreError(describe_write_error(self._path, error)) from None
        try:
            lock_file(opened)
        except OSError:
            opened.close()
            raise PairStoreError(
                f"Another process is writing to the dataset {self._path.parent}. Wait until it is done, or use another "
                "folder."
            ) from None
        self._opened = opened

    def release(self) -> None:
        """Give the lock back; doing so twice is no error."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None


def lock_file(opened: IO[Any]) -> None:
    """Lock an open file until it is closed or the process dies; OSError if another process holds it."""
    if os.name == "nt":
        import msvcrt  # exists on Windows alone

        msvcrt.locking(opened.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        import fcntl  # exists everywhere else

        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
