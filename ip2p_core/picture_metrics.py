"""How far two pictures lie apart, everywhere or inside a mask.

"multiply" is how PIE-Bench measures parts of a picture (Ju et al. 2023, arXiv:2310.01506): both pictures are multiplied by the
mask, and the mean goes over the whole picture, so that a number depends on the size of the mask. "region" takes the mean over
the pixels of the part alone.
Shapes: B pictures, H W height and width in pixels.
"""

from __future__ import annotations

from typing import Literal

import numpy
import torch
from PIL import Image
from torch import Tensor

from .image_tensor import to_pil

Masking = Literal["region", "multiply"]
"""How a part of a picture is measured."""


def l1(a: Tensor, b: Tensor, mask: Tensor | None = None, masking: Masking = "region") -> Tensor:
    """Mean absolute difference.

    Args:
        a: [B, H, W, 3] in [0, 1].
        b: the same.
        mask: [B or 1, H, W] in [0, 1], what counts; None for everything.
        masking: how it counts.

    Returns:
        [B] in [0, 1]; not a number where the mask is empty.
    """
    return _mean((a - b).abs(), mask, masking, power=1)


def l2(a: Tensor, b: Tensor, mask: Tensor | None = None, masking: Masking = "region") -> Tensor:
    """Mean squared difference; arguments as for `l1`.

    Args:
        a: [B, H, W, 3] in [0, 1].
        b: the same.
        mask: [B or 1, H, W] in [0, 1], what counts; None for everything.
        masking: how it counts.

    Returns:
        [B] in [0, 1]; not a number where the mask is empty.
    """
    return _mean((a - b).square(), mask, masking, power=2)


def psnr_of(mean_square: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of mean squared differences on [0, 1]; infinite where there is no difference."""
    return -10.0 * torch.log10(mean_square)


def _mean(difference: Tensor, mask: Tensor | None, masking: Masking, power: int) -> Tensor:
    if mask is None:
        return difference.flatten(1).mean(1)
    weight = mask.to(difference)[..., None].expand_as(difference)
    share = weight.flatten(1).mean(1)
    nothing = torch.full_like(share, torch.nan)
    if masking == "multiply":
        return torch.where(share > 0, (difference * weight**power).flatten(1).mean(1), nothing)
    return torch.where(share > 0, (difference * weight).flatten(1).mean(1) / share, nothing)


def centre_crop(images: Tensor, size: int, resize_to: int | None = None) -> Tensor:
    """Resize as CLIP's and DINO's own programs do: the shorter side by Pillow's bicubic filter, then the middle is cut out.

    Args:
        images: [B, H, W, 3] in [0, 1].
        size: side of the result in pixels.
        resize_to: the shorter side before cutting; `size` by default.

    Returns:
        [B, size, size, 3] in [0, 1], 8 bit.
    """
    return torch.stack([_crop(to_pil(one), size, resize_to or size) for one in images])


def fit_shorter_side(width: int, height: int, shorter: int, longest: int | None = None) -> tuple[int, int]:
    """Return the size whose shorter side has so many pixels, and whose longer one not more than `longest`."""
    low, high = shorter, int(shorter * max(width, height) / min(width, height))
    if longest is not None and high > longest:
        low, high = int(longest * low / high), longest
    return (low, high) if width <= height else (high, low)


def _crop(picture: Image.Image, size: int, resize_to: int) -> Tensor:
    resized = picture.resize(fit_shorter_side(*picture.size, resize_to), Image.Resampling.BICUBIC)
    left, top = (round((side - size) / 2.0) for side in resized.size)
    cut = resized.crop((left, top, left + size, top + size))
    return torch.from_numpy(numpy.array(cut)).float() / 255.0
