"""Checking a dataset, and dropping the shards that are damaged so that only their pairs are made again."""

from __future__ import annotations

import collections
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..errors import PairStoreError
from ..pair_record import PairRecord
from ..triplet import prompt_id
from .durable_files import WriterLock, describe_write_error, sha256_of
from .manifest import Manifest, ShardEntry, read_manifest, write_manifest
from .parquet_files import iterate_batches
from .reader import PairStore

DROPPED = "dropped"


class Fault(NamedTuple):
    """What is wrong with one shard."""

    shard: str
    reason: str


@dataclass
class Report:
    """The result of a check.

    Attributes:
        num_pairs: pairs in shards that were read.
        faults: what makes a shard unusable.
        left_overs: files that no manifest names; the next writer removes them.
    """

    num_pairs: int = 0
    faults: list[Fault] = field(default_factory=list)
    left_overs: list[str] = field(default_factory=list)

    @property
    def bad_shards(self) -> list[str]:
        """Names of the shards with faults, in order."""
        return list(dict.fromkeys(fault.shard for fault in self.faults))


def validate(folder: Path | str, *, is_deep: bool = True) -> Report:
    """Check every file of a dataset against the manifest, and its content.

    Args:
        folder: the dataset.
        is_deep: also decode every picture and compare texts, ids and ledger; otherwise hashes of files alone.

    Returns:
        What was found.

    Raises:
        PairStoreError: if there is no dataset, or its manifest is damaged.
    """
    store = PairStore(folder)
    report = Report(left_overs=_left_overs(store))
    seen: set[tuple[str, int]] = set()
    for entry in store.manifest.shards:
        try:
            _check_hashes(store.folder, entry)
            if is_deep:
                _check_content(store, entry, seen)
            report.num_pairs += entry.rows
        except PairStoreError as error:
            report.faults.append(Fault(entry.name, str(error)))
    return report


def _left_overs(store: PairStore) -> list[str]:
    known = {name for entry in store.manifest.shards for name, _ in entry.files()}
    found = (f"{kind}/{path.name}" for kind in ("shards", "ledger") for path in store.folder.glob(f"{kind}/*"))
    return sorted(name for name in found if name not in known)


def _check_hashes(folder: Path, entry: ShardEntry) -> None:
    for name, wanted in entry.files():
        if not (folder / name).is_file():
            raise PairStoreError(f"{name} is missing.")
        if sha256_of(folder / name) != wanted:
            raise PairStoreError(f"{name} is not the file that was written: its SHA-256 differs from the manifest's.")


def _check_content(store: PairStore, entry: ShardEntry, seen: set[tuple[str, int]]) -> None:
    keys = []
    for record in store.shard_records(entry):
        _check_record(record)
        if record.key in seen:
            raise PairStoreError(f"The pair {record.prompt_id}/{record.sample_index} is in the dataset twice.")
        seen.add(record.key)
        keys.append(record.key)
    accepted = []
    for batch in iterate_batches(store.folder / entry.ledger_file, ["prompt_id", "sample_index", "is_accepted"]):
        accepted += [(row["prompt_id"], row["sample_index"]) for row in batch.to_pylist() if row["is_accepted"]]
    if collections.Counter(keys) != collections.Counter(accepted):
        raise PairStoreError(f"The pairs of {entry.shard_file} are not those that {entry.ledger_file} calls accepted.")


def _check_record(record: PairRecord) -> None:
    name = f"The pair {record.prompt_id}/{record.sample_index}"
    if prompt_id(record.triplet) != record.prompt_id:
        raise PairStoreError(f"{name} has texts whose prompt_id is {prompt_id(record.triplet)}.")
    sizes = {handle.picture().size for handle in (record.original, record.edited, record.mask) if handle is not None}
    if len(sizes) > 1:
        raise PairStoreError(f"{name} has pictures of different sizes ({sizes}).")


def drop_shards(folder: Path | str, names: list[str]) -> int:
    """Take shards out of a dataset; their units of work count as not done.

    The files are moved into the folder `dropped`, not deleted.

    Args:
        folder: the dataset.
        names: of the shards, as `validate` names them.

    Returns:
        How many pairs are to be made again.

    Raises:
        PairStoreError: if there is no such shard, or another process writes to the dataset.
    """
    folder = Path(folder)
    lock = WriterLock(folder)
    manifest = read_manifest(folder)
    unknown = set(names) - {entry.name for entry in manifest.shards}
    if unknown:
        raise PairStoreError(
            f"The dataset {folder} has no shard {', '.join(sorted(unknown))}. Run ip2p dataset validate."
        )
    lock.acquire()
    try:
        dropped = [entry for entry in manifest.shards if entry.name in names]
        kept = [entry for entry in manifest.shards if entry.name not in names]
        write_manifest(folder, Manifest(**{**vars(manifest), "shards": kept}))
        for entry in dropped:
            for name, _ in entry.files():
                _move_away(folder, name)
    finally:
        lock.release()
    return sum(entry.rows for entry in dropped)


def _move_away(folder: Path, name: str) -> None:
    path = folder / name
    if not path.exists():
        return
    target = folder / DROPPED / name.replace("/", "-")
    try:
        target.parent.mkdir(exist_ok=True)
        path.replace(target)
    except OSError as error:
        raise PairStoreError(describe_write_error(target, error)) from None
