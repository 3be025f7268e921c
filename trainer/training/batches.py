"""Micro-batches: what one forward and backward learns from, put together by worker processes ahead of time.

Shapes: B pairs, C latent channels, h w in latent cells, H W in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ...ip2p_core.sample_order import SampleOrder, Visit, VisitDraws, draw_view, draw_visit
from ..edit_backend import Editor
from ..worker_context import worker_context
from .latents import CropSettings, LatentCache, PairLatents, load_cropped
from .pictures import CroppedPair, EditPairs


class MicroBatch(NamedTuple):
    """A pure function of (seed, number of the micro-batch)."""

    visits: list[Visit]
    latents: PairLatents | None
    """From the cache; None where pictures are encoded on the way."""
    cropped: list[CroppedPair | None]
    """Pictures to encode; empty with a cache."""
    shape: tuple[int, int]
    """Height and width in pixels."""
    instructions: Tensor
    """Number of the instruction of each pair [B]."""
    weights: Tensor
    """Weight of each pair in the loss [B]."""
    t: Tensor
    """[B], integers."""
    noise: Tensor
    """[B, C, h, w]."""
    posterior: Tensor
    """[B, C, h, w]."""
    u: Tensor
    """[B]."""
    starts: Tensor
    """[B]."""


@dataclass(frozen=True, kw_only=True)
class BatchSettings:
    """What micro-batches are made of."""

    seed: int
    factor: int
    """Pixels per latent cell."""
    channels: int
    """Of the latents."""
    num_t: int
    start_share: float
    crops: CropSettings

    @classmethod
    def of(cls, editor: Editor, seed: int, start_share: float, crops: CropSettings) -> BatchSettings:
        """Take the shape of the latents and the length of the schedule from a model."""
        return cls(
            seed=seed,
            factor=editor.config.vae_factor,
            channels=int(editor.config.vae.get("latent_channels", 4)),
            num_t=len(editor.schedule.alphas_cumprod),
            start_share=start_share,
            crops=crops,
        )

    def draw(self, visits: Sequence[Visit], shape: tuple[int, int]) -> VisitDraws:
        """Draw what all pairs of a micro-batch need, stacked; `shape` is height and width in pixels."""
        cells = self.channels, shape[0] // self.factor, shape[1] // self.factor
        draws = [draw_visit(self.seed, visit, cells, self.num_t, self.start_share) for visit in visits]
        return VisitDraws(*(torch.stack(part) for part in zip(*draws, strict=True)))


class MicroBatches(Dataset[MicroBatch]):
    """Makes micro-batches by their number; a worker process holds a copy.

    Args:
        pairs: the split.
        order: which pairs come when.
        shapes: height and width in pixels of each bucket.
        settings: what is drawn.
        cache: encoded pairs; None to encode on the way.
        weights: of every pair in the loss; None for 1 each.
    """

    def __init__(
        self,
        pairs: EditPairs,
        order: SampleOrder,
        shapes: Sequence[tuple[int, int]],
        settings: BatchSettings,
        cache: LatentCache | None,
        weights: Tensor | None = None,
    ) -> None:
        self.pairs, self.order, self.settings, self.cache, self.weights = pairs, order, settings, cache, weights
        self._shape_of_row = {
            int(row): shape for rows, shape in zip(order.buckets, shapes, strict=True) for row in rows
        }

    def __getitem__(self, number: int) -> MicroBatch:
        """Make one micro-batch."""
        visits = self.order.micro_batches(number, 1)[0]
        rows = [visit.row for visit in visits]
        shape = self._shape_of_row[rows[0]]
        latents, cropped = self._load(visits, shape)
        weights = torch.ones(len(rows)) if self.weights is None else self.weights[rows]
        is_usable = torch.tensor([one is not None for one in cropped]) if latents is None else latents.is_usable
        return MicroBatch(
            visits,
            latents,
            cropped,
            shape,
            torch.tensor([self.pairs.instruction_number(self.settings.seed, visit) for visit in visits]),
            weights * is_usable,
            *self.settings.draw(visits, shape),
        )

    def _load(self, visits: list[Visit], shape: tuple[int, int]) -> tuple[PairLatents | None, list[CroppedPair | None]]:
        seed, crops = self.settings.seed, self.settings.crops
        if self.cache is None:
            return None, [load_cropped(self.pairs, visit, shape, crops, seed=seed, view=None) for visit in visits]
        views = self.cache.num_views
        read = [self.cache.read(visit.row, draw_view(seed, visit, views)) for visit in visits]
        return PairLatents(*(torch.stack(part) for part in zip(*read, strict=True))), []


def numbers_of_step(step: int, per_step: int, rank: int, num_ranks: int) -> list[int]:
    """Say which micro-batches one process works on in one optimizer step.

    Args:
        step: number of the step.
        per_step: micro-batches of a step, over all processes.
        rank: number of this process.
        num_ranks: how many processes there are; `per_step` is a multiple of it.

    Returns:
        Numbers counted from the start of the training.
    """
    return list(range(step * per_step + rank, (step + 1) * per_step, num_ranks))


def load_ahead(
    batches: MicroBatches, numbers: Sequence[int], num_workers: int, *, is_pinned: bool
) -> Iterator[MicroBatch]:
    """Make micro-batches in order, ahead of time where there are worker processes.

    Args:
        batches: makes them.
        numbers: which ones.
        num_workers: processes; 0 makes each when it is asked for.
        is_pinned: keep them where a GPU can fetch them.

    Returns:
        The micro-batches.
    """
    options: dict[str, Any] = {}
    if num_workers:
        # without a cache Parquet is read, whose threads do not survive a fork of this process
        context = worker_context([__name__]) if batches.cache is None else None
        options = {"prefetch_factor": 4, "persistent_workers": True, "multiprocessing_context": context}
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=numbers,
        num_workers=num_workers,
        pin_memory=is_pinned,
        **options,
    )
    return iter(loader)
