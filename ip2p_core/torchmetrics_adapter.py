"""Structural similarity and LPIPS by torchmetrics: a leaf, and the only file that knows it. It need not be installed.

Shapes: B pictures, H W height and width in pixels.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from .errors import ConfigError

LpipsNet = Literal["alex", "vgg", "squeeze"]
SMALLEST_SSIM, SMALLEST_LPIPS = 11, 64
"""Shortest side in pixels: the window of structural similarity, and what the networks' pooling needs."""
INSTALL = "pip install torchmetrics"


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004) with a Gaussian window of 11 pixels.

    Args:
        a: [B, H, W, 3] in [0, 1].
        b: the same.

    Returns:
        [B], 1 for equal pictures.

    Raises:
        ConfigError: if torchmetrics is not installed.
    """
    try:
        from torchmetrics.functional.image import structural_similarity_index_measure
    except ImportError:
        raise ConfigError(f"SSIM needs torchmetrics, which is not installed. {INSTALL}.") from None
    one, other = (value.movedim(-1, 1).float() for value in (a, b))
    result: Any = structural_similarity_index_measure(one, other, data_range=1.0, reduction="none")
    values: Tensor = result.reshape(len(a))
    return values


class Lpips:
    """Learned perceptual distance (Zhang et al. 2018, arXiv:1801.03924).

    Args:
        net: its network; torchvision's weights of it are taken from torch's cache, or downloaded.
        device: where it runs.

    Raises:
        ConfigError: if torchmetrics or torchvision is not installed, or the weights are neither there nor to be had.
    """

    def __init__(self, net: LpipsNet, device: torch.device | str = "cpu") -> None:
        try:
            from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

            model: Any = LearnedPerceptualImagePatchSimilarity(net_type=net, reduction="sum")
        except ImportError as error:
            raise ConfigError(
                f"LPIPS needs a package that is not installed ({error}). {INSTALL} torchvision."
            ) from None
        except OSError as error:
            folder = torch.hub.get_dir()
            raise ConfigError(
                f"LPIPS needs torchvision's weights of {net}, which are not in {folder}/checkpoints and cannot be "
                f"downloaded ({error}). Put them there."
            ) from None
        self.net, self.device = net, torch.device(device)
        self._model = model.eval().to(self.device)

    @torch.no_grad()
    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Compare pictures [B, H, W, 3] in [0, 1]; the result is [B], 0 for equal pictures."""
        pixels = [(value.movedim(-1, 1).float() * 2 - 1).to(self.device) for value in (a, b)]
        each = [self._model(one[None], other[None]) for one, other in zip(*pixels, strict=True)]
        return torch.stack(each).cpu()
