"""Noise levels: alphas_cumprod <-> sigma <-> t, and eps, v <-> denoised (Karras et al. 2022, arXiv:2206.00364).

A noisy sample here is x = latents + sigma * noise; the network sees x / sqrt(1 + sigma^2).
Shapes: T training steps (1000), S sampling steps.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from .errors import ConfigError

PredictionType = Literal["eps", "v"]
SCHEDULERS = ("normal", "karras", "simple", "sgm_uniform")


class NoiseSchedule:
    """The noise levels that a model was trained on.

    Args:
        alphas_cumprod: share of signal energy at each training step [T], decreasing, in (0, 1).
    """

    def __init__(self, alphas_cumprod: Tensor) -> None:
        exact = alphas_cumprod.double()
        sigmas = ((1 - exact) / exact) ** 0.5
        self.alphas_cumprod = alphas_cumprod
        self.sigmas = sigmas.float()
        self.log_sigmas = sigmas.log().float()

    @property
    def sigma_min(self) -> float:
        """Smallest noise level of the training."""
        return float(self.sigmas[0])

    @property
    def sigma_max(self) -> float:
        """Largest noise level of the training."""
        return float(self.sigmas[-1])

    def sigma_to_t(self, sigma: Tensor, *, is_quantized: bool = False) -> Tensor:
        """Return the training step of a noise level, interpolated in log sigma.

        Args:
            sigma: noise standard deviation, any shape.
            is_quantized: nearest whole step instead, which is what ComfyUI feeds its models.

        Returns:
            t as float, the shape of `sigma`, 0 to T - 1.
        """
        log_sigmas = self.log_sigmas.to(sigma.device)
        log_sigma = sigma.log().to(log_sigmas.dtype)
        if is_quantized:
            distances = (log_sigma.reshape(1, -1) - log_sigmas[:, None]).abs()
            return distances.argmin(dim=0).reshape(sigma.shape).to(log_sigmas.dtype)
        low = (torch.searchsorted(log_sigmas, log_sigma, right=True) - 1).clamp(0, len(log_sigmas) - 2)
        weight = (log_sigma - log_sigmas[low]) / (log_sigmas[low + 1] - log_sigmas[low])
        return (low + weight).clamp(0, len(log_sigmas) - 1)

    def network_time(self, sigma: Tensor) -> Tensor:
        """Return what the network takes for a noise level: the nearest training step, as ComfyUI feeds its models."""
        return self.sigma_to_t(sigma, is_quantized=True)

    def t_to_sigma(self, t: Tensor) -> Tensor:
        """Return the noise level of a training step, which may be fractional."""
        log_sigmas = self.log_sigmas.to(t.device)
        t = t.float().clamp(0, len(log_sigmas) - 1)
        low, high, weight = t.floor().long(), t.ceil().long(), t.frac()
        return ((1 - weight) * log_sigmas[low] + weight * log_sigmas[high]).exp()


class EdmSchedule(NoiseSchedule):
    """EDM's continuous noise levels, on which CosXL was trained (Karras et al. 2022, arXiv:2206.00364)."""

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 120.0, num: int = 1000) -> None:
        log_sigmas = torch.linspace(math.log(sigma_min), math.log(sigma_max), num, dtype=torch.float64)
        super().__init__(1.0 / (1.0 + log_sigmas.exp() ** 2))

    def network_time(self, sigma: Tensor) -> Tensor:
        """Return c_noise (table 1 of the paper)."""
        return 0.25 * sigma.log()


def make_scaled_linear(beta_start: float = 0.00085, beta_end: float = 0.012, num: int = 1000) -> NoiseSchedule:
    """Build Stable Diffusion's schedule: betas linear in their square root."""
    betas = torch.linspace(beta_start**0.5, beta_end**0.5, num, dtype=torch.float64) ** 2
    return NoiseSchedule(torch.cumprod(1.0 - betas, dim=0))


def make_sigmas(scheduler_name: str, schedule: NoiseSchedule, steps: int, *, denoise: float = 1.0) -> Tensor:
    """Choose the noise levels of a sampling run; the numbers equal ComfyUI's scheduler of that name.

    Args:
        scheduler_name: one of SCHEDULERS.
        schedule: the noise levels of the model.
        steps: number of sampling steps S, at least 1.
        denoise: share of the run that is kept, counted from its end; below 1 the run starts from a noised image.

    Returns:
        Decreasing noise levels [S + 1], the last one 0.

    Raises:
        ConfigError: if the name is unknown, or steps or denoise are out of range.
    """
    mistakes = []
    if scheduler_name not in SCHEDULERS:
        mistakes.append(f"Scheduler {scheduler_name!r} is unknown; choose one of {', '.join(SCHEDULERS)}.")
    if steps < 1:
        mistakes.append(f"steps is {steps}; it must be at least 1.")
    if not 0.0 < denoise <= 1.0:
        mistakes.append(f"denoise is {denoise:g}; it must be above 0 and at most 1.")
    if mistakes:
        raise ConfigError(*mistakes)
    total = steps if denoise > 0.9999 else int(steps / denoise)
    return _full_run(scheduler_name, schedule, total)[-(steps + 1) :]


def _full_run(scheduler_name: str, schedule: NoiseSchedule, steps: int) -> Tensor:
    last = len(schedule.sigmas) - 1
    if scheduler_name == "karras":
        sigmas = _karras(steps, schedule.sigma_min, schedule.sigma_max)
    elif scheduler_name == "simple":
        stride = len(schedule.sigmas) / steps
        sigmas = torch.stack([schedule.sigmas[-(1 + int(i * stride))] for i in range(steps)])
    elif scheduler_name == "sgm_uniform":
        sigmas = schedule.t_to_sigma(torch.linspace(last, 0, steps + 1)[:-1])
    else:
        sigmas = schedule.t_to_sigma(torch.linspace(last, 0, steps))
    return torch.cat([sigmas, sigmas.new_zeros(1)])


def _karras(steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    ramp = torch.linspace(0, 1, steps)
    min_inv_rho, max_inv_rho = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    sigmas: Tensor = (max_inv_rho + ramp * (min_inv_rho - max_inv_rho)) ** rho  # arXiv:2206.00364, eq. 5
    return sigmas


def is_full_denoise(sigma: float, schedule: NoiseSchedule) -> bool:
    """Say whether a run that starts at this noise level starts from noise alone, by ComfyUI's rule."""
    return sigma > schedule.sigma_max or math.isclose(sigma, schedule.sigma_max, rel_tol=1e-5)


def scale_model_input(x: Tensor, sigma: Tensor) -> Tensor:
    """Bring a noisy sample to unit variance, as the network saw it in training."""
    return x / (1.0 + sigma**2) ** 0.5


def eps_to_denoised(eps: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
    """Turn a noise prediction into an estimate of the clean latents."""
    return x - sigma * eps


def denoised_to_eps(denoised: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
    """Turn an estimate of the clean latents into a noise prediction."""
    return (x - denoised) / sigma


def v_to_denoised(v: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
    """Turn a v-prediction (Salimans and Ho 2022, arXiv:2202.00512) into an estimate of the clean latents."""
    return x / (1.0 + sigma**2) - v * sigma / (1.0 + sigma**2) ** 0.5


def denoised_to_v(denoised: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
    """Turn an estimate of the clean latents into a v-prediction."""
    return (x / (1.0 + sigma**2) - denoised) * (1.0 + sigma**2) ** 0.5 / sigma


def output_to_denoised(output: Tensor, x: Tensor, sigma: Tensor, prediction_type: PredictionType) -> Tensor:
    """Turn the network's output, eps or v, into an estimate of the clean latents."""
    return eps_to_denoised(output, x, sigma) if prediction_type == "eps" else v_to_denoised(output, x, sigma)
