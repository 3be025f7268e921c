"""The ledger: one row for every candidate, accepted or not. It also says which units of work are done.

A unit of work is a range of samples of one prompt; it is done when every sample of the range has a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import pyarrow

from ..errors import PairStoreError, PictureError
from ..pair_record import PairRecord, PairScores
from .fingerprint import fingerprint
from .manifest import ShardEntry
from .parquet_files import iterate_batches
from .schema import made_by

NOT_MADE = "not_made"


class Unit(NamedTuple):
    """Samples start to stop - 1 of one prompt."""

    prompt_id: str
    start: int
    stop: int


@dataclass(frozen=True)
class Candidate:
    """A pair that was made and scored, but not accepted."""

    prompt_id: str
    sample_index: int
    seed: int
    p2p_threshold: float | None
    text_guidance_scale: float | None
    mode: str
    scores: PairScores | None
    reason: str
    """Why it was not accepted, in one word: the name of the failed test, "quota", "safety", ..."""


def accepted_row(record: PairRecord) -> dict[str, Any]:
    """Make the ledger row of an accepted pair, with the fingerprints of its pictures.

    Args:
        record: the pair.

    Returns:
        Column -> value.

    Raises:
        PictureError: if a picture cannot be decoded, or the two have different sizes.
    """
    original, edited = record.original.picture(), record.edited.picture()
    if original.size != edited.size:
        raise PictureError(
            f"The pictures of pair {record.prompt_id}/{record.sample_index} have the sizes {original.size} and "
            f"{edited.size}; both need the same size. Resize one of them."
        )
    one, other = fingerprint(original), fingerprint(edited)
    return {
        "prompt_id": record.prompt_id,
        "sample_index": record.sample_index,
        **made_by(record.seed, record.p2p_threshold, record.text_guidance_scale, record.mode, record.scores),
        "is_accepted": True,
        "reason": "",
        "original_pixels": one.pixels,
        "edited_pixels": other.pixels,
        "original_dhash": one.dhash,
        "edited_dhash": other.dhash,
    }


def rejected_row(candidate: Candidate) -> dict[str, Any]:
    """Make the ledger row of a candidate that was not accepted."""
    return {
        "prompt_id": candidate.prompt_id,
        "sample_index": candidate.sample_index,
        **made_by(
            candidate.seed,
            candidate.p2p_threshold,
            candidate.text_guidance_scale,
            candidate.mode,
            candidate.scores,
        ),
        "is_accepted": False,
        "reason": candidate.reason,
    }


def unit_rows(unit: Unit, accepted: Sequence[PairRecord], rejected: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Make the rows of one unit of work, in order of their samples, with a row for each sample that was not made.

    Args:
        unit: the range of samples.
        accepted: pairs of this unit to keep.
        rejected: its other candidates.

    Returns:
        One row for every sample of the range.

    Raises:
        PairStoreError: if a candidate lies outside the unit or comes twice, or a picture cannot be decoded.
    """
    rows: dict[int, dict[str, Any]] = {}
    candidates: list[PairRecord | Candidate] = [*accepted, *rejected]
    for one in candidates:
        if one.prompt_id != unit.prompt_id or not unit.start <= one.sample_index < unit.stop:
            raise PairStoreError(
                f"Sample {one.prompt_id}/{one.sample_index} does not belong to the unit {unit.prompt_id}, samples "
                f"{unit.start} to {unit.stop - 1}. Add it with its own unit."
            )
        if one.sample_index in rows:
            raise PairStoreError(f"Sample {one.prompt_id}/{one.sample_index} comes twice in its unit. Add it once.")
        rows[one.sample_index] = accepted_row(one) if isinstance(one, PairRecord) else rejected_row(one)
    for index in range(unit.start, unit.stop):
        missing = {"prompt_id": unit.prompt_id, "sample_index": index, "is_accepted": False, "reason": NOT_MADE}
        rows.setdefault(index, missing)
    return [rows[index] for index in range(unit.start, unit.stop)]


class DoneSamples:
    """Which samples of which prompts are done, as ranges, so that millions of samples take little memory."""

    def __init__(self) -> None:
        self._ranges: dict[str, list[tuple[int, int]]] = {}

    def add(self, unit: Unit) -> None:
        """Mark the samples of a unit as done."""
        ranges = self._ranges.setdefault(unit.prompt_id, [])
        if ranges and ranges[-1][1] == unit.start:
            ranges[-1] = (ranges[-1][0], unit.stop)
        else:
            ranges.append((unit.start, unit.stop))

    def add_batch(self, batch: pyarrow.RecordBatch) -> None:
        """Mark the samples of ledger rows as done."""
        prompts = batch.column("prompt_id").dictionary_encode()
        codes = prompts.indices.to_numpy(zero_copy_only=False)
        samples = batch.column("sample_index").to_numpy(zero_copy_only=False)
        if not len(codes):
            return
        is_start = numpy.ones(len(codes), dtype=bool)
        is_start[1:] = (codes[1:] != codes[:-1]) | (samples[1:] != samples[:-1] + 1)
        starts = numpy.flatnonzero(is_start)
        ends = numpy.append(starts[1:], len(codes)) - 1
        names = prompts.dictionary.to_pylist()
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            self.add(Unit(names[codes[start]], int(samples[start]), int(samples[end]) + 1))

    def count(self, unit: Unit) -> int:
        """Count the samples of a unit that are done."""
        ranges = self._ranges.get(unit.prompt_id, ())
        return sum(max(0, min(stop, unit.stop) - max(start, unit.start)) for start, stop in ranges)

    def next_index(self, prompt_id: str) -> int:
        """Return the first sample index after all that are done."""
        return max((stop for _, stop in self._ranges.get(prompt_id, ())), default=0)


def read_done(folder: Path, shards: Iterable[ShardEntry]) -> DoneSamples:
    """Read which samples are done.

    Args:
        folder: the dataset.
        shards: entries of its manifest.

    Returns:
        The samples that have a ledger row.

    Raises:
        PairStoreError: if a ledger is missing or damaged.
    """
    done = DoneSamples()
    for batch in ledger_batches(folder, shards, ["prompt_id", "sample_index"]):
        done.add_batch(batch)
    return done


def ledger_batches(
    folder: Path, shards: Iterable[ShardEntry], columns: Sequence[str] | None = None
) -> Iterator[pyarrow.RecordBatch]:
    """Read the ledgers batch by batch, so that memory does not grow with them.

    Args:
        folder: the dataset.
        shards: entries of its manifest.
        columns: which columns; all by default.

    Yields:
        pyarrow.RecordBatch: Batches of rows, in the order in which they were written.

    Raises:
        PairStoreError: if a ledger is missing or damaged.
    """
    for entry in shards:
        yield from iterate_batches(folder / entry.ledger_file, columns)
