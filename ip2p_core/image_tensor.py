"""Pictures as tensors: files <-> [0, 1] BHWC <-> [-1, 1] BCHW. The only place that knows both ranges.

Shapes: B batch, H W height and width in pixels.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from .errors import BadImage

_READ_ERRORS = (OSError, SyntaxError, ValueError, TypeError, EOFError, IndexError, struct.error, zlib.error)
_HAS_ALPHA = {"LA", "La", "PA", "RGBA", "RGBa"}


class LoadedImage(NamedTuple):
    """One picture from a file, upright."""

    pixels: Tensor  # [H, W, 3] in [0, 1]
    alpha: Tensor | None  # [H, W] in [0, 1]; None where the file has no transparency


def to_model(image: Tensor) -> Tensor:
    """Turn images [B, H, W, 3] in [0, 1] into the model's [B, 3, H, W] in [-1, 1]."""
    return image.movedim(-1, 1) * 2.0 - 1.0


def from_model(pixels: Tensor) -> Tensor:
    """Turn the model's [B, 3, H, W] in [-1, 1] into images [B, H, W, 3] in [0, 1], clamped."""
    return (pixels.movedim(1, -1) * 0.5 + 0.5).clamp(0.0, 1.0)


def to_uint8(image: Tensor) -> numpy.ndarray:
    """Turn an image in [0, 1] into bytes, rounded to the nearest of 256 levels."""
    array: numpy.ndarray = (image.detach().float().clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).cpu().numpy()
    return array


def to_pil(image: Tensor, alpha: Tensor | None = None) -> Image.Image:
    """Turn an image [H, W, 3] in [0, 1], and its alpha [H, W] where there is one, into a PIL image."""
    picture = Image.fromarray(to_uint8(image))
    if alpha is not None:
        picture.putalpha(Image.fromarray(to_uint8(alpha)))
    return picture


def load_image(path: Path | str) -> LoadedImage:
    """Read a picture: any mode that Pillow knows, 8 or 16 bit, turned upright by its EXIF orientation.

    Args:
        path: the file.

    Returns:
        Colour and, where the file has it, transparency.

    Raises:
        BadImage: if the file is missing, is not an image, is truncated, or has no pixels to show.
    """
    path = Path(path)
    if not path.is_file():
        raise BadImage(f"There is no file {path}. Check the path of the image.")
    try:
        with Image.open(path) as opened:
            opened.load()
            picture = ImageOps.exif_transpose(opened)
            return _to_tensors(picture)
    except UnidentifiedImageError:
        raise BadImage(
            f"{path.name} is not an image that can be read. Use a PNG, JPEG, WebP, TIFF or BMP file."
        ) from None
    except Image.DecompressionBombError:
        raise BadImage(f"{path.name} has too many pixels to open safely. Make the picture smaller first.") from None
    except _READ_ERRORS as error:
        raise BadImage(
            f"{path.name} is damaged or cut off ({error}). Copy or download the picture again, or save it as PNG."
        ) from None


def _to_tensors(picture: Image.Image) -> LoadedImage:
    if picture.mode.startswith(("I", "F")):
        return LoadedImage(pixels=_deep_grey(picture), alpha=None)
    has_alpha = picture.mode in _HAS_ALPHA or "transparency" in picture.info
    array = numpy.array(picture.convert("RGBA" if has_alpha else "RGB"))
    pixels = torch.from_numpy(array).float() / 255.0
    return LoadedImage(pixels=pixels[..., :3].contiguous(), alpha=pixels[..., 3].contiguous() if has_alpha else None)


def _deep_grey(picture: Image.Image) -> Tensor:
    """Scale a 16-bit, 32-bit or float grey picture [H, W] to [H, W, 3] in [0, 1]."""
    values = torch.from_numpy(numpy.array(picture).astype(numpy.float64))
    if picture.mode.startswith("F"):
        if not bool(torch.isfinite(values).all()) or values.min() < 0.0 or values.max() > 1.0:
            raise BadImage("A floating-point picture must lie within 0 and 1. Save it as 8 or 16 bit.")
        top = 1.0
    else:
        top = 65535.0 if picture.mode.startswith("I;16") or values.max() <= 65535.0 else 2.0**31 - 1
    grey = (values / top).clamp(0.0, 1.0).float()
    return grey[..., None].repeat(1, 1, 3)
