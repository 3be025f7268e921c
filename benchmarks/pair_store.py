"""`python -m ip2p.benchmarks.pair_store [ROWS]`: a dataset of tiny pairs: writing, opening, counting, reading, memory.

Goals for 100,000 rows: opens in under 1 s, statistics in seconds, memory flat while writing and reading.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy
from PIL import Image

from ..ip2p_core.pair_record import ImageBytes, PairRecord, PairScores, encode_png, pair_seed
from ..ip2p_core.pair_store import PairStore, PairWriter, SaveLimits, Unit
from ..ip2p_core.pair_store.duplicates import find_duplicates
from ..ip2p_core.pair_store.statistics import compute_statistics
from ..ip2p_core.triplet import Triplet, prompt_id
from .timing import say

SAMPLES_PER_PROMPT, SIDE = 4, 8
Result = TypeVar("Result")


def main(num_rows: int) -> None:
    """Write a dataset and use it.

    Args:
        num_rows: pairs.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "pairs"
        _timed(f"write the first tenth of {num_rows} pairs", lambda: _write(folder, 0, num_rows // 10))
        _timed("write the rest", lambda: _write(folder, num_rows // 10, num_rows))
        store = _timed("open", lambda: PairStore(folder))
        _timed("open to go on writing", lambda: _write(folder, num_rows, num_rows))
        _timed("statistics", lambda: compute_statistics(store))
        found = _timed("duplicates", lambda: find_duplicates(store))
        count = _timed("read all records", lambda: sum(1 for _ in store.records()))
        size = _timed("read all records and pictures", lambda: sum(len(one.original.read()) for one in store.records()))
        say(f"{count} records, {size} bytes of originals, {len(store.manifest.shards)} shards; {found.describe()}")


def _write(folder: Path, start: int, stop: int) -> None:
    draw = numpy.random.default_rng(start)
    with PairWriter(folder, {}, SaveLimits(rows=2000, seconds=1e9)) as writer:
        for first in range(start, stop, SAMPLES_PER_PROMPT):
            texts = Triplet(f"a cat number {first}", "make it a dog", f"a dog number {first}")
            name = prompt_id(texts)
            records = [_record(texts, name, index, draw) for index in range(min(SAMPLES_PER_PROMPT, stop - first))]
            writer.add(Unit(name, 0, len(records)), records)


def _record(texts: Triplet, name: str, index: int, draw: numpy.random.Generator) -> PairRecord:
    pixels = draw.integers(0, 256, (2, SIDE, SIDE, 3), dtype=numpy.uint8)
    original, edited = (ImageBytes(encode_png(Image.fromarray(one))) for one in pixels)
    scores = PairScores(0.25, 0.25, 0.8, 0.25)
    return PairRecord(name, index, texts, pair_seed(0, name, index), 0.5, 7.5, "bench", scores, original, edited)


def _timed(name: str, work: Callable[[], Result]) -> Result:
    start = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    say(f"{name:40} {seconds:8.2f} s   {peak:6.0f} MiB at the peak so far")
    return result


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
