"""Parquet files: written in small row groups, so that one picture is read without its neighbours' megabytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import pyarrow
from pyarrow import parquet

from ..errors import PairStoreError
from ..pair_record import ImageHandle

GROUP_BYTES = 4 * 2**20
MAX_GROUP_ROWS = 256
_CACHED_CHUNKS = 4


def write_rows(path: Path, rows: Sequence[dict[str, Any]], schema: pyarrow.Schema, row_bytes: int = 0) -> None:
    """Write rows in groups of a few megabytes.

    Args:
        path: the file.
        rows: column -> value; missing columns are null.
        schema: the columns.
        row_bytes: about how many bytes one row has, where it has pictures.

    Raises:
        OSError: if the disk refuses.
    """
    group = len(rows) if not row_bytes else max(1, min(MAX_GROUP_ROWS, GROUP_BYTES // row_bytes))
    texts = [name for name in schema.names if schema.field(name).type == pyarrow.string()]
    numbers = [name for name in ("prompt_id", "sample_index") if name in schema.names]
    with parquet.ParquetWriter(
        path,
        schema,
        compression="zstd",
        use_dictionary=texts,
        write_statistics=numbers,
        write_page_checksum=True,
        store_schema=True,
    ) as writer:
        for start in range(0, len(rows), max(group, 1)):
            writer.write_table(pyarrow.Table.from_pylist(list(rows[start : start + group]), schema=schema))


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what goes wrong while a file is read into one sentence."""
    try:
        yield
    except FileNotFoundError:
        raise PairStoreError(
            f"{path.name} is missing from {path.parent}. Put it back, or drop it: ip2p dataset validate --drop."
        ) from None
    except (pyarrow.ArrowException, OSError, KeyError) as error:
        reason = " ".join(str(error).split()).rstrip(".")[:200]
        raise PairStoreError(
            f"{path.name} in {path.parent} is damaged ({reason}). Restore it from a copy, or drop it: ip2p dataset "
            "validate --drop; then only its pairs are made again."
        ) from None


def iterate_batches(
    path: Path, columns: Sequence[str] | None = None, batch_rows: int = 4096
) -> Iterator[pyarrow.RecordBatch]:
    """Read a file batch by batch.

    Args:
        path: the file.
        columns: which columns; all by default.
        batch_rows: rows of a batch at most.

    Yields:
        pyarrow.RecordBatch: Batches in the order of the file.

    Raises:
        PairStoreError: if the file is missing or damaged.
    """
    with reading(path), parquet.ParquetFile(path, page_checksum_verification=True) as opened:
        yield from opened.iter_batches(batch_rows, columns=None if columns is None else list(columns))


def iterate_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Read a file row by row, a few at a time in memory."""
    for batch in iterate_batches(path, columns, batch_rows=64):
        yield from batch.to_pylist()


def count_rows(path: Path) -> int:
    """Return the number of rows, from the end of the file alone.

    Args:
        path: the file.

    Returns:
        Rows.

    Raises:
        PairStoreError: if the file is missing or damaged.
    """
    with reading(path):
        return int(parquet.read_metadata(path).num_rows)


@dataclass
class ShardFiles:
    """Reads single cells of shards and keeps the few chunks that were read last; shared by the handles of a dataset."""

    folder: Path
    _metadata: dict[str, tuple[Any, Any]] = field(default_factory=dict, repr=False, compare=False)
    _chunks: OrderedDict[tuple[str, int, str], Any] = field(default_factory=OrderedDict, repr=False, compare=False)

    def cell(self, file: str, row: int, column: str) -> bytes | None:
        """Read the bytes of one picture.

        Args:
            file: path of the shard inside the dataset.
            row: index in the shard.
            column: name of the picture column.

        Returns:
            Encoded bytes, or None where the row has no such picture.

        Raises:
            PairStoreError: if the shard is missing or damaged.
        """
        path = self.folder / file
        with reading(path):
            if file not in self._metadata:
                metadata = parquet.read_metadata(path)
                sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
                self._metadata[file] = metadata, numpy.cumsum([0, *sizes])
            metadata, offsets = self._metadata[file]
            group = int(numpy.searchsorted(offsets, row, side="right")) - 1
            chunk = self._chunks.get((file, group, column))
            if chunk is None:
                with parquet.ParquetFile(path, metadata=metadata, page_checksum_verification=True) as opened:
                    chunk = opened.read_row_group(group, columns=[f"{column}.bytes"]).column(0)
                self._keep((file, group, column), chunk)
            value = chunk[row - int(offsets[group])].as_py()
        return None if value is None else value["bytes"]

    def _keep(self, key: tuple[str, int, str], chunk: Any) -> None:
        self._chunks[key] = chunk
        while len(self._chunks) > _CACHED_CHUNKS:
            self._chunks.popitem(last=False)

    def __reduce__(self) -> tuple[type[ShardFiles], tuple[Path]]:
        return ShardFiles, (self.folder,)


@dataclass(frozen=True, slots=True)
class ShardImage(ImageHandle):
    """A picture in a row of a shard."""

    files: ShardFiles
    file: str
    row: int
    column: str

    @property
    def name(self) -> str:
        """What to call the picture in messages."""
        return f"The picture {self.column} in row {self.row} of {self.file} in {self.files.folder}"

    def read(self) -> bytes:
        """Return the encoded bytes.

        Returns:
            PNG or lossless WebP.

        Raises:
            PairStoreError: if the shard is missing or damaged.
        """
        data = self.files.cell(self.file, self.row, self.column)
        if data is None:
            raise PairStoreError(f"{self.name} is empty. Drop the shard: ip2p dataset validate --drop.")
        return data


def total_bytes(rows: Iterable[dict[str, Any]], columns: Sequence[str]) -> int:
    """Count the bytes of the pictures of rows."""
    return sum(len(row[name]["bytes"]) for row in rows for name in columns if row[name] is not None)
