"""Reading a dataset: opening reads the manifest alone, records come one by one, pictures when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow

from ..errors import PairStoreError
from ..pair_record import SPLITS, PairRecord, split_of
from .ledger import ledger_batches
from .manifest import ShardEntry, read_manifest
from .parquet_files import ShardFiles, ShardImage, iterate_batches
from .schema import RECORD_COLUMNS, to_record

_READ_COLUMNS = [*RECORD_COLUMNS, "mask.path"]


class PairStore:
    """A dataset on the disk, as it was when it was opened.

    Args:
        folder: the dataset.

    Raises:
        PairStoreError: if it is none, is damaged, or has a format that this program does not know.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        self._files = ShardFiles(self.folder.absolute())

    def __len__(self) -> int:
        """Count the pairs that were not rejected by hand."""
        if self.manifest.rejected:
            return sum(1 for _ in self.pair_keys())
        return self.num_stored

    @property
    def num_stored(self) -> int:
        """Pairs on the disk, those rejected by hand included."""
        return sum(entry.rows for entry in self.manifest.shards)

    def records(self, split: str | None = None, *, is_with_rejected: bool = False) -> Iterator[PairRecord]:
        """Read the records, shard by shard.

        Args:
            split: "train", "val" or "test"; all by default.
            is_with_rejected: pairs that were rejected by hand come too.

        Yields:
            PairRecord: The records, with handles in place of pictures.

        Raises:
            PairStoreError: if a shard is missing or damaged, or there is no such split.
        """
        if split is not None and split not in SPLITS:
            raise PairStoreError(f"There is no split {split!r}; choose one of {', '.join(SPLITS)}.")
        for entry in self.manifest.shards:
            for record in self.shard_records(entry):
                if split is not None and split_of(record.prompt_id) != split:
                    continue
                if is_with_rejected or not self.manifest.is_rejected(*record.key):
                    yield record

    def shard_records(self, entry: ShardEntry) -> Iterator[PairRecord]:
        """Read the records of one shard, those rejected by hand included.

        Args:
            entry: of the manifest.

        Yields:
            PairRecord: The records, with handles in place of pictures.

        Raises:
            PairStoreError: if the shard is missing or damaged.
        """
        file = entry.shard_file
        if file is None:
            return
        number = 0
        for batch in iterate_batches(self.folder / file, _READ_COLUMNS, batch_rows=1024):
            for row in batch.to_pylist():
                original, edited, mask = (
                    ShardImage(self._files, file, number, column) for column in ("input_image", "edited_image", "mask")
                )
                yield to_record(row, original, edited, None if row["mask"] is None else mask)
                number += 1

    def pair_keys(self, *, is_with_rejected: bool = False) -> Iterator[tuple[str, int]]:
        """Read (prompt_id, sample_index) of every pair, without anything else.

        Args:
            is_with_rejected: pairs that were rejected by hand come too.

        Yields:
            tuple[str, int]: The keys, in the order of the records.

        Raises:
            PairStoreError: if a shard is missing or damaged.
        """
        for entry in self.manifest.shards:
            if entry.shard_file is None:
                continue
            for batch in iterate_batches(self.folder / entry.shard_file, ["prompt_id", "sample_index"]):
                for key in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    if is_with_rejected or not self.manifest.is_rejected(*key):
                        yield key

    def ledger(self, columns: Sequence[str] | None = None) -> Iterator[pyarrow.RecordBatch]:
        """Read the ledger of all candidates batch by batch.

        Args:
            columns: which columns; all by default.

        Returns:
            Batches of rows.

        Raises:
            PairStoreError: if a ledger is missing or damaged.
        """
        return ledger_batches(self.folder, self.manifest.shards, columns)
