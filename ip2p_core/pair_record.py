"""One training pair: its texts, how it was made, its scores, and its pictures as lazy handles to encoded bytes.

A tuple of records costs no picture memory: a handle knows where the bytes are and decodes when asked.
Shapes: H W height and width in pixels.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from .errors import PictureError
from .image_tensor import to_pil
from .randomness import NUM_SEEDS, hash64
from .triplet import Triplet

SPLITS = {"train": 0.90, "val": 0.05, "test": 0.05}
_PNG_START = b"\x89PNG\r\n\x1a\n"
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, TypeError, EOFError, IndexError)


class PairScores(NamedTuple):
    """The four CLIP similarities of a pair, cosines."""

    caption_0: float  # caption and original
    caption_1: float  # edited caption and edited
    image: float  # original and edited
    directional: float  # change of the texts and change of the pictures


class ImageHandle(ABC):
    """A picture that is read when it is needed, and not kept."""

    @abstractmethod
    def read(self) -> bytes:
        """Return the encoded bytes as they are.

        Returns:
            The bytes, in any format that Pillow reads.

        Raises:
            PictureError: if they are gone.
        """

    @property
    @abstractmethod
    def name(self) -> str:
        """What to call the picture in messages."""

    def picture(self) -> Image.Image:
        """Decode the picture, upright, 8 bit: mode L or RGB.

        Returns:
            The picture.

        Raises:
            PictureError: if it is missing, damaged, transparent or deeper than 8 bit.
        """
        return decode_picture(self.read(), self.name)

    def tensor(self) -> Tensor:
        """Decode the picture to [H, W, 3] in [0, 1]."""
        return torch.from_numpy(numpy.array(self.picture().convert("RGB"))).float() / 255.0

    def lossless(self) -> bytes:
        """Return PNG or lossless WebP bytes: those that are there, or PNG made from another format.

        Returns:
            The bytes.

        Raises:
            PictureError: as for `picture`.
        """
        data = self.read()
        return data if is_lossless(data) else encode_png(decode_picture(data, self.name))


@dataclass(frozen=True, slots=True)
class ImageBytes(ImageHandle):
    """A picture whose encoded bytes are in memory."""

    data: bytes

    @classmethod
    def from_tensor(cls, image: Tensor) -> ImageBytes:
        """Encode an image [H, W, 3] in [0, 1] as PNG, rounded to 8 bit."""
        return cls(encode_png(to_pil(image)))

    @property
    def name(self) -> str:
        """What to call the picture in messages."""
        return "A picture in memory"

    def read(self) -> bytes:
        """Return the bytes."""
        return self.data

    def __repr__(self) -> str:
        return f"ImageBytes({len(self.data)} bytes)"


@dataclass(frozen=True, slots=True)
class ImageFile(ImageHandle):
    """A picture in a file of its own."""

    path: Path

    @property
    def name(self) -> str:
        """What to call the picture in messages."""
        return str(self.path)

    def read(self) -> bytes:
        """Return the bytes of the file.

        Returns:
            The bytes.

        Raises:
            PictureError: if it cannot be read.
        """
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise PictureError(
                f"The picture {self.path} cannot be read ({error.strerror or error}). Put it back, or leave out its pair."
            ) from None


@dataclass(frozen=True, slots=True)
class PairRecord:
    """One pair. The pictures are handles; comparing records compares handles, not pixels."""

    prompt_id: str
    sample_index: int
    """Which of the samples of this prompt; (prompt_id, sample_index) is unique in a dataset."""
    triplet: Triplet
    seed: int
    """In [0, 2**64); 0 where a pair was imported without one."""
    p2p_threshold: float | None
    """Fraction of the steps with shared attention, in [0, 1]; None where a pair was not generated."""
    text_guidance_scale: float | None
    mode: str
    """How it was made: "published_code", "paper_text", "imported", ..."""
    scores: PairScores | None
    original: ImageHandle
    edited: ImageHandle
    mask: ImageHandle | None = None
    """White where the edit may change the picture."""
    weight: float | None = None
    """How much the pair counts in the loss of a training; None is 1."""

    @property
    def key(self) -> tuple[str, int]:
        """What names the pair in its dataset."""
        return self.prompt_id, self.sample_index


def pair_seed(run_seed: int, prompt_id: str, sample_index: int) -> int:
    """Give every sample of every prompt its own seed, whatever order they are made in.

    Args:
        run_seed: seed of the whole run.
        prompt_id: of the triplet.
        sample_index: which sample of the prompt.

    Returns:
        A seed in [0, 2**64).
    """
    return hash64(run_seed, prompt_id, sample_index)


def split_of(prompt_id: str) -> str:
    """Say which split a prompt belongs to: 90 % train, 5 % val, 5 % test, whatever else the dataset holds.

    Args:
        prompt_id: of the triplet; all its samples share the split.

    Returns:
        "train", "val" or "test".
    """
    position, end = hash64("split", prompt_id) / NUM_SEEDS, 0.0
    for name, share in SPLITS.items():
        end += share
        if position < end:
            return name
    return "test"


def is_lossless(data: bytes) -> bool:
    """Say whether bytes are PNG or simple lossless WebP, the two formats that a dataset stores."""
    return data.startswith(_PNG_START) or (data[:4] == b"RIFF" and data[8:16] == b"WEBPVP8L")


def encode_png(picture: Image.Image) -> bytes:
    """Encode a picture as PNG without metadata, the same bytes for the same pixels."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def decode_picture(data: bytes, name: str) -> Image.Image:
    """Decode a picture, turned upright by its EXIF orientation.

    Args:
        data: encoded bytes.
        name: what to call it in messages.

    Returns:
        Mode L or RGB.

    Raises:
        PictureError: if it is no picture, damaged, transparent or deeper than 8 bit.
    """
    try:
        with Image.open(io.BytesIO(data)) as opened:
            opened.load()
            picture = ImageOps.exif_transpose(opened)
    except UnidentifiedImageError:
        raise PictureError(f"{name} is not a picture that can be read. Use PNG, JPEG or WebP.") from None
    except Image.DecompressionBombError:
        raise PictureError(f"{name} has too many pixels to open safely. Make it smaller first.") from None
    except _DECODE_ERRORS as error:
        raise PictureError(f"{name} is damaged or cut off ({error}). Make or copy it again.") from None
    if picture.mode.startswith(("I", "F")):
        raise PictureError(
            f"{name} has more than 8 bit per channel ({picture.mode}); 8 bit are needed. Save it as 8 bit."
        )
    if "A" in picture.getbands() or "transparency" in picture.info:
        alpha = picture.convert("RGBA").getchannel("A")
        if alpha.getextrema()[0] < 255:  # type: ignore[operator]
            raise PictureError(
                f"{name} is transparent; a training picture must be opaque. Put it on a background first."
            )
    return picture if picture.mode in ("L", "RGB") else picture.convert("RGB")
