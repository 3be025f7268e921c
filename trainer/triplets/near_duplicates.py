"""Texts that say nearly the same: MinHash with banding (Broder 1997; Leskovec et al., Mining of Massive Datasets, chapter 3).

A text is the set of its words and of its pairs of neighbouring words. Texts that agree in one band of the signature are
compared exactly. Each band remembers the first text of a kind, so that half a million texts need some hundred megabytes.
"""

from __future__ import annotations

import itertools
import re
import zlib

import numpy as np
from numpy.typing import NDArray

from ...ip2p_core.errors import ConfigError

NUM_BANDS, ROWS = 8, 3
"""Texts of similarity s meet with probability 1 - (1 - s³)⁸: .9999 at .9, .997 at .8, .66 at .5, where they are found different."""

_PRIME = np.uint64(2**31 - 1)
_WORD = re.compile(r"\w+")
_rng = np.random.default_rng(0)
_FACTORS = _rng.integers(1, 2**31 - 1, NUM_BANDS * ROWS).astype(np.uint64)
_OFFSETS = _rng.integers(0, 2**31 - 1, NUM_BANDS * ROWS).astype(np.uint64)
_Hashes = NDArray[np.uint32]


def shingles(text: str) -> _Hashes:
    """Hash the words of a text and its pairs of neighbouring words; sorted, each once."""
    found = _WORD.findall(text.casefold())
    both = [*found, *map(" ".join, itertools.pairwise(found))]
    return np.array(sorted({zlib.crc32(one.encode()) for one in both}), dtype=np.uint32)


def similarity(first: _Hashes, second: _Hashes) -> float:
    """Jaccard similarity of two sets of hashes, in [0, 1]."""
    shared = np.intersect1d(first, second, assume_unique=True).size
    return shared / max(1, first.size + second.size - shared)


class NearDuplicates:
    """Remembers texts, and finds those that are nearly the same.

    Args:
        threshold: Jaccard similarity from which on two texts are nearly the same, in (0, 1].
    """

    def __init__(self, threshold: float) -> None:
        if not 0 < threshold <= 1:
            raise ConfigError(f"The threshold of near duplicates is {threshold:g}; it must be above 0 and at most 1.")
        self._threshold = threshold
        self._bands: list[dict[int, int]] = [{} for _ in range(NUM_BANDS)]
        self._texts: list[_Hashes] = []

    def find_or_add(self, text: str) -> int | None:
        """Find an earlier text that is nearly the same, or remember this one.

        Args:
            text: of any length.

        Returns:
            The number of the earlier one, counted from 0 over the remembered ones; None where there is none.
        """
        found = shingles(text)
        keys = _band_keys(found)
        for candidate in {band[key] for band, key in zip(self._bands, keys, strict=True) if key in band}:
            if similarity(found, self._texts[candidate]) >= self._threshold:
                return candidate
        for band, key in zip(self._bands, keys, strict=True):
            band.setdefault(key, len(self._texts))
        self._texts.append(found)
        return None


def _band_keys(found: _Hashes) -> list[int]:
    if not found.size:
        return [0] * NUM_BANDS
    hashes = found.astype(np.uint64)[:, None] % _PRIME
    signature = ((hashes * _FACTORS + _OFFSETS) % _PRIME).min(0).reshape(NUM_BANDS, ROWS)
    # three numbers of 31 bits as one of 64: the last ones wrap around, which mixes as well
    mixed = (signature[:, 0] * np.uint64(0x9E3779B97F4A7C15)) ^ (signature[:, 1] << np.uint64(32)) ^ signature[:, 2]
    keys: list[int] = mixed.tolist()
    return keys
