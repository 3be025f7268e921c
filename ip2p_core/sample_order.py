"""Which pairs a training sees when, and what is drawn for each: pure functions of (seed, epoch, row).

Nothing here depends on how many processes share the work, how many workers read data, or where a run was resumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .randomness import NUM_SEEDS, generator, hash64


class Visit(NamedTuple):
    """One pair, the so manieth time it is seen."""

    epoch: int
    row: int


@dataclass(frozen=True)
class SampleOrder:
    """The order of a training. Every micro-batch is of one bucket, whose pairs have the same size.

    Within the epoch of a bucket every pair comes once, in an order of that epoch; micro-batches go on over its end.
    Buckets alternate by chance, each as often as it has pairs.
    """

    seed: int
    buckets: tuple[np.ndarray, ...]
    """Rows of each bucket, in the order of the dataset."""
    micro_batch_size: int

    def micro_batches(self, first: int, count: int) -> list[list[Visit]]:
        """List what micro-batches hold.

        Args:
            first: number of the first one, counted from the start of the training.
            count: how many.

        Returns:
            The pairs of each.
        """
        bucket_of, position = self._buckets_until(first + count)
        size = self.micro_batch_size
        batches = []
        for number in range(first, first + count):
            bucket, start = int(bucket_of[number]), int(position[number]) * size
            batches.append([self._visit(bucket, start + i) for i in range(size)])
        return batches

    def _buckets_until(self, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Bucket of each micro-batch, and how many of that bucket came before it."""
        if len(self.buckets) == 1:
            return np.zeros(stop, np.int64), np.arange(stop)
        shares = np.cumsum([len(rows) for rows in self.buckets], dtype=np.float64)
        draws = np.random.Generator(np.random.Philox(key=hash64(self.seed, "bucket"))).random(stop)
        bucket_of = np.searchsorted(shares / shares[-1], draws, side="right")
        position = np.empty(stop, np.int64)
        for bucket in range(len(self.buckets)):
            chosen = bucket_of == bucket
            position[chosen] = np.arange(int(chosen.sum()))
        return bucket_of, position

    def _visit(self, bucket: int, ordinal: int) -> Visit:
        rows = self.buckets[bucket]
        epoch, place = divmod(ordinal, len(rows))
        return Visit(epoch, int(rows[_permutation(self.seed, bucket, epoch, len(rows))[place]]))


@lru_cache(maxsize=8)
def _permutation(seed: int, bucket: int, epoch: int, size: int) -> np.ndarray:
    return torch.randperm(size, generator=generator(seed, "order", bucket, epoch)).numpy()


def group_by_shape(shapes: Sequence[tuple[int, int]]) -> tuple[np.ndarray, ...]:
    """Sort rows into buckets by (height, width), the most frequent first.

    Args:
        shapes: of every row.

    Returns:
        Rows of each bucket.
    """
    found: dict[tuple[int, int], list[int]] = {}
    for row, shape in enumerate(shapes):
        found.setdefault(shape, []).append(row)
    ordered = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
    return tuple(np.array(rows, np.int64) for _, rows in ordered)


class VisitDraws(NamedTuple):
    """What is drawn for one visit of a pair, for the training step; crops and flips are `Crop`'s."""

    t: Tensor
    """Training step, an integer scalar."""
    noise: Tensor
    """Unit noise [C, h, w]."""
    posterior: Tensor
    """Unit noise [C, h, w] of the autoencoder's posterior."""
    u: Tensor
    """Uniform in [0, 1): decides the dropout."""
    is_start: Tensor
    """Whether it is noised as sampling starts."""


def draw_visit(
    seed: int, visit: Visit, shape: Sequence[int], num_t: int = 1000, start_share: float = 0.0
) -> VisitDraws:
    """Draw what one visit of a pair needs.

    Args:
        seed: of the training.
        visit: the pair and its epoch.
        shape: C, h, w of its latents.
        num_t: training steps of the noise schedule.
        start_share: share of the visits that are noised as sampling starts; these have the last t.

    Returns:
        The draws, on the CPU; the noise float32, u float64.
    """
    random = generator(seed, "visit", visit.epoch, visit.row)
    noise, posterior = torch.randn((2, *shape), generator=random)
    u, start = torch.rand(2, generator=random, dtype=torch.float64).unbind()
    t = torch.randint(0, num_t, (), generator=random)
    is_start = start < start_share
    return VisitDraws(torch.where(is_start, num_t - 1, t), noise, posterior, u, is_start)


class Crop(NamedTuple):
    """How a pair is cut out: the same for both pictures and the mask."""

    side: int
    """The shorter side becomes so many pixels."""
    x: float
    y: float
    """Where the crop lies in what is left over, in [0, 1)."""
    is_flipped: bool


def draw_crop(seed: int, view: int | None, visit: Visit, resize: tuple[int, int], flip: float) -> Crop:
    """Draw how a pair is cut out.

    Args:
        seed: of the training.
        view: number of a cached view, the same in all epochs; None for a crop of this visit alone.
        visit: the pair and its epoch.
        resize: smallest and largest side in pixels.
        flip: probability of a mirrored pair.

    Returns:
        The crop.
    """
    purpose = ("crop", "view", view) if view is not None else ("crop", visit.epoch)
    random = generator(seed, *purpose, visit.row)
    side = int(torch.randint(resize[0], resize[1] + 1, (), generator=random))
    x, y, mirrored = torch.rand(3, generator=random, dtype=torch.float64).tolist()
    return Crop(side, x, y, mirrored < flip)


def draw_view(seed: int, visit: Visit, num_views: int) -> int:
    """Choose which of the cached views a visit takes."""
    return hash64(seed % NUM_SEEDS, "view", visit.epoch, visit.row) % num_views
