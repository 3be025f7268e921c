"""Finished units of prompts that are not finished yet, on the disk, so that a kill costs one batch.

A unit is two files, its passing pairs and its ledger; the ledger is written last and says that the unit is whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..ip2p_core.errors import PairStoreError
from ..ip2p_core.pair_record import ImageBytes, PairRecord
from ..ip2p_core.pair_store import Candidate, Unit
from ..ip2p_core.pair_store.durable_files import remove_parts, write_durably
from ..ip2p_core.pair_store.ledger import unit_rows
from ..ip2p_core.pair_store.parquet_files import count_rows, iterate_rows, write_rows
from ..ip2p_core.pair_store.schema import LEDGER_SCHEMA, SHARD_SCHEMA, scores_of, to_record, to_row


class UnitResult(NamedTuple):
    """What came of one unit."""

    passing: list[PairRecord]
    rejected: list[Candidate]


class Spool:
    """The units of unfinished prompts.

    Args:
        folder: where they lie; made if need be.
        is_shared: others write there too, so that unfinished files are not to be cleaned away.
    """

    def __init__(self, folder: Path, *, is_shared: bool = False) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        if not is_shared:
            remove_parts(folder)
        self._units: set[Unit] = set()
        self.refresh()

    def __contains__(self, unit: Unit) -> bool:
        """Say whether a unit is here."""
        return unit in self._units

    def units(self) -> list[Unit]:
        """List the units that are here, in order."""
        return sorted(self._units)

    def refresh(self) -> list[Unit]:
        """Look for units that others have put here.

        Returns:
            Those that were not known, in order.
        """
        new = {_unit_of(path) for path in self.folder.glob("*.ledger.parquet")} - self._units
        self._units |= new
        return sorted(new)

    def num_passing(self, unit: Unit) -> int | None:
        """Return how many pairs of a unit passed; None where it is not there, or damaged, and has to be made again."""
        if unit not in self._units:
            return None
        try:
            return count_rows(self._file(unit, "pairs"))
        except PairStoreError:
            self._remove(unit)
            return None

    def put(self, unit: Unit, passing: Sequence[PairRecord], rejected: Sequence[Candidate]) -> None:
        """Keep a finished unit.

        Args:
            unit: the range of samples.
            passing: its pairs that reach every threshold.
            rejected: its other candidates.

        Raises:
            PairStoreError: if the disk is full or refuses.
        """
        rows = [to_row(record) for record in passing]
        write_durably(self._file(unit, "pairs"), lambda beside: write_rows(beside, rows, SHARD_SCHEMA))
        ledger = unit_rows(unit, passing, rejected)
        write_durably(self._file(unit, "ledger"), lambda beside: write_rows(beside, ledger, LEDGER_SCHEMA))
        self._units.add(unit)

    def get(self, unit: Unit) -> UnitResult | None:
        """Read a unit back; None where it is not there, or damaged, and has to be made again."""
        if unit not in self._units:
            return None
        try:
            passing = [
                to_record(row, ImageBytes(row["input_image"]["bytes"]), ImageBytes(row["edited_image"]["bytes"]), None)
                for row in iterate_rows(self._file(unit, "pairs"))
            ]
            rows = [row for row in iterate_rows(self._file(unit, "ledger")) if not row["is_accepted"]]
        except PairStoreError:
            self._remove(unit)
            return None
        return UnitResult(passing, [_to_candidate(row) for row in rows])

    def drop(self, units: Iterable[Unit]) -> None:
        """Forget units that are in the dataset."""
        for unit in units:
            self._remove(unit)

    def clear(self) -> None:
        """Forget all units, and what killed workers left; for the end of a run, when nobody writes any more."""
        self.drop(self.units())
        remove_parts(self.folder)

    def _remove(self, unit: Unit) -> None:
        for kind in ("ledger", "pairs"):  # without its ledger a unit is not there
            self._file(unit, kind).unlink(missing_ok=True)
        self._units.discard(unit)

    def _file(self, unit: Unit, kind: str) -> Path:
        return self.folder / f"{unit.prompt_id}-{unit.start:06d}-{unit.stop:06d}.{kind}.parquet"


def _unit_of(path: Path) -> Unit:
    name, start, stop = path.name.split(".")[0].rsplit("-", 2)
    return Unit(name, int(start), int(stop))


def _to_candidate(row: dict[str, object]) -> Candidate:
    names = ("prompt_id", "sample_index", "seed", "p2p_threshold", "text_guidance_scale", "mode", "reason")
    return Candidate(**{name: row[name] for name in names}, scores=scores_of(row))  # type: ignore[arg-type]
