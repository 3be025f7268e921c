"""Classifier-free guidance with two conditionings (Brooks et al. 2022, arXiv:2211.09800, eq. 3).

Shapes: B batch, C latent channels, H W latent height and width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from .errors import ConfigError


class Predictions(NamedTuple):
    """The three predictions of one step, each [B, C, H, W], all eps or all denoised.

    None marks a branch that was not computed; that is allowed only where its weight is 0.
    """

    full: Tensor | None  # e(z_t, c_I, c_T)
    image: Tensor | None  # e(z_t, c_I, null)
    uncond: Tensor | None  # e(z_t, null, null)


class Branches(NamedTuple):
    """Which of the three predictions a step needs."""

    full: bool
    image: bool
    uncond: bool


@dataclass(frozen=True, kw_only=True)
class GuidanceScales:
    """The two guidance weights. A scale of 1 switches that guidance off; both 1 is a plain conditional model."""

    text_guidance_scale: float = 7.5
    """s_T: how strongly the result follows the instruction."""
    image_guidance_scale: float = 1.5
    """s_I: how strongly the result keeps to the input image."""

    def __post_init__(self) -> None:
        for name in ("text_guidance_scale", "image_guidance_scale"):
            value = getattr(self, name)
            if not math.isfinite(value):
                raise ConfigError(f"{name} is {value}; it must be a finite number, usually 1 to 10.")


def needed_branches(scales: GuidanceScales) -> Branches:
    """Say which predictions have a weight other than 0 in eq. 3.

    Grouped by prediction, eq. 3 reads (1 - s_I) uncond + (s_I - s_T) image + s_T full.
    """
    s_T, s_I = scales.text_guidance_scale, scales.image_guidance_scale
    return Branches(full=not _same(s_T, 0.0), image=not _same(s_I, s_T), uncond=not _same(s_I, 1.0))


def guide(predictions: Predictions, scales: GuidanceScales) -> Tensor:
    """Combine the predictions of one sampling step.

    The weights sum to 1, so the result is the same whether it is computed on eps or on denoised.

    Args:
        predictions: the three predictions, all in the same parameterisation; None where the weight is 0.
        scales: s_T and s_I.

    Returns:
        The guided prediction [B, C, H, W], in the parameterisation of the input.

    Raises:
        ValueError: if a prediction with a weight other than 0 is missing.
    """
    s_T, s_I = scales.text_guidance_scale, scales.image_guidance_scale
    full, image, uncond = predictions
    if full is not None and image is not None and uncond is not None:
        return uncond + s_I * (image - uncond) + s_T * (full - image)  # eq. 3
    needed = needed_branches(scales)
    missing = [
        name
        for name, is_needed, prediction in zip(Branches._fields, needed, predictions, strict=True)
        if is_needed and prediction is None
    ]
    if missing:
        raise ValueError(f"guide needs the prediction {missing[0]!r} at s_T = {s_T:g} and s_I = {s_I:g}.")
    return _guide_two(predictions, s_T, s_I)


def _guide_two(predictions: Predictions, s_T: float, s_I: float) -> Tensor:
    """Eq. 3 where at least one prediction is absent because its weight is 0."""
    terms = [
        (weight, prediction)
        for weight, prediction in zip((s_T, s_I - s_T, 1.0 - s_I), predictions, strict=True)
        if prediction is not None
    ]
    _, base = terms[-1]
    guided = base
    for weight, prediction in terms[:-1]:
        guided = guided + weight * (prediction - base)
    return guided


def guide_text(cond: Tensor, uncond: Tensor, text_guidance_scales: Tensor) -> Tensor:
    """Guide a text-to-image model, each row with its own scale (Ho & Salimans 2022, arXiv:2207.12598).

    Args:
        cond: predictions with the text [B, C, H, W].
        uncond: predictions without it.
        text_guidance_scales: one per row [B]; 1 is the plain conditional model.

    Returns:
        The guided prediction [B, C, H, W], in the parameterisation of the input.
    """
    scales = text_guidance_scales.to(cond).reshape(-1, *[1] * (cond.ndim - 1))
    return uncond + scales * (cond - uncond)


def _same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=0.0, abs_tol=1e-9)


@dataclass(frozen=True, kw_only=True)
class ApgSettings:
    """Adaptive projected guidance (Sadat et al. 2024, arXiv:2410.02416), for both guidance directions."""

    eta: float = 0.0
    """Share kept of the part parallel to the prediction; 1 keeps all of it, 0 removes oversaturation."""
    norm_threshold: float = 0.0
    """Longest allowed guidance vector, in latent units; 0 switches the limit off."""
    momentum: float = 0.0
    """Share of the running sum of earlier steps; negative values push away from them, 0 switches it off."""


@dataclass(frozen=True, kw_only=True)
class GuidanceSettings:
    """Everything that decides how the three predictions become one, over a whole sampling run.

    Attributes:
        scales: s_T and s_I inside their intervals.
        text_interval: steps where s_T holds, as fractions of the run; outside it s_T is 1.
        image_interval: steps where s_I holds, as fractions of the run; outside it s_I is 1.
        rescale: guidance rescale (Lin et al. 2023, arXiv:2305.08891), 0 off to 1 full.
        apg: adaptive projected guidance, or None for eq. 3 as it stands.

    Raises:
        ConfigError: if an interval or rescale lies outside [0, 1].
    """

    scales: GuidanceScales = field(default_factory=GuidanceScales)
    text_interval: tuple[float, float] = (0.0, 1.0)
    image_interval: tuple[float, float] = (0.0, 1.0)
    rescale: float = 0.0
    apg: ApgSettings | None = None

    def __post_init__(self) -> None:
        mistakes = [
            f"{name} is {interval[0]:g} to {interval[1]:g}; it needs 0 <= start <= end <= 1."
            for name, interval in (("text_interval", self.text_interval), ("image_interval", self.image_interval))
            if not 0.0 <= interval[0] <= interval[1] <= 1.0
        ]
        if not 0.0 <= self.rescale <= 1.0:
            mistakes.append(f"rescale is {self.rescale:g}; it must lie between 0 (off) and 1.")
        if mistakes:
            raise ConfigError(*mistakes)

    def scales_at(self, step: int, num_steps: int) -> GuidanceScales:
        """Return the scales of one step; a scale outside its interval is 1."""
        scales = self.scales
        if not _is_inside(self.text_interval, step, num_steps):
            scales = replace(scales, text_guidance_scale=1.0)
        if not _is_inside(self.image_interval, step, num_steps):
            scales = replace(scales, image_guidance_scale=1.0)
        return scales

    def needed_branches(self, step: int, num_steps: int) -> Branches:
        """Say which predictions one step needs; rescale and APG always need `full`."""
        scales = self.scales_at(step, num_steps)
        if self.apg is not None:
            has_text = not _same(scales.text_guidance_scale, 1.0)
            has_image = not _same(scales.image_guidance_scale, 1.0)
            return Branches(full=True, image=has_text or has_image, uncond=has_image)
        needed = needed_branches(scales)
        return needed._replace(full=True) if self.rescale > 0 else needed


def _is_inside(interval: tuple[float, float], step: int, num_steps: int) -> bool:
    start, end = interval
    fraction, tolerance = step / num_steps, 1e-9
    return start - tolerance <= fraction < end - tolerance or (end >= 1.0 and fraction >= start - tolerance)


class DualGuidance:
    """Guidance of one sampling run: intervals, rescale and APG around eq. 3.

    Make a new object for every run; the running sums of APG's momentum live here.
    """

    def __init__(self, settings: GuidanceSettings, num_steps: int) -> None:
        self.settings = settings
        self.num_steps = num_steps
        self._text_sum: Tensor | None = None
        self._image_sum: Tensor | None = None

    def combine(self, predictions: Predictions, x: Tensor, sigma: Tensor | float, step: int) -> Tensor:
        """Combine the denoised predictions of one step.

        Args:
            predictions: denoised [B, C, H, W] each; None where `needed_branches` says so.
            x: noisy sample [B, C, H, W], in units of sigma.
            sigma: noise standard deviation of `x`, a number, a scalar tensor or [B].
            step: index of the step, 0 to num_steps - 1.

        Returns:
            The guided denoised prediction [B, C, H, W].

        Raises:
            ValueError: if a prediction that the step needs is missing.
        """
        scales = self.settings.scales_at(step, self.num_steps)
        if self.settings.apg is None:
            guided = guide(predictions, scales)
        else:
            guided = self._project(predictions, scales, self.settings.apg)
        if self.settings.rescale > 0:
            guided = _rescale(guided, _present(predictions.full, "full"), x, sigma, self.settings.rescale)
        return guided

    def _project(self, predictions: Predictions, scales: GuidanceScales, apg: ApgSettings) -> Tensor:
        """APG for two directions: full + (s_T - 1) P(full - image) + (s_I - 1) P(image - uncond)."""
        full = _present(predictions.full, "full")
        s_T, s_I = scales.text_guidance_scale, scales.image_guidance_scale
        guided = full
        if not _same(s_T, 1.0):
            text_sum = full - _present(predictions.image, "image")
            if apg.momentum and self._text_sum is not None:
                text_sum = text_sum + apg.momentum * self._text_sum
            self._text_sum = text_sum
            guided = guided + (s_T - 1.0) * project(text_sum, full, apg)
        if not _same(s_I, 1.0):
            image_sum = _present(predictions.image, "image") - _present(predictions.uncond, "uncond")
            if apg.momentum and self._image_sum is not None:
                image_sum = image_sum + apg.momentum * self._image_sum
            self._image_sum = image_sum
            guided = guided + (s_I - 1.0) * project(image_sum, full, apg)
        return guided


def project(direction: Tensor, onto: Tensor, apg: ApgSettings) -> Tensor:
    """Limit a guidance direction and weaken its part parallel to `onto` (arXiv:2410.02416, algorithm 1).

    Args:
        direction: guidance vector [B, C, H, W].
        onto: denoised prediction [B, C, H, W] that gives the parallel direction.
        apg: limit and share of the parallel part.

    Returns:
        The direction to add [B, C, H, W].
    """
    dims = tuple(range(1, direction.ndim))
    if apg.norm_threshold > 0:
        norm = torch.linalg.vector_norm(direction, dim=dims, keepdim=True)
        direction = direction * (apg.norm_threshold / norm.clamp_min(1e-12)).clamp_max(1.0)
    if apg.eta == 1.0:
        return direction
    unit: Tensor = onto / torch.linalg.vector_norm(onto, dim=dims, keepdim=True).clamp_min(1e-12)
    parallel = (direction * unit).sum(dim=dims, keepdim=True) * unit
    return direction - parallel + apg.eta * parallel


def _rescale(guided: Tensor, full: Tensor, x: Tensor, sigma: Tensor | float, rescale: float) -> Tensor:
    """Pull the guided eps back towards the standard deviation of `full` (arXiv:2305.08891, section 3.4)."""
    if isinstance(sigma, Tensor) and sigma.ndim == 1:
        sigma = sigma.reshape(-1, *[1] * (x.ndim - 1))
    dims = tuple(range(1, x.ndim))
    guided_eps, full_eps = (x - guided) / sigma, (x - full) / sigma
    std_guided, std_full = guided_eps.std(dim=dims, keepdim=True), full_eps.std(dim=dims, keepdim=True)
    rescaled = guided_eps * (std_full / std_guided)
    return x - sigma * (rescale * rescaled + (1.0 - rescale) * guided_eps)


def _present(prediction: Tensor | None, name: str) -> Tensor:
    if prediction is None:
        raise ValueError(f"this step needs the prediction {name!r}; see GuidanceSettings.needed_branches.")
    return prediction
