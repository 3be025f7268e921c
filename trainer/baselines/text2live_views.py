"""Augmented views of a picture, for the losses and the input of Text2LIVE (arXiv:2204.02491).

The draws and their order follow the published code. It differs in that a view is sampled once, not once for each of crop, affine
map and perspective map; that the hue turns in YIQ; and that the colours are clamped once, at the end.
Shapes: B pictures, N views, H W height and width, S side of a view in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


@dataclass(frozen=True, kw_only=True)
class ViewSettings:
    """How a picture is varied before CLIP sees it; shares are probabilities in [0, 1].

    Attributes:
        num_views: of one picture at a time.
        smallest_crop: least side of a crop, as a share; the first view is never cropped.
        flip: share of views that are mirrored.
        affine: share of views that are turned and moved.
        degrees: largest turn.
        translate: largest move, as a share of the side.
        perspective: share of views that are seen from aside.
        distortion: how strongly, in [0, 1].
        jitter: share of views whose colours change.
        jitter_strength: largest change of brightness, contrast, saturation, and of the hue in turns.
        grayscale: share of views without colour.
        fill: brightness of what lies outside, in [0, 1]; None repeats the border.
    """

    num_views: int = 16
    smallest_crop: float = 0.6
    flip: float = 0.5
    affine: float = 0.8
    degrees: float = 15.0
    translate: float = 0.1
    perspective: float = 0.5
    distortion: float = 0.4
    jitter: float = 0.7
    jitter_strength: float = 0.1
    grayscale: float = 0.15
    fill: float | None = 1.0


def uniform(rng: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    """Draw numbers between two others."""
    return low + (high - low) * torch.rand(shape, generator=rng)


def _chosen(rng: torch.Generator, share: float, num: int) -> Tensor:
    return torch.rand(num, generator=rng) < share


class Recolouring(NamedTuple):
    """Changes of colour, one for each of N pictures: a matrix, then contrast."""

    matrix: Tensor  # [N, 3, 3]
    contrast: Tensor  # [N]

    def apply(self, pictures: Tensor) -> Tensor:
        """Change pictures [N, 3, H, W]; what was in [0, 1] stays there."""
        pictures = torch.einsum("ndc,nchw->ndhw", self.matrix.to(pictures), pictures)
        luma = torch.einsum("c,nchw->nhw", pictures.new_tensor(LUMA), pictures).mean(dim=(1, 2))
        contrast, middle = (value.to(pictures).view(-1, 1, 1, 1) for value in (self.contrast, luma))
        return (contrast * pictures + (1 - contrast) * middle).clamp(0, 1)


def draw_recolouring(rng: torch.Generator, num: int, share: float, strength: float, grayscale: float) -> Recolouring:
    """Draw N changes of brightness, contrast, saturation and hue, and whether all colour goes.

    Args:
        rng: source of the draws.
        num: N.
        share: of the pictures that change.
        strength: largest change.
        grayscale: share of the pictures that lose their colour.

    Returns:
        The changes.
    """
    luma, yiq, identity = torch.tensor(LUMA).expand(3, 3), torch.tensor(YIQ), torch.eye(3)
    is_changed, is_grey = _chosen(rng, share, num), _chosen(rng, grayscale, num)
    amount = torch.where(is_changed, strength, 0.0)
    brightness, contrast, saturation, hue = uniform(rng, -1.0, 1.0, 4, num) * amount
    cos, sin = torch.cos(2 * math.pi * hue), torch.sin(2 * math.pi * hue)
    turn = identity.repeat(num, 1, 1)
    turn[:, 1, 1], turn[:, 1, 2], turn[:, 2, 1], turn[:, 2, 2] = cos, -sin, sin, cos
    turn = torch.where(is_changed.view(-1, 1, 1), torch.linalg.inv(yiq) @ turn @ yiq, identity)
    keep = torch.where(is_grey, 0.0, 1 + saturation).view(-1, 1, 1)
    return Recolouring((1 + brightness).view(-1, 1, 1) * (keep * identity + (1 - keep) * luma) @ turn, 1 + contrast)


class Views(NamedTuple):
    """N ways to look at a picture, drawn once and good for any picture of any size."""

    grid: Tensor  # [N, S, S, 2]: where in the picture, -1 to 1
    is_inside: Tensor  # [N, 1, S, S]
    recolouring: Recolouring
    fill: float | None

    def of(self, picture: Tensor) -> Tensor:
        """Look at a picture [1, 3, H, W] in [0, 1]; [N, 3, S, S]."""
        grid = self.grid.to(picture)
        pictures = picture.expand(len(grid), -1, -1, -1)
        views = torch.nn.functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
        if self.fill is not None:
            views = torch.where(self.is_inside.to(views.device), views, self.fill)
        return self.recolouring.apply(views)


def draw_views(rng: torch.Generator, side: int, settings: ViewSettings) -> Views:
    """Draw ways to look at a picture: crop, flip, affine map, perspective map, colours.

    Args:
        rng: source of the draws.
        side: S.
        settings: how strong, how often.

    Returns:
        The views; the first shows the whole picture.
    """
    num = settings.num_views
    half = uniform(rng, settings.smallest_crop, 1.0, num)
    half[0] = 1.0
    middle = uniform(rng, -1.0, 1.0, num, 2) * (1 - half).view(-1, 1)
    flip = torch.where(_chosen(rng, settings.flip, num), -1.0, 1.0)
    axis = (torch.arange(side) + 0.5) * 2 / side - 1
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1).reshape(1, -1, 2)
    grid = _seen_from_aside(grid.expand(num, -1, -1), rng, settings)
    is_inside = grid.abs().amax(dim=2) <= 1
    grid = _turned_and_moved(grid, rng, settings)
    is_inside &= grid.abs().amax(dim=2) <= 1
    stretch = torch.stack([half * flip, half], dim=1).view(num, 1, 2)
    grid = (grid * stretch + middle.view(num, 1, 2)).view(num, side, side, 2)
    recolouring = draw_recolouring(rng, num, settings.jitter, settings.jitter_strength, settings.grayscale)
    return Views(grid, is_inside.view(num, 1, side, side), recolouring, settings.fill)


def _turned_and_moved(points: Tensor, rng: torch.Generator, settings: ViewSettings) -> Tensor:
    num = settings.num_views
    share = torch.where(_chosen(rng, settings.affine, num), 1.0, 0.0)
    angles = torch.deg2rad(uniform(rng, -settings.degrees, settings.degrees, num)) * share
    turns = torch.stack([angles.cos(), -angles.sin(), angles.sin(), angles.cos()], dim=1).view(num, 2, 2)
    moves = 2 * uniform(rng, -settings.translate, settings.translate, num, 1, 2) * share.view(num, 1, 1)
    return points @ turns.mT + moves


def _seen_from_aside(points: Tensor, rng: torch.Generator, settings: ViewSettings) -> Tensor:
    """Map points [N, P, 2] of the views to those of the flat pictures, whose corners lie at random places further in."""
    num = settings.num_views
    corners = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]).expand(num, 4, 2)
    inward = uniform(rng, 0.0, settings.distortion, num, 4, 2)
    inward = torch.where(_chosen(rng, settings.perspective, num).view(-1, 1, 1), inward, 0.0)
    map_ = _homographies(corners * (1 - inward), corners)
    mapped = torch.cat([points, torch.ones_like(points[..., :1])], dim=2) @ map_.mT
    return mapped[..., :2] / mapped[..., 2:]


def _homographies(sources: Tensor, targets: Tensor) -> Tensor:
    """The perspective maps [N, 3, 3] that send four points [N, 4, 2] to four others."""
    ones, zeros = torch.ones_like(sources[..., :1]), torch.zeros_like(sources)
    points = torch.cat([sources, ones], dim=2)
    rows = [
        torch.cat([points, zeros, zeros[..., :1], -targets[..., :1] * sources], dim=2),
        torch.cat([zeros, zeros[..., :1], points, -targets[..., 1:] * sources], dim=2),
    ]
    wanted = torch.cat([targets[..., 0], targets[..., 1]], dim=1)
    solved = torch.linalg.solve(torch.cat(rows, dim=1), wanted)
    return torch.cat([solved, torch.ones_like(solved[:, :1])], dim=1).view(-1, 3, 3)
