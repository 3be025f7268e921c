"""All size arithmetic: any picture in, a size the model can work at, and exactly the source size out.

Shapes: B batch, H W height and width in pixels.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional

from .errors import BadImageSize, ConfigError


class Extent(NamedTuple):
    """Width and height in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


def extent_of(image: Tensor) -> Extent:
    """Return the size of images [B, H, W, 3] or of one image [H, W, 3]."""
    return Extent(width=image.shape[-2], height=image.shape[-3])


def working_extent(source: Extent, working_resolution: int, multiple: int) -> Extent:
    """Choose the size to edit at: the longer side becomes the working resolution, the aspect stays.

    Args:
        source: size of the picture in pixels, any.
        working_resolution: wanted length of the longer side in pixels.
        multiple: both sides are rounded to the nearest multiple of this, and are at least one multiple.

    Returns:
        The working size in pixels.

    Raises:
        BadImageSize: if the picture has no pixels.
        ConfigError: if the working resolution or the multiple is below 1.
    """
    if min(source) < 1:
        raise BadImageSize(f"The image is {source}; it needs at least one pixel. Check what feeds the image input.")
    if working_resolution < 1 or multiple < 1:
        raise ConfigError(
            f"working_resolution is {working_resolution} and the size multiple {multiple}; both must be at least 1."
        )
    longer = max(source)
    width, height = (_nearest(side * working_resolution, longer * multiple) * multiple for side in source)
    return Extent(width=width, height=height)


def _nearest(numerator: int, denominator: int) -> int:
    """Return numerator / denominator rounded half up, at least 1, in exact integers."""
    return max(1, (2 * numerator + denominator) // (2 * denominator))


def fit(image: Tensor, extent: Extent) -> Tensor:
    """Resize pictures with an antialiased filter.

    Args:
        image: [B, H, W, C] in [0, 1].
        extent: wanted size in pixels.

    Returns:
        [B, height, width, C] in [0, 1]; the input itself where the size is right already.
    """
    if extent_of(image) == extent:
        return image
    resized = functional.interpolate(
        image.movedim(-1, 1).float(), size=(extent.height, extent.width), mode="bicubic", antialias=True
    )
    return resized.clamp(0.0, 1.0).movedim(1, -1).to(image.dtype)


def undo(image: Tensor, source_extent: Extent) -> Tensor:
    """Bring edited pictures [B, H, W, 3] in [0, 1] back to exactly the source size."""
    return fit(image, source_extent)


def fit_mask(mask: Tensor, extent: Extent) -> Tensor:
    """Resize masks with an antialiased filter, to pixels or to latent cells.

    Args:
        mask: [B, H, W] in [0, 1].
        extent: wanted size.

    Returns:
        [B, height, width] in [0, 1]; the input itself where the size is right already.
    """
    if Extent(width=mask.shape[-1], height=mask.shape[-2]) == extent:
        return mask
    size = (extent.height, extent.width)
    resized = functional.interpolate(mask[:, None].float(), size=size, mode="bilinear", antialias=True)
    return resized[:, 0].clamp(0.0, 1.0).to(mask.dtype)


def latent_extent(extent: Extent, factor: int) -> Extent:
    """Return the size in latent cells.

    Args:
        extent: size in pixels.
        factor: pixels per latent cell.

    Returns:
        The size in latent cells.

    Raises:
        BadImageSize: if a side is not a multiple of the factor.
    """
    if extent.width % factor or extent.height % factor:
        raise BadImageSize(
            f"The image is {extent}; the model needs both sides to be multiples of {factor}. Resize it with image_size.fit."
        )
    return Extent(width=extent.width // factor, height=extent.height // factor)
