"""Writing a dataset: units of work are collected, then saved together as one shard and one ledger, manifest last.

A process that dies at any point leaves a dataset that opens, with every unit that was saved before; what it had collected
since the last save is made again. Files that the manifest does not name are left-overs and go when writing starts again.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from ..errors import PairStoreError
from ..pair_record import PairRecord
from .durable_files import PART_SUFFIX, WriterLock, describe_write_error, sha256_of, write_durably
from .ledger import Candidate, Unit, read_done, unit_rows
from .manifest import MANIFEST_NAME, Manifest, ShardEntry, hash_config, read_manifest, write_manifest
from .parquet_files import total_bytes, write_rows
from .schema import IMAGE_COLUMNS, LEDGER_SCHEMA, SHARD_SCHEMA, to_row

_OUR_FILE = re.compile(r"\d{6,}-[0-9a-f]{8}\.parquet")


@dataclass(frozen=True)
class SaveLimits:
    """When collected units are saved. The first limit that is reached counts.

    Attributes:
        rows: collected candidates.
        num_bytes: collected pictures, in bytes: about the size of a shard, and the memory of the writer.
        seconds: since the last save: about the work that a crash can cost.
    """

    rows: int = 20_000
    num_bytes: int = 64 * 2**20
    seconds: float = 120.0


class _Collected(NamedTuple):
    """One unit of work that is not saved yet."""

    ledger: list[dict[str, Any]]
    rows: list[dict[str, Any]]
    total_candidates: int
    """With the units that were collected before."""
    total_bytes: int


class PairWriter:
    """Adds units of work to a dataset. Use it in a `with` block; leaving it saves, even after an interrupt.

    One process writes at a time; several workers hand their units to one writer. A unit that is there already is ignored,
    so work may be done twice without harm.

    Args:
        folder: the dataset; made if it does not exist.
        config: what decides how the pairs come out. A dataset made with another one is refused. None: add to whatever
            is there.
        limits: when to save.

    Raises:
        PairStoreError: if the folder holds something else, another configuration, or another process writes to it.
    """

    def __init__(
        self, folder: Path | str, config: Mapping[str, Any] | None = None, limits: SaveLimits = SaveLimits()
    ) -> None:
        self.folder = Path(folder)
        self.limits = limits
        self._collected: list[_Collected] = []
        self._num_notes = 0
        self._saved_at = time.monotonic()
        self._lock = _prepare(self.folder)
        try:
            self.manifest = _open_manifest(self.folder, config)
            _remove_left_overs(self.folder, self.manifest)
            self._done = read_done(self.folder, self.manifest.shards)
        except BaseException:
            self._lock.release()
            raise

    def is_done(self, unit: Unit) -> bool:
        """Say whether every sample of a unit is in the dataset, or collected to be saved."""
        return self._done.count(unit) == unit.stop - unit.start

    def next_index(self, prompt_id: str) -> int:
        """Return the first free sample index of a prompt."""
        return self._done.next_index(prompt_id)

    def add(self, unit: Unit, accepted: Sequence[PairRecord], rejected: Sequence[Candidate] = ()) -> bool:
        """Add one finished unit of work, whole or not at all.

        Args:
            unit: the range of samples.
            accepted: its pairs to keep; a unit without any is remembered too.
            rejected: its other candidates; samples of the range that are in neither list count as not made.

        Returns:
            False if the unit was there already, and nothing changed.

        Raises:
            PairStoreError: if a part of the unit is there already, a picture cannot be read, or saving fails.
        """
        if unit.stop <= unit.start or unit.start < 0:
            raise PairStoreError(f"The unit {unit} has no samples; stop must be above start, and start at least 0.")
        num_done = self._done.count(unit)
        if num_done == unit.stop - unit.start:
            return False
        if num_done:
            raise PairStoreError(
                f"Of the samples {unit.start} to {unit.stop - 1} of prompt {unit.prompt_id}, {num_done} are in the dataset "
                "already. Keep the number of samples in a unit as it was, or use another folder."
            )
        ledger = unit_rows(unit, accepted, rejected)
        rows = [to_row(record) for record in sorted(accepted, key=lambda record: record.sample_index)]
        before = self._collected[-1] if self._collected else _Collected([], [], 0, 0)
        num_candidates = before.total_candidates + len(ledger)
        num_bytes = before.total_bytes + total_bytes(rows, IMAGE_COLUMNS)
        self._collected.append(_Collected(ledger, rows, num_candidates, num_bytes))  # at once, whatever interrupts
        self._done.add(unit)
        self._save_if_due()
        return True

    def add_record(self, record: PairRecord) -> bool:
        """Add one accepted pair as a unit of its own; False if it was there already."""
        return self.add(Unit(record.prompt_id, record.sample_index, record.sample_index + 1), [record])

    def note(self, name: str, value: Any) -> None:
        """Leave a remark in the manifest; it is saved with the next units.

        Args:
            name: of the remark.
            value: what JSON can express.
        """
        self.manifest.notes[name] = value
        self._num_notes += 1

    def save(self) -> None:
        """Save what was collected; after it, a crash cannot lose it.

        Raises:
            PairStoreError: if the disk is full or refuses; nothing is lost as long as the process lives, and a later call
                tries again.
        """
        manifest = self.manifest
        if self._collected:
            entry = self._write_shard()
            shards = [*manifest.shards, entry]
            write_manifest(self.folder, Manifest(**{**vars(manifest), "shards": shards}))
            manifest.shards, self._collected = shards, []
        elif self._num_notes:
            write_manifest(self.folder, manifest)
        self._num_notes, self._saved_at = 0, time.monotonic()

    def _save_if_due(self) -> None:
        limits = self.limits
        is_late = time.monotonic() - self._saved_at >= limits.seconds
        last = self._collected[-1]
        if is_late or last.total_candidates >= limits.rows or last.total_bytes >= limits.num_bytes:
            self.save()

    def _write_shard(self) -> ShardEntry:
        number = max((int(entry.name.split("-")[0]) for entry in self.manifest.shards), default=-1) + 1
        ledger = [row for one in self._collected for row in one.ledger]
        rows = [row for one in self._collected for row in one.rows]
        keys = "\n".join(f"{row['prompt_id']}/{row['sample_index']}" for row in ledger)
        prompts = [row["prompt_id"] for row in ledger]
        entry = ShardEntry(
            name=f"{number:06d}-{hashlib.sha256(keys.encode()).hexdigest()[:8]}",
            rows=len(rows),
            sha256="",
            first_prompt=min(prompts),
            last_prompt=max(prompts),
            ledger_rows=len(ledger),
            ledger_sha256="",
        )
        hashes = {}
        if entry.shard_file is not None:
            row_bytes = self._collected[-1].total_bytes // len(rows) + 1
            path = self.folder / entry.shard_file
            write_durably(path, lambda beside: write_rows(beside, rows, SHARD_SCHEMA, row_bytes))
            hashes["sha256"] = sha256_of(path)
        path = self.folder / entry.ledger_file
        write_durably(path, lambda beside: write_rows(beside, ledger, LEDGER_SCHEMA))
        hashes["ledger_sha256"] = sha256_of(path)
        return ShardEntry(**{**vars(entry), **hashes})

    def close(self) -> None:
        """Save, and let other processes write.

        Raises:
            PairStoreError: if saving fails; the lock is released all the same.
        """
        try:
            self.save()
        finally:
            self._lock.release()

    def __enter__(self) -> PairWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, PairStoreError):
            self._lock.release()  # saving would fail once more and hide the first message
        else:
            self.close()


def _prepare(folder: Path) -> WriterLock:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PairStoreError(describe_write_error(folder, error)) from None
    others = [one for one in folder.iterdir() if one.name != ".lock" and not one.name.endswith(PART_SUFFIX)]
    if others and not (folder / MANIFEST_NAME).exists():
        raise PairStoreError(
            f"{folder} is not empty and not a dataset of pairs ({others[0].name} is in it). Choose a new folder."
        )
    lock = WriterLock(folder)
    lock.acquire()
    return lock


def _open_manifest(folder: Path, config: Mapping[str, Any] | None) -> Manifest:
    if not (folder / MANIFEST_NAME).exists():
        manifest = Manifest(config_hash=hash_config(config or {}), config=dict(config or {}))
        write_manifest(folder, manifest)
        return manifest
    manifest = read_manifest(folder)
    if config is not None and hash_config(config) != manifest.config_hash:
        changed = sorted(name for name in {*config, *manifest.config} if config.get(name) != manifest.config.get(name))
        raise PairStoreError(
            f"The dataset {folder} was made with other settings ({', '.join(changed)}). Use the old ones to go on with it, "
            "or another folder."
        )
    return manifest


def _remove_left_overs(folder: Path, manifest: Manifest) -> None:
    """Remove what a process that died left behind: no manifest names it, and its units are made again."""
    known = {name for entry in manifest.shards for name, _ in entry.files()}
    for part in [*folder.glob(f".*{PART_SUFFIX}"), *folder.glob(f"*/.*{PART_SUFFIX}")]:
        part.unlink(missing_ok=True)
    for kind in ("shards", "ledger"):
        for path in sorted(folder.glob(f"{kind}/*.parquet")):
            if _OUR_FILE.fullmatch(path.name) and f"{kind}/{path.name}" not in known:
                path.unlink()
