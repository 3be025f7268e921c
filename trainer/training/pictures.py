"""The pairs of one split of a dataset, cut out as the training wants them.

Shapes: H W height and width in pixels.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...ip2p_core.errors import ConfigError, PairStoreError, PictureError
from ...ip2p_core.pair_record import PairRecord
from ...ip2p_core.pair_store import PairStore
from ...ip2p_core.pair_store.validation import Report, validate
from ...ip2p_core.randomness import hash64
from ...ip2p_core.sample_order import Crop, Visit

logger = logging.getLogger(__name__)

BUCKET_STEP = 64
"""Sides of buckets are multiples of so many pixels, or of an eighth of the resolution where that is less."""


class CroppedPair(NamedTuple):
    """One pair, both pictures cut out alike."""

    original: Tensor
    """[3, H, W] in [-1, 1]."""
    edited: Tensor
    """[3, H, W] in [-1, 1]."""
    mask: Tensor | None
    """[1, H, W] in [0, 1]."""


@dataclass(frozen=True)
class EditPairs:
    """The pairs of one split. Pictures are read when they are asked for."""

    records: list[PairRecord]
    data_hash: str
    """Identifies which pairs these are."""
    num_skipped: int = 0
    """Pairs of damaged shards that were left out."""
    wordings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Other wordings of instructions."""

    @classmethod
    def open(
        cls,
        folder: Path,
        split: str,
        *,
        is_skipping: bool = False,
        wordings: Mapping[str, Sequence[str]] | None = None,
    ) -> EditPairs:
        """Open a dataset and check its files against the manifest.

        Args:
            folder: the dataset.
            split: "train", "val" or "test".
            is_skipping: leave out damaged shards instead of refusing them.
            wordings: other wordings of instructions.

        Returns:
            The pairs.

        Raises:
            PairStoreError: if there is no dataset, a shard is damaged, or the split is empty.
        """
        store = PairStore(folder)
        report = validate(folder, is_deep=False)
        if report.faults and not is_skipping:
            raise PairStoreError(
                f"{len(report.bad_shards)} shards of {folder} are damaged: {report.faults[0].reason} Make them again with "
                'ip2p dataset validate --drop and ip2p pairs, or train without them with "damaged": "skip".'
            )
        num_skipped = _drop(store, report)
        records = list(store.records(split))
        if not records:
            raise PairStoreError(
                f"The split {split!r} of {folder} is empty ({store.num_stored} pairs in all). Make more pairs, or choose "
                "another split."
            )
        shards = [[entry.name, entry.sha256] for entry in store.manifest.shards]
        identity = json.dumps([shards, store.manifest.rejected, split], sort_keys=True)
        return cls(records, hashlib.sha256(identity.encode()).hexdigest()[:16], num_skipped, wordings or {})

    def __len__(self) -> int:
        """Count the pairs."""
        return len(self.records)

    @cached_property
    def instructions(self) -> list[str]:
        """The different instructions and their other wordings, the empty one first."""
        own = list(dict.fromkeys(record.triplet.instruction for record in self.records))
        return list(dict.fromkeys(["", *own, *(other for text in own for other in self.wordings.get(text, ()))]))

    @cached_property
    def _choices(self) -> tuple[np.ndarray, list[list[int]]]:
        """For every pair which instruction it has, and for every such instruction the numbers of its wordings."""
        number = {text: i for i, text in enumerate(self.instructions)}
        own = {text: i for i, text in enumerate(dict.fromkeys(record.triplet.instruction for record in self.records))}
        of_row = np.array([own[record.triplet.instruction] for record in self.records], np.int32)
        return of_row, [[number[one] for one in (text, *self.wordings.get(text, ()))] for text in own]

    def instruction_number(self, seed: int, visit: Visit) -> int:
        """Draw the wording of one visit.

        Args:
            seed: of the training.
            visit: the pair and its epoch.

        Returns:
            Its place in `instructions`.
        """
        of_row, wordings = self._choices
        options = wordings[of_row[visit.row]]
        chosen: int = options[hash64(seed, "wording", *visit) % len(options)]
        return chosen

    def bucket_shapes(self, resolution: int, multiple: int) -> list[tuple[int, int]]:
        """Give every pair the height and width, at about resolution² pixels, that is nearest to its aspect ratio.

        Args:
            resolution: in pixels.
            multiple: both sides are multiples of it.

        Returns:
            Height and width in pixels of every pair.
        """
        step = math.lcm(multiple, min(BUCKET_STEP, max(multiple, resolution // 8)))
        return [nearest_shape(*_size(record), resolution, step) for record in self.records]

    def load(self, row: int, crop: Crop, shape: tuple[int, int], *, is_with_mask: bool = False) -> CroppedPair:
        """Read one pair and cut it out.

        Args:
            row: which pair.
            crop: where, and whether mirrored.
            shape: height and width of the result in pixels, for the smallest crop side.
            is_with_mask: read the mask as well.

        Returns:
            The pair.

        Raises:
            PictureError: if a picture cannot be read, or the two differ in size.
        """
        record = self.records[row]
        handles = [record.original, record.edited]
        if is_with_mask and record.mask is not None:
            handles.append(record.mask)
        pictures = [handle.picture() for handle in handles]
        if len({picture.size for picture in pictures}) > 1:
            sizes = " and ".join(f"{picture.width}x{picture.height}" for picture in pictures)
            raise PictureError(
                f"The pictures of pair {record.prompt_id}, sample {record.sample_index}, differ in size ({sizes}); a pair "
                "needs one size. Make or import it again, or reject it with ip2p dataset browse."
            )
        cut = [cut_out(picture, crop, shape) for picture in pictures]
        original, edited = (_to_tensor(picture.convert("RGB")) * 2 - 1 for picture in cut[:2])
        return CroppedPair(original, edited, _to_tensor(cut[2].convert("L")) if len(cut) > 2 else None)


def read_wordings(path: Path) -> dict[str, list[str]]:
    """Read other wordings of instructions.

    Args:
        path: a JSON file {instruction: [other wordings]}.

    Returns:
        The same.

    Raises:
        ConfigError: if it cannot be read, or holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"The wordings {path} cannot be read: {error}.") from None
    lists = list(found.values()) if isinstance(found, dict) else [None]
    if not all(isinstance(one, list) and all(isinstance(text, str) for text in one) for one in lists):
        raise ConfigError(f'The wordings {path} must be {{"instruction": ["another wording", ...], ...}}.')
    return dict(found)


def cut_out(picture: Image.Image, crop: Crop, shape: tuple[int, int]) -> Image.Image:
    """Resize so that the crop fits in, cut it out, and mirror it.

    Args:
        picture: any size.
        crop: its side is that of the resized picture where the shape is a square; elsewhere the same enlargement holds.
        shape: height and width of the result in pixels.

    Returns:
        The cut.
    """
    height, width = shape
    zoom = max(1.0, crop.side / min(shape))
    scale = zoom * max(width / picture.width, height / picture.height)
    size = max(width, round(picture.width * scale)), max(height, round(picture.height * scale))
    left, top = int(crop.x * (size[0] - width + 1)), int(crop.y * (size[1] - height + 1))
    cut = picture.resize(size, Image.Resampling.LANCZOS).crop((left, top, left + width, top + height))
    return cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if crop.is_flipped else cut


def nearest_shape(width: int, height: int, resolution: int, step: int) -> tuple[int, int]:
    """Return (height, width), multiples of `step` of about resolution² pixels, of the nearest aspect ratio."""
    best, error = (resolution, resolution), math.inf
    for wide in range(step, 2 * resolution + 1, step):
        high = round(resolution * resolution / wide / step) * step
        if not resolution // 2 <= high <= 2 * resolution or wide < resolution // 2:
            continue
        distance = abs(math.log(wide / high * height / width))
        if distance < error:
            best, error = (high, wide), distance
    return best


def _size(record: PairRecord) -> tuple[int, int]:
    with Image.open(io.BytesIO(record.original.read())) as opened:
        return opened.size


def _to_tensor(picture: Image.Image) -> Tensor:
    pixels = np.array(picture, np.float32) / 255
    return torch.from_numpy(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy())


def _drop(store: PairStore, report: Report) -> int:
    """Leave damaged shards out of an opened dataset; return how many pairs that costs."""
    bad = set(report.bad_shards)
    num_skipped = sum(entry.rows for entry in store.manifest.shards if entry.name in bad)
    for fault in report.faults:
        logger.warning("shard %s is left out: %s", fault.shard, fault.reason)
    store.manifest.shards[:] = [entry for entry in store.manifest.shards if entry.name not in bad]
    return num_skipped


def check_shape(resolution: int, multiple: int) -> None:
    """Refuse a resolution that the model cannot take.

    Args:
        resolution: in pixels.
        multiple: that the model needs.

    Raises:
        ConfigError: if it is no multiple.
    """
    if resolution % multiple:
        near = max(multiple, round(resolution / multiple) * multiple)
        raise ConfigError(f"resolution is {resolution}; this model needs a multiple of {multiple}, such as {near}.")
