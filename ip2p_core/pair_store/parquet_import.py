"""Pairs from Parquet files, such as a downloaded Hugging Face dataset, by the names of their columns."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pyarrow import parquet

from ..errors import PairStoreError, PictureError
from ..pair_record import ImageBytes, ImageFile, ImageHandle, PairRecord
from ..triplet import Triplet
from .importing import Problem, SampleNumbers
from .parquet_files import iterate_batches, reading

_BATCH_ROWS = 16


@dataclass(frozen=True)
class ColumnNames:
    """Which column holds what; None where there is no such column, or it is to be found."""

    input_image: str | None = None
    instruction: str | None = None
    edited_image: str | None = None
    caption: str | None = None
    edited_caption: str | None = None
    weight: str | None = None


KNOWN_COLUMNS = (
    ColumnNames(
        "input_image", "edit_prompt", "edited_image", "caption", "edited_caption", "weight"
    ),  # ours, diffusers' example
    ColumnNames("original_image", "edit_prompt", "edited_image", "original_prompt", "edited_prompt"),  # published sets
    ColumnNames("source_img", "instruction", "target_img"),  # MagicBrush
)


def choose_columns(names: list[str], wanted: ColumnNames) -> ColumnNames:
    """Find the columns of a file: those that the user names, and a known set of names for the others.

    Args:
        names: columns of the file.
        wanted: what the user names; None for the rest.

    Returns:
        The columns; the first three are there.

    Raises:
        PairStoreError: if a named column is missing, or one of the first three is neither named nor known.
    """
    given = {field: name for field, name in asdict(wanted).items() if name is not None}
    missing = [name for name in given.values() if name not in names]
    if missing:
        raise PairStoreError(f"There is no column {missing[0]!r}; the file has {', '.join(names)}. Name one of these.")
    known = max(KNOWN_COLUMNS, key=lambda one: sum(name in names for name in asdict(one).values()))
    found = {field: name for field, name in asdict(known).items() if name in names}
    columns = ColumnNames(**{**found, **given})
    for field in ("input_image", "instruction", "edited_image"):
        if getattr(columns, field) is None:
            raise PairStoreError(
                f"No column is known for {field}; the file has {', '.join(names)}. Name it: --{field.replace('_', '-')} NAME."
            )
    return columns


def read_parquet(source: Path, wanted: ColumnNames = ColumnNames()) -> Iterator[PairRecord | Problem]:
    """Read pairs from one Parquet file, or from all in a folder and the folders in it.

    A cell of a picture is a struct with bytes or path (Hugging Face `Image`), bytes, or a path beside the file. A pair
    without caption gets one from the hash of its original, so that pairs with one instruction spread over the splits.

    Args:
        source: file or folder.
        wanted: names of columns; known names need not be given.

    Yields:
        PairRecord | Problem: Pairs in the order of the files, and rows that could not be read.

    Raises:
        PairStoreError: if there is no file, it is damaged, or a column cannot be found.
    """
    files = sorted(source.rglob("*.parquet")) if source.is_dir() else [source]
    if not files:
        raise PairStoreError(f"There is no .parquet file in {source}. Name the folder of a downloaded dataset.")
    numbers = SampleNumbers()
    for path in files:
        with reading(path):
            names = parquet.read_schema(path).names
        columns = choose_columns(list(names), wanted)
        row_number = 0
        read = list(dict.fromkeys(name for name in asdict(columns).values() if name is not None))
        for batch in iterate_batches(path, read, _BATCH_ROWS):
            for row in batch.to_pylist():
                yield _to_record(row, columns, path, f"{path.name} row {row_number}", numbers)
                row_number += 1


def _to_record(
    row: Mapping[str, Any], columns: ColumnNames, path: Path, where: str, numbers: SampleNumbers
) -> PairRecord | Problem:
    instruction = row[columns.instruction or ""]
    if not isinstance(instruction, str) or not instruction.strip():
        return Problem(where, "the instruction is empty")
    original = _image(row[columns.input_image or ""], path)
    edited = _image(row[columns.edited_image or ""], path)
    if original is None or edited is None:
        return Problem(where, "a picture is empty")
    try:
        caption = _text(row, columns.caption) or f"picture {hashlib.sha256(original.read()).hexdigest()[:16]}"
    except PictureError as error:
        return Problem(where, str(error))
    triplet = Triplet(caption, instruction.strip(), _text(row, columns.edited_caption), source=where)
    weight = row[columns.weight] if columns.weight is not None else None
    if weight is not None and not (isinstance(weight, (int, float)) and 0 <= weight < math.inf):
        return Problem(where, f"the weight is {weight!r}; a number of at least 0 is needed")
    record = numbers.record(triplet, original, edited)
    return record if weight is None else replace(record, weight=float(weight))


def _text(row: Mapping[str, Any], column: str | None) -> str:
    value = row[column] if column is not None else None
    return value.strip() if isinstance(value, str) else ""


def _image(cell: Any, path: Path) -> ImageHandle | None:
    if isinstance(cell, Mapping):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, bytes):
        return ImageBytes(cell)
    return ImageFile(path.parent / cell) if isinstance(cell, str) and cell else None
