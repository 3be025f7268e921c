"""Pairs that are there more than once, exactly or nearly, and pairs in which nothing changed; from the ledger alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy
import pyarrow
from pyarrow import compute

from .fingerprint import equal_groups, similar_groups
from .reader import PairStore

_COLUMNS = [
    "prompt_id",
    "sample_index",
    "is_accepted",
    "original_pixels",
    "edited_pixels",
    "original_dhash",
    "edited_dhash",
]
Key = tuple[str, int]


class Duplicates(NamedTuple):
    """Groups of pairs, each of two and more."""

    exact: list[list[Key]]  # both pictures equal, pixel by pixel
    similar: list[list[Key]]  # both pictures look alike, but not exact
    unchanged: list[Key]  # the edited picture equals the original

    def describe(self) -> str:
        """Say in one line how many there are."""
        return (
            f"{_extra(self.exact)} pairs repeat another one exactly, {_extra(self.similar)} look like another one, "
            f"{len(self.unchanged)} show no change"
        )


def _extra(groups: list[list[Key]]) -> int:
    return sum(len(group) - 1 for group in groups)


def find_duplicates(store: PairStore) -> Duplicates:
    """Find duplicates by the fingerprints that were taken when the pairs were written; no picture is decoded.

    Args:
        store: the dataset; pairs rejected by hand are left out.

    Returns:
        The groups.

    Raises:
        PairStoreError: if a ledger is missing or damaged.
    """
    keys: list[Key] = []
    blocks: list[list[numpy.ndarray]] = []
    for batch in store.ledger(_COLUMNS):
        accepted = pyarrow.Table.from_batches([batch]).filter(compute.field("is_accepted"))
        rows = list(zip(accepted["prompt_id"].to_pylist(), accepted["sample_index"].to_pylist(), strict=True))
        kept = numpy.array([not store.manifest.is_rejected(*key) for key in rows], dtype=bool)
        keys.extend(key for key, is_kept in zip(rows, kept, strict=True) if is_kept)
        blocks.append([accepted[name].to_numpy()[kept].astype(numpy.uint64) for name in _COLUMNS[3:]])
    if not keys:
        return Duplicates([], [], [])
    original, edited, original_dhash, edited_dhash = (numpy.concatenate(column) for column in zip(*blocks, strict=True))
    exact = equal_groups(original, edited)
    is_repeated = numpy.zeros(len(keys), dtype=bool)
    for group in exact:
        is_repeated[group[1:]] = True
    first = numpy.flatnonzero(~is_repeated)
    similar = similar_groups(original_dhash[first], edited_dhash[first])
    return Duplicates(
        exact=[[keys[i] for i in group] for group in exact],
        similar=[[keys[first[i]] for i in group] for group in similar],
        unchanged=[keys[i] for i in numpy.flatnonzero(original == edited)],
    )
