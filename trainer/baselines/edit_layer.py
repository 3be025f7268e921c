"""The edit layer of Text2LIVE (Bar-Tal et al. 2022, arXiv:2204.02491): the network that paints it, and how it is laid on.

The network follows the published code: strided 3x3 convolutions down, bilinear upsampling, a narrow 1x1 skip connection at every
scale, batch norm with the statistics of the picture itself, and colours in decorrelated axes before the sigmoid.
Shapes: B pictures, C channels, H W height and width in pixels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

COLOUR_AXES = ((0.26 / 1.6, 0.09, 0.02), (0.27 / 1.6, 0.0, -0.05), (0.27 / 1.6, -0.09, 0.03))
"""Rows R, G, B of the decorrelated colours; the first axis is weakened, for stronger colours."""
GREEN_SCREEN = (0.0, 177 / 255, 64 / 255)


class Layer(NamedTuple):
    """What is laid over a picture."""

    colour: Tensor  # [B, 3, H, W] in [0, 1]
    opacity: Tensor  # [B, 1, H, W] in [0, 1]

    def over(self, picture: Tensor) -> Tensor:
        """Lay it over a picture [B, 3, H, W]; where the opacity is 0 the picture stays bit for bit."""
        return (1 - self.opacity) * picture + self.opacity * self.colour

    def over_green(self) -> Tensor:
        """Lay it over a green screen."""
        return self.over(self.colour.new_tensor(GREEN_SCREEN).view(1, 3, 1, 1))


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, padding_mode="reflect" if size > 1 else "zeros")


def _block(inputs: int, outputs: int, size: int, stride: int = 1, *, has_norm: bool = True) -> nn.Sequential:
    norm = [nn.BatchNorm2d(outputs, track_running_stats=False)] if has_norm else []
    return nn.Sequential(_convolution(inputs, outputs, size, stride), *norm, nn.LeakyReLU(0.2))


def _crop_to(x: Tensor, like: Tensor) -> Tensor:
    height, width = like.shape[-2:]
    top, left = (x.shape[-2] - height) // 2, (x.shape[-1] - width) // 2
    return x[..., top : top + height, left : left + width]


class _Scale(nn.Module):
    """Half the size, the coarser scales inside, double the size, and the skip connection beside all that."""

    def __init__(self, inputs: int, width: int, skip: int, inner: nn.Module, *, is_finest: bool) -> None:
        super().__init__()
        self.skip = _block(inputs, skip, 1)
        self.down = nn.Sequential(_block(inputs, width, 3, 2), _block(width, width, 3))
        self.inner = inner
        self.up = nn.Sequential(
            nn.BatchNorm2d(skip + width, track_running_stats=False),
            _block(skip + width, width, 3),
            _block(width, width, 1, has_norm=not is_finest),
        )

    def forward(self, x: Tensor) -> Tensor:
        kept = self.skip(x)
        coarse = nn.functional.interpolate(self.inner(self.down(x)), scale_factor=2, mode="bilinear")
        result: Tensor = self.up(torch.cat([kept, _crop_to(coarse, kept)], dim=1))
        return result


class EditLayerNet(nn.Module):
    """A picture [B, 3, H, W] in [0, 1] in, its edit layer out; the weights come from torch's global generator.

    Args:
        width: channels of every scale.
        skip: channels of every skip connection.
        num_scales: how often the size is halved; see `scales_for`.
    """

    def __init__(self, width: int, skip: int, num_scales: int) -> None:
        super().__init__()
        inner: nn.Module = nn.Identity()
        for scale in reversed(range(num_scales)):
            inner = _Scale(width if scale else 3, width, skip, inner, is_finest=scale == 0)
        self.scales, self.head = inner, nn.Conv2d(width, 4, 1)
        axes = torch.tensor(COLOUR_AXES)
        self.register_buffer("axes", axes / axes.norm(dim=0).max(), persistent=False)
        self.axes: Tensor

    def forward(self, picture: Tensor) -> Layer:
        """Paint the layer of a picture."""
        output = self.head(self.scales(picture))
        colour = torch.einsum("dc,bchw->bdhw", self.axes, output[:, :3])
        return Layer(colour.sigmoid(), output[:, 3:].sigmoid())


def scales_for(side: int, most: int) -> int:
    """Return how often a side in pixels can be halved and leave 2 pixels: at most `most` times, and once for 4 pixels."""
    return max(1, min(most, int(math.log2(max(side, 2))) - 1))


class MadGrad:
    """The optimiser MADGRAD (Defazio and Jelassi 2021, arXiv:2101.11075, algorithm 1), which the published code uses.

    Args:
        parameters: what is optimised.
        momentum: share of the old value that stays.
        weight_decay: added to the gradient, as a share of the value.
        eps: below the fraction.
    """

    def __init__(
        self, parameters: list[nn.Parameter], *, momentum: float = 0.9, weight_decay: float = 0.01, eps: float = 1e-6
    ) -> None:
        self.parameters, self.momentum, self.weight_decay, self.eps = parameters, momentum, weight_decay, eps
        self.steps = 0
        self._starts = [one.detach().clone() for one in parameters]
        self._sums = [torch.zeros_like(one) for one in self._starts]
        self._squares = [torch.zeros_like(one) for one in self._starts]

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Take one step with the gradients that the parameters hold, and forget them."""
        weight = lr * math.sqrt(self.steps + 1)
        self.steps += 1
        for value, start, total, square in zip(self.parameters, self._starts, self._sums, self._squares, strict=True):
            if value.grad is None:
                continue
            gradient = value.grad.add(value, alpha=self.weight_decay)
            total.add_(gradient, alpha=weight)
            square.addcmul_(gradient, gradient, value=weight)
            value.lerp_(start - total / (square.pow(1 / 3) + self.eps), 1 - self.momentum)
            value.grad = None
