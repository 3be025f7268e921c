"""Rejecting pairs by hand: the list that the browsing page gives, and the two ways to apply it.

Nothing is ever deleted: either the manifest remembers the rejected pairs and readers leave them out (the pictures stay,
and the list can be taken back), or a new dataset is written without them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import PairStoreError
from ..pair_record import PairRecord
from .durable_files import WriterLock
from .ledger import NOT_MADE, Candidate, Unit, ledger_batches
from .manifest import Manifest, read_manifest, write_manifest
from .reader import PairStore
from .schema import scores_of
from .writer import PairWriter

LIST_FORMAT = "ip2p.rejected_pairs"
REJECTED_BY_HAND = "rejected_by_hand"
_NUM_LISTED = 3


def read_rejections(path: Path) -> list[tuple[str, int]]:
    """Read a list of rejected pairs.

    Args:
        path: JSON {"format": "ip2p.rejected_pairs", "rejected": [{"prompt_id": ..., "sample_index": ...}, ...]}.

    Returns:
        The keys, each once, in order.

    Raises:
        PairStoreError: if it is no such file.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PairStoreError(
            f"The list {path} cannot be read as JSON ({error}). Download it again from the page."
        ) from None
    if not isinstance(record, dict) or record.get("format") != LIST_FORMAT:
        raise PairStoreError(f"{path} is no list of rejected pairs. Use the file that the browsing page downloads.")
    try:
        keys = [(str(one["prompt_id"]), int(one["sample_index"])) for one in record["rejected"]]
    except (KeyError, TypeError, ValueError) as error:
        raise PairStoreError(
            f"The list {path} has an entry without prompt_id or sample_index ({error}). Download it again from the page."
        ) from None
    return list(dict.fromkeys(keys))


def _require_known(store: PairStore, keys: list[tuple[str, int]]) -> None:
    unknown = set(keys) - set(store.pair_keys(is_with_rejected=True)) if keys else set()
    if unknown:
        shown = ", ".join(f"{prompt}/{index}" for prompt, index in sorted(unknown)[:_NUM_LISTED])
        raise PairStoreError(
            f"The dataset {store.folder} has no pair {shown}{' ...' if len(unknown) > _NUM_LISTED else ''} ({len(unknown)} of "
            f"{len(keys)} in the list). Use the list of this dataset."
        )


def reject(folder: Path, keys: list[tuple[str, int]]) -> int:
    """Remember pairs as rejected; readers leave them out from now on, and their pictures stay.

    Args:
        folder: the dataset.
        keys: of pairs in it.

    Returns:
        How many were not rejected before.

    Raises:
        PairStoreError: if a pair is not in the dataset, or another process writes to it.
    """
    _require_known(PairStore(folder), keys)
    return _change(folder, lambda old: old | set(keys))


def restore(folder: Path, keys: list[tuple[str, int]]) -> int:
    """Take back rejections.

    Args:
        folder: the dataset.
        keys: of pairs in it.

    Returns:
        How many were rejected before.

    Raises:
        PairStoreError: if a pair is not in the dataset, or another process writes to it.
    """
    _require_known(PairStore(folder), keys)
    return -_change(folder, lambda old: old - set(keys))


def _change(folder: Path, change: Callable[[set[tuple[str, int]]], set[tuple[str, int]]]) -> int:
    lock = WriterLock(folder)
    lock.acquire()
    try:
        manifest = read_manifest(folder)
        old = {(prompt, index) for prompt, indices in manifest.rejected.items() for index in indices}
        new = change(old)
        rejected: dict[str, list[int]] = {}
        for prompt, index in sorted(new):
            rejected.setdefault(prompt, []).append(index)
        write_manifest(folder, Manifest(**{**vars(manifest), "rejected": rejected}))
    finally:
        lock.release()
    return len(new) - len(old)


def copy_without(folder: Path, keys: list[tuple[str, int]], output: Path) -> int:
    """Write a new dataset without some pairs; its ledger remembers them as rejected by hand.

    Pairs that the old manifest calls rejected stay out too. An interrupted copy goes on where it stopped.

    Args:
        folder: the dataset; it is not changed.
        keys: of pairs in it.
        output: the new dataset.

    Returns:
        How many pairs the new dataset holds.

    Raises:
        PairStoreError: if a pair is not in the dataset, or the new one cannot be written.
    """
    store = PairStore(folder)
    _require_known(store, keys)
    if output.resolve() == Path(folder).resolve():
        raise PairStoreError(f"The new dataset {output} is the old one. Name another folder after -o.")
    left_out = set(keys)
    with PairWriter(output, config=store.manifest.config) as writer:
        for name, value in store.manifest.notes.items():
            writer.note(name, value)
        for entry in store.manifest.shards:
            records = {record.key: record for record in store.shard_records(entry)}
            for batch in ledger_batches(store.folder, [entry]):
                for row in batch.to_pylist():
                    key = (row["prompt_id"], row["sample_index"])
                    is_left_out = key in left_out or store.manifest.is_rejected(*key)
                    _copy_candidate(writer, row, records.get(key), is_left_out=is_left_out)
    return len(PairStore(output))


def _copy_candidate(writer: PairWriter, row: dict[str, Any], record: PairRecord | None, *, is_left_out: bool) -> None:
    unit = Unit(row["prompt_id"], row["sample_index"], row["sample_index"] + 1)
    if row["is_accepted"] and record is None:
        raise PairStoreError(
            f"The pair {unit.prompt_id}/{unit.start} is in the ledger but in no shard. Run ip2p dataset validate."
        )
    if record is not None and not is_left_out:
        writer.add(unit, [record])
    elif row["reason"] == NOT_MADE:
        writer.add(unit, [])
    else:
        reason = REJECTED_BY_HAND if record is not None else row["reason"]
        names = ("prompt_id", "sample_index", "seed", "p2p_threshold", "text_guidance_scale", "mode")
        made_by = {name: row[name] for name in names}
        writer.add(unit, [], [Candidate(**made_by, scores=scores_of(row), reason=reason)])
