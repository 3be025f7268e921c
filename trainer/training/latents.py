"""Pairs as the U-Net sees them: latents of both pictures, encoded on the way or read from a cache on the disk.

Shapes: B pairs, C latent channels, h w in latent cells, K cached views of a pair.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn import functional

from ...ip2p_core.checkpoint_files import write_tensors
from ...ip2p_core.errors import CheckpointError, PictureError
from ...ip2p_core.sample_order import Visit, draw_crop
from ..edit_backend import DiffusersCodec
from .pictures import CroppedPair, EditPairs

logger = logging.getLogger(__name__)

SHARD_ROWS, ENCODE_BATCH = 256, 16
VIEW_SEED = 0
"""Cached crops do not depend on the seed of a training: runs with several seeds share a cache."""


class PairLatents(NamedTuple):
    """Latents of pairs, unscaled."""

    original: Tensor
    """Mode of the posterior [B, C, h, w]."""
    edited_mean: Tensor
    """[B, C, h, w]."""
    edited_std: Tensor
    """[B, C, h, w]."""
    mask: Tensor
    """[B, 1, h, w] in [0, 1]: where the edit may change the picture; 1 everywhere without a mask."""
    is_usable: Tensor
    """[B]: False for pairs that could not be read, whose latents are 0."""


@dataclass(frozen=True, kw_only=True)
class CropSettings:
    """How pairs are cut out before they are encoded."""

    resize: tuple[int, int]
    flip: float
    is_skipping: bool
    """Pairs that cannot be read become unusable, instead of an error."""
    is_with_mask: bool


@torch.no_grad()
def encode_pairs(codec: DiffusersCodec, pairs: Sequence[CroppedPair | None], shape: tuple[int, int]) -> PairLatents:
    """Encode cropped pairs; equal pictures, such as the original of several edits, once.

    Args:
        codec: the autoencoder.
        pairs: all of one size; None for one that could not be read.
        shape: height and width in pixels.

    Returns:
        The latents, on the device of the codec.
    """
    empty = torch.zeros(3, *shape)
    pictures = [one.original if one else empty for one in pairs] + [one.edited if one else empty for one in pairs]
    places: dict[bytes, int] = {}
    rows = [places.setdefault(_digest(picture), len(places)) for picture in pictures]
    firsts = [rows.index(place) for place in range(len(places))]
    mean, std = (value[rows] for value in codec.posterior(torch.stack([pictures[first] for first in firsts])))
    original, edited = mean.chunk(2)
    masks = torch.stack([torch.ones(1, *shape) if one is None or one.mask is None else one.mask for one in pairs])
    is_usable = torch.tensor([one is not None for one in pairs], device=mean.device)
    zero = ~is_usable.reshape(-1, 1, 1, 1)
    return PairLatents(
        original.masked_fill(zero, 0),
        edited.masked_fill(zero, 0),
        std.chunk(2)[1],
        functional.interpolate(masks, size=mean.shape[-2:], mode="area").to(mean.device),
        is_usable,
    )


def _digest(picture: Tensor) -> bytes:
    return hashlib.blake2b(picture.numpy().tobytes(), digest_size=16).digest()


def load_cropped(
    pairs: EditPairs, visit: Visit, shape: tuple[int, int], settings: CropSettings, *, seed: int, view: int | None
) -> CroppedPair | None:
    """Read and cut out one pair; None if it cannot be read and that may be.

    Args:
        pairs: the split.
        visit: which pair, and when.
        shape: height and width in pixels.
        settings: how it is cut.
        seed: of the crops.
        view: number of the cached view; None for a crop of this visit alone.

    Returns:
        The pair.

    Raises:
        PictureError: if it cannot be read.
    """
    crop = draw_crop(seed, view, visit, settings.resize, settings.flip)
    try:
        return pairs.load(visit.row, crop, shape, is_with_mask=settings.is_with_mask)
    except PictureError as error:
        if not settings.is_skipping:
            raise
        logger.warning("a pair is skipped: %s", error)
        return None


@dataclass
class LatentCache:
    """Latents of K views of every pair, in safetensors files of `SHARD_ROWS` pairs of one bucket.

    A file is either there as a whole or not at all; building goes on where it stopped, several processes may share it.
    """

    folder: Path
    buckets: Sequence[np.ndarray]
    """Rows of each bucket."""
    shapes: Sequence[tuple[int, int]]
    """Height and width in pixels of each bucket."""
    num_views: int
    key: str
    """Identifies pairs, autoencoder and crops."""
    _place: dict[int, tuple[int, int]] = field(default_factory=dict)
    _mapped: dict[int, PairLatents] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for number, (_, rows) in enumerate(self.parts()):
            self._place.update({int(row): (number, i) for i, row in enumerate(rows)})

    def parts(self) -> list[tuple[int, np.ndarray]]:
        """List bucket and rows of every file."""
        return [
            (bucket, rows[first : first + SHARD_ROWS])
            for bucket, rows in enumerate(self.buckets)
            for first in range(0, len(rows), SHARD_ROWS)
        ]

    def path(self, number: int) -> Path:
        """Return the place of a file."""
        return self.folder / f"latents-{number:06d}.safetensors"

    def is_built(self, number: int) -> bool:
        """Say whether a file is there, whole, and of this cache."""
        try:
            with safe_open(self.path(number), "pt") as opened:
                return bool((opened.metadata() or {}).get("key") == self.key)
        except (OSError, SafetensorError):
            return False

    def build(
        self,
        pairs: EditPairs,
        codec: DiffusersCodec,
        settings: CropSettings,
        *,
        share: tuple[int, int] = (0, 1),
        report: Callable[[int, int], None] = lambda _done, _all: None,
    ) -> None:
        """Encode what is missing.

        Args:
            pairs: the split.
            codec: the autoencoder.
            settings: how pairs are cut out.
            share: number of this process, and how many there are.
            report: called with the number of finished files and of all.

        Raises:
            PictureError: if a pair cannot be read, and that may not be.
            CheckpointError: if the disk is full.
        """
        parts = self.parts()
        for number in range(share[0], len(parts), share[1]):
            if not self.is_built(number):
                bucket, rows = parts[number]
                self._build_file(number, rows, self.shapes[bucket], pairs, codec, settings)
            report(number + 1, len(parts))

    def _build_file(
        self,
        number: int,
        rows: np.ndarray,
        shape: tuple[int, int],
        pairs: EditPairs,
        codec: DiffusersCodec,
        settings: CropSettings,
    ) -> None:
        visits = [(Visit(0, int(row)), view) for row in rows for view in range(self.num_views)]
        encoded = []
        for first in range(0, len(visits), ENCODE_BATCH):
            cropped = [
                load_cropped(pairs, visit, shape, settings, seed=VIEW_SEED, view=view)
                for visit, view in visits[first : first + ENCODE_BATCH]
            ]
            encoded.append(encode_pairs(codec, cropped, shape))
        joined = PairLatents(*(torch.cat(part).cpu() for part in zip(*encoded, strict=True)))
        tensors = {
            name: value.reshape(len(rows), self.num_views, *value.shape[1:]) for name, value in joined._asdict().items()
        }
        halves = {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
        write_tensors(self.path(number), halves, {"key": self.key})

    def read(self, row: int, view: int) -> PairLatents:
        """Read one view of one pair.

        Args:
            row: which pair.
            view: which view.

        Returns:
            Latents without the batch dimension, float16.

        Raises:
            CheckpointError: if the file is gone or damaged.
        """
        number, place = self._place[row]
        try:
            mapped = self._mapped.get(number)
            if mapped is None:
                opened: Any = safe_open(self.path(number), "pt")
                mapped = self._mapped[number] = PairLatents(*(opened.get_tensor(name) for name in PairLatents._fields))
            return PairLatents(*(value[place, view] for value in mapped))
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"The cache file {self.path(number)} cannot be read ({error}). Delete it and start again; it is built anew."
            ) from None

    def __getstate__(self) -> dict[str, Any]:
        """Mapped files stay in their process."""
        return {**vars(self), "_mapped": {}}


def cache_key(data_hash: str, vae: Any, settings: CropSettings, shapes: Sequence[tuple[int, int]], views: int) -> str:
    """Identify what a cache holds.

    Args:
        data_hash: of the pairs.
        vae: the autoencoder, a module.
        settings: how pairs are cut out.
        shapes: of the buckets.
        views: per pair.

    Returns:
        16 digits.
    """
    digest = hashlib.sha256()
    for name, value in sorted(vae.state_dict().items()):
        digest.update(name.encode() + value.detach().float().cpu().contiguous().numpy().tobytes())
    record = [data_hash, vars(settings), [list(shape) for shape in shapes], views, str(next(vae.parameters()).dtype)]
    digest.update(json.dumps(record, sort_keys=True).encode())
    return digest.hexdigest()[:16]
