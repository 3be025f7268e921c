"""What two pictures have in common: exactly the same pixels, or nearly the same look (a difference hash).

The difference hash is the well known 64-bit dHash: shrink to 9x8 grey cells, one bit for each cell that is brighter than
its right neighbour. It sees shapes and layout, not colours; pictures without structure all have the hash 0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy
from PIL import Image

Numbers = numpy.ndarray
_NUM_BANDS = 4
_BLOCK = 1024


class Fingerprint(NamedTuple):
    """Two 64-bit numbers for one picture."""

    pixels: int  # hash of size and pixels: equal exactly for equal pictures
    dhash: int


def fingerprint(picture: Image.Image) -> Fingerprint:
    """Compute both hashes of a picture (8 bit, L or RGB)."""
    rgb = picture.convert("RGB")
    digest = hashlib.sha256(f"{rgb.size}".encode() + rgb.tobytes()).digest()
    return Fingerprint(int.from_bytes(digest[:8], "big"), dhash(rgb))


def dhash(picture: Image.Image) -> int:
    """Compute the 64-bit difference hash of a picture."""
    grey = numpy.asarray(picture.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=numpy.int16)
    bits = (grey[:, :-1] > grey[:, 1:]).reshape(-1)
    return int.from_bytes(numpy.packbits(bits).tobytes(), "big")


def equal_groups(*columns: Numbers) -> list[list[int]]:
    """Group rows that are equal in all columns.

    Args:
        *columns: numbers [N] each.

    Returns:
        The groups of two rows and more, as row indices.
    """
    rows = numpy.stack(columns, axis=1)
    _, inverse = numpy.unique(rows, axis=0, return_inverse=True)
    return _collect(inverse.reshape(-1))


def similar_groups(original: Numbers, edited: Numbers, max_distance: int = 3) -> list[list[int]]:
    """Group pairs whose two hashes together differ in at most `max_distance` of 128 bits, directly or by a chain.

    Of 4 bands of 32 bits at least one is equal where at most 3 bits differ, so only rows with an equal band are compared.

    Args:
        original: difference hashes [N], uint64.
        edited: difference hashes [N], uint64.
        max_distance: 0 to 3.

    Returns:
        The groups of two rows and more, as row indices.

    Raises:
        ValueError: if the distance is out of range.
    """
    if not 0 <= max_distance < _NUM_BANDS:
        raise ValueError(f"max_distance is {max_distance}; it must be 0 to {_NUM_BANDS - 1}.")
    unique, inverse = numpy.unique(numpy.stack([original, edited], axis=1), axis=0, return_inverse=True)
    parents = numpy.arange(len(unique))
    for bucket in _buckets(unique):
        for one, other in _close(unique, bucket, max_distance):
            parents[_root(parents, one)] = _root(parents, other)
    roots = numpy.array([_root(parents, i) for i in range(len(unique))], dtype=numpy.int64)
    return _collect(roots[inverse.reshape(-1)])


def _buckets(unique: Numbers) -> Iterator[Numbers]:
    low = numpy.uint64(0xFFFFFFFF)
    for band in (unique >> numpy.uint64(32), unique & low):
        for column in (0, 1):
            order = numpy.argsort(band[:, column], kind="stable")
            edges = numpy.flatnonzero(numpy.diff(band[order, column])) + 1
            yield from (bucket for bucket in numpy.split(order, edges) if len(bucket) > 1)


def _close(unique: Numbers, bucket: Numbers, max_distance: int) -> Iterator[tuple[int, int]]:
    """Compare all rows of a bucket, in blocks so that memory stays small."""
    for start in range(0, len(bucket), _BLOCK):
        block = unique[bucket[start : start + _BLOCK]]
        for from_row in range(start, len(bucket), _BLOCK):
            others = unique[bucket[from_row : from_row + _BLOCK]]
            distance = _count_bits(block[:, None, :] ^ others[None, :, :]).sum(axis=-1)
            for i, j in zip(*numpy.nonzero(distance <= max_distance), strict=True):
                if start + i < from_row + j:
                    yield int(bucket[start + i]), int(bucket[from_row + j])


def _count_bits(values: Numbers) -> Numbers:
    """Count the ones of 64-bit numbers, as numpy before 2.0 cannot."""
    table = numpy.array([bin(i).count("1") for i in range(256)], dtype=numpy.uint8)
    counts: Numbers = table[numpy.ascontiguousarray(values).view(numpy.uint8).reshape(*values.shape, 8)].sum(axis=-1)
    return counts


def _root(parents: Numbers, i: int) -> int:
    while parents[i] != i:
        parents[i] = parents[parents[i]]
        i = int(parents[i])
    return i


def _collect(labels: Numbers) -> list[list[int]]:
    order = numpy.argsort(labels, kind="stable")
    edges = numpy.flatnonzero(numpy.diff(labels[order])) + 1
    groups: Sequence[Numbers] = numpy.split(order, edges)
    return [group.tolist() for group in groups if len(group) > 1]
