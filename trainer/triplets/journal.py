"""What came of every caption, one line each, on the disk as soon as it is known.

A line is whole or, where the program was killed in the middle of it, the last one; that one is cut off on opening. So no caption
is asked again that was answered, whether its answer was of use or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ...ip2p_core.errors import PairStoreError
from ..line_journal import LineJournal

NAME = "journal.jsonl"


class Entry(NamedTuple):
    """What came of one question."""

    caption_id: str
    number: int
    """Which of the edits of this caption."""
    caption: str
    instruction: str = ""
    edited_caption: str = ""
    fault: str = ""
    """Why there is no edit; empty if there is one."""
    edit_type: str = ""
    """As the writer says; empty where it does not."""
    num_tries: int = 1
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seed: int = 0
    url: str = ""
    moderated_by: str = ""
    """The setting `moderation` when the answer came."""

    @property
    def key(self) -> tuple[str, int]:
        """What the question was."""
        return self.caption_id, self.number


class Journal:
    """Reads and extends the journal of a run folder; one process at a time.

    Args:
        folder: of the run; it is made.

    Raises:
        PairStoreError: if another process writes there, or the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._lines = LineJournal(folder, NAME)
        self._path = folder / NAME

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Wait until everything is on the disk, and let others write."""
        self._lines.close()

    def entries(self) -> Iterator[Entry]:
        """Read what is known; a half line at the end is cut off.

        Yields:
            Entry: In the order of writing.

        Raises:
            PairStoreError: if a line before the last one is damaged.
        """
        for number, record in enumerate(self._lines.records(), 1):
            try:
                yield Entry(**record)
            except TypeError as error:
                raise PairStoreError(
                    f"Line {number} of {self._path} is damaged ({error}). Delete that line; its caption is asked again."
                ) from None

    def add(self, entry: Entry) -> None:
        """Write one line, at once: it survives the death of this process.

        Args:
            entry: what came of a question.

        Raises:
            PairStoreError: if the disk is full or the file cannot be written; what was there is whole.
        """
        record: dict[str, Any] = {name: value for name, value in entry._asdict().items() if value not in ("", 0)}
        self._lines.add({"caption_id": entry.caption_id, "number": entry.number, "caption": entry.caption, **record})
