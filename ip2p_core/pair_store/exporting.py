"""What all exports share: a folder that appears under its name only when it is whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import OutputExists, PairStoreError
from ..pair_record import PairRecord
from .durable_files import PART_SUFFIX, describe_write_error
from .reader import PairStore


@contextmanager
def staged_folder(output: Path) -> Iterator[Path]:
    """Give a folder beside the output, and rename it at the end.

    Args:
        output: the folder to make; it must not exist, or be empty.

    Yields:
        Path: The folder to write into.

    Raises:
        OutputExists: if the output has content.
        PairStoreError: if it cannot be written, for example because the disk is full; nothing is left then.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise OutputExists(f"The output {output} exists and is not empty; choose another folder.")
    beside = output.with_name(f".{output.name}{PART_SUFFIX}")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        yield beside
        if output.exists():
            output.rmdir()
        beside.replace(output)
    except OSError as error:
        raise PairStoreError(describe_write_error(output, error)) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def chosen_records(store: PairStore, split: str | None) -> Iterator[PairRecord]:
    """Read the records of a split, and refuse an empty one.

    Args:
        store: the dataset.
        split: "train", "val", "test", or None for all.

    Yields:
        PairRecord: The records that were not rejected by hand.

    Raises:
        PairStoreError: if there is none.
    """
    is_empty = True
    for record in store.records(split):
        is_empty = False
        yield record
    if is_empty:
        raise PairStoreError(
            f"The dataset {store.folder} has no pair in the split {split or 'all'}. Choose another split, or add pairs."
        )


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file for people to read."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
