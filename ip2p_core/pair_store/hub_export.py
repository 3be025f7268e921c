"""Export for diffusers and Hugging Face datasets: `data/{split}-00000-of-00001.parquet`.

Hugging Face datasets takes the split from the file name
(https://huggingface.co/docs/datasets/repository_structure). diffusers' examples/instruct_pix2pix/train_instruct_pix2pix.py
takes, for a data set that it does not know by name, column 0 as the original and column 2 as the edited picture, and
`edit_prompt` as the instruction: so the columns begin input_image, edit_prompt, edited_image.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import PairStoreError
from ..pair_record import PairRecord, split_of
from .exporting import chosen_records, staged_folder
from .parquet_files import total_bytes, write_rows
from .reader import PairStore
from .schema import IMAGE_COLUMNS, SHARD_SCHEMA, to_row

HUB_SPLITS = {"train": "train", "val": "validation", "test": "test"}
_FILE_BYTES = 128 * 2**20


def export_hub(store: PairStore, output: Path, split: str | None = None) -> int:
    """Write Parquet files that diffusers trains from and `datasets.load_dataset` opens.

    Args:
        store: the dataset.
        output: a new folder.
        split: "train", "val", "test", or None for all, each under its own name.

    Returns:
        How many pairs were written.

    Raises:
        OutputExists: if the output has content.
        PairStoreError: if there is no pair, one cannot be read, or the disk is full.
    """
    num_pairs = 0
    with staged_folder(output) as staged:
        (staged / "data").mkdir()
        present = [split] if split else sorted({split_of(prompt) for prompt, _ in store.pair_keys()})
        if not present:
            raise PairStoreError(f"The dataset {store.folder} has no pairs. Add some first.")
        for name in present:
            num_pairs += _write_split(staged / "data", HUB_SPLITS.get(name, name), chosen_records(store, name))
    return num_pairs


def _write_split(folder: Path, name: str, records: Iterable[PairRecord]) -> int:
    parts: list[Path] = []
    rows: list[dict[str, Any]] = []
    num_bytes = num_pairs = 0
    for record in records:
        rows.append(to_row(record))
        num_bytes += total_bytes(rows[-1:], IMAGE_COLUMNS)
        num_pairs += 1
        if num_bytes >= _FILE_BYTES:
            parts.append(_write_part(folder, name, len(parts), rows, num_bytes))
            rows, num_bytes = [], 0
    if rows:
        parts.append(_write_part(folder, name, len(parts), rows, num_bytes))
    for number, part in enumerate(parts):
        part.replace(folder / f"{name}-{number:05d}-of-{len(parts):05d}.parquet")
    return num_pairs


def _write_part(folder: Path, name: str, number: int, rows: list[dict[str, Any]], num_bytes: int) -> Path:
    path = folder / f"{name}-{number:05d}.unfinished"
    write_rows(path, rows, SHARD_SCHEMA, num_bytes // len(rows) + 1)
    return path
