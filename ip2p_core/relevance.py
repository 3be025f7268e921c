"""Where an instruction acts, and how an edit is pasted back into the original.

The relevance map is |e(I, T) - e(I, null)| averaged over channels and steps (Mirzaei et al. 2024,
Watch Your Steps, arXiv:2308.08947, section 3.1).
Shapes: B batch, C latent channels, H W height and width.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor
from torch.nn import functional

from .errors import BadImageSize, ConfigError
from .guidance import Predictions
from .image_size import Extent

logger = logging.getLogger(__name__)


class RelevanceMeter:
    """Collects the relevance map over one sampling run.

    Args:
        robust_share: quantile that becomes 1 in the map, so that one bright cell does not darken the rest.
    """

    def __init__(self, robust_share: float = 0.98) -> None:
        self.robust_share = robust_share
        self.num_steps = 0
        self._sum: Tensor | None = None
        self._shape: torch.Size | None = None

    def add(self, predictions: Predictions, sigma: Tensor | float) -> None:
        """Add one step.

        Args:
            predictions: denoised [B, C, H, W] each; a step without `full` or `image` is left out.
            sigma: noise standard deviation, a number, a scalar tensor or [B].
        """
        full, image, uncond = predictions
        seen = next((prediction for prediction in (full, image, uncond) if prediction is not None), None)
        self._shape = self._shape if seen is None else seen.shape
        if full is None or image is None:
            return
        if isinstance(sigma, Tensor) and sigma.ndim == 1:
            sigma = sigma.reshape(-1, 1, 1).to(full.device)
        exact = torch.promote_types(full.dtype, torch.float32)  # half precision would lose the sum's last digits
        difference = (full - image).to(exact).abs().mean(dim=1) / sigma  # |eps_full - eps_image|
        self._sum = difference if self._sum is None else self._sum + difference
        self.num_steps += 1

    def map(self) -> Tensor:
        """Return the map [B, H, W] in [0, 1], in latent cells; zeros where no step had both branches."""
        if self._sum is None:
            if self._shape is None:
                raise ValueError("RelevanceMeter.map was called before any step was added.")
            logger.warning(
                "No relevance map: the scales left out the full or the image branch at every step. "
                "Use a text guidance scale other than 0 that differs from the image guidance scale."
            )
            return torch.zeros(self._shape[0], *self._shape[2:])
        mean = (self._sum / self.num_steps).float()
        top = torch.quantile(mean.flatten(1), self.robust_share, dim=1).clamp_min(1e-12)
        return (mean / top.reshape(-1, 1, 1)).clamp(0.0, 1.0)


def mask_of_map(relevance: Tensor, extent: Extent, threshold: float = 0.5, grow: int = 0) -> Tensor:
    """Turn a relevance map into a mask of where to edit (arXiv:2308.08947, section 3.2).

    Args:
        relevance: [B, h, w] in [0, 1], in latent cells.
        extent: size of the picture.
        threshold: relevance from which on a pixel is edited; 0 edits all, 1 almost nothing.
        grow: pixels by which the mask is widened on all sides.

    Returns:
        [B, H, W], 0 or 1.

    Raises:
        ConfigError: if the map is 0 everywhere, because no step had both predictions.
    """
    if not relevance.any():
        raise ConfigError(
            "The relevance map is empty: at these scales the sampler left out one of the two predictions that it compares. "
            "Use a text guidance scale other than 0 that differs from the image guidance scale."
        )
    size = (extent.height, extent.width)
    smooth = functional.interpolate(relevance.float()[:, None], size, mode="bilinear", align_corners=False)
    mask = (smooth >= threshold).float()
    if grow:
        mask = functional.max_pool2d(mask, 2 * grow + 1, stride=1, padding=grow)
    return mask[:, 0]


def feather_inside(mask: Tensor, feather: int) -> Tensor:
    """Soften the rim of a mask on its inner side only.

    Args:
        mask: [B, H, W] in [0, 1].
        feather: width of the soft rim in pixels; 0 leaves the mask as it is.

    Returns:
        Weights [B, H, W] in [0, 1], 0 wherever the mask is 0. The rim of the picture itself stays hard.
    """
    eroded = mask[:, None]
    total = eroded
    for _ in range(feather):
        eroded = -functional.max_pool2d(-eroded, kernel_size=3, stride=1, padding=1)
        total = total + eroded
    return (total / (feather + 1))[:, 0]


def paste_back(original: Tensor, edited: Tensor, mask: Tensor, feather: int = 0) -> Tensor:
    """Keep the edit inside the mask and the original outside it.

    Args:
        original: [B, H, W, 3] in [0, 1].
        edited: [B, H, W, 3] in [0, 1], the same size.
        mask: [B, H, W] or [1, H, W] in [0, 1], 1 where the edit shall show.
        feather: width in pixels of the soft rim, which lies inside the mask.

    Returns:
        [B, H, W, 3] in [0, 1]; pixels where the mask is 0 are bit-identical to `original`.

    Raises:
        BadImageSize: if the three do not have the same size.
    """
    if not original.shape[1:3] == edited.shape[1:3] == mask.shape[1:3]:
        raise BadImageSize(
            f"The original is {tuple(original.shape[1:3])}, the edit {tuple(edited.shape[1:3])} and the mask "
            f"{tuple(mask.shape[1:3])} (height, width); all three must be the same size. Resize the mask with "
            "image_size.fit_mask."
        )
    weight = feather_inside(mask.to(original.dtype), feather)[..., None]
    return torch.where(weight > 0, torch.lerp(original, edited, weight), original)
