"""Samplers over a plain denoiser (Karras et al. 2022, arXiv:2206.00364); the noise source is an argument.

The numbers equal the samplers of the same name in k-diffusion and ComfyUI.
Shapes: B batch, C latent channels, H W latent height and width, S steps.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .errors import ConfigError, NonFiniteLatents

Denoiser = Callable[[Tensor, Tensor, int], Tensor]
"""(x [B, C, H, W] in units of sigma, sigma scalar tensor, step) -> denoised [B, C, H, W]."""
NoiseSampler = Callable[[Tensor, Tensor], Tensor]
"""(sigma, sigma_next) -> unit noise [B, C, H, W]."""
StepCallback = Callable[[int, Tensor], None]
"""(step, denoised [B, C, H, W]), called once per step."""
AfterStep = Callable[[Tensor, int], Tensor]
"""(x [B, C, H, W] after a step, step) -> what the next step starts from."""


def start_sample(noise: Tensor, sigma: Tensor, *, is_full_denoise: bool, latents: Tensor | None = None) -> Tensor:
    """Make the first noisy sample, by ComfyUI's rule.

    Args:
        noise: unit noise [B, C, H, W].
        sigma: first noise level, scalar.
        is_full_denoise: start from noise alone, scaled by sqrt(1 + sigma^2); `latents` are then not used.
        latents: scaled latents [B, C, H, W] that a partial run starts from.

    Returns:
        x [B, C, H, W], in units of sigma.

    Raises:
        ValueError: if a partial run has no latents.
    """
    if is_full_denoise:
        return noise * (1.0 + sigma**2) ** 0.5
    if latents is None:
        raise ValueError("A run that does not start from noise alone needs the latents to start from.")
    return latents + noise * sigma


def ancestral_step(sigma: Tensor, sigma_next: Tensor, eta: float = 1.0) -> tuple[Tensor, Tensor]:
    """Split a step into the noise level to step down to and the noise to add again."""
    sigma_up = torch.minimum(sigma_next, eta * (sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2) ** 0.5)
    return (sigma_next**2 - sigma_up**2) ** 0.5, sigma_up


def sample_euler(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    callback: StepCallback | None = None,
    after_step: AfterStep | None = None,
) -> Tensor:
    """Sample with Euler steps (arXiv:2206.00364, algorithm 2 without churn).

    Args:
        denoise: the model with its conditioning and guidance.
        x: first noisy sample [B, C, H, W].
        sigmas: decreasing noise levels [S + 1].
        callback: called once per step.
        after_step: changes the sample between two steps, and at the end.

    Returns:
        Latents [B, C, H, W], scaled.
    """
    for step in range(len(sigmas) - 1):
        sigma, sigma_next = sigmas[step], sigmas[step + 1]
        denoised = denoise(x, sigma, step)
        _report(callback, step, denoised)
        x = _continue(after_step, x + (x - denoised) / sigma * (sigma_next - sigma), step)
    return x


def sample_euler_ancestral(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise_sampler: NoiseSampler,
    eta: float = 1.0,
    callback: StepCallback | None = None,
    after_step: AfterStep | None = None,
) -> Tensor:
    """Sample with Euler steps and fresh noise after each.

    Args:
        denoise: the model with its conditioning and guidance.
        x: first noisy sample [B, C, H, W].
        sigmas: decreasing noise levels [S + 1].
        noise_sampler: source of the fresh noise.
        eta: share of the fresh noise; 0 is plain Euler.
        callback: called once per step.
        after_step: changes the sample between two steps, and at the end.

    Returns:
        Latents [B, C, H, W], scaled.
    """
    for step in range(len(sigmas) - 1):
        sigma, sigma_next = sigmas[step], sigmas[step + 1]
        denoised = denoise(x, sigma, step)
        sigma_down, sigma_up = ancestral_step(sigma, sigma_next, eta)
        _report(callback, step, denoised)
        if sigma_down == 0:
            x = _continue(after_step, denoised, step)
            continue
        x = x + (x - denoised) / sigma * (sigma_down - sigma)
        if eta:
            x = x + noise_sampler(sigma, sigma_next).to(x) * sigma_up
        x = _continue(after_step, x, step)
    return x


def sample_dpmpp_2m(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    callback: StepCallback | None = None,
    after_step: AfterStep | None = None,
) -> Tensor:
    """Sample with DPM-Solver++(2M) (Lu et al. 2022, arXiv:2211.01095, algorithm 2).

    Args:
        denoise: the model with its conditioning and guidance.
        x: first noisy sample [B, C, H, W].
        sigmas: decreasing noise levels [S + 1].
        callback: called once per step.
        after_step: changes the sample between two steps, and at the end.

    Returns:
        Latents [B, C, H, W], scaled.
    """
    previous: Tensor | None = None
    for step in range(len(sigmas) - 1):
        sigma, sigma_next = sigmas[step], sigmas[step + 1]
        denoised = denoise(x, sigma, step)
        _report(callback, step, denoised)
        h = sigma.log() - sigma_next.log()
        extrapolated = denoised
        if previous is not None and sigma_next > 0:
            r = (sigmas[step - 1].log() - sigma.log()) / h
            extrapolated = (1 + 1 / (2 * r)) * denoised - (1 / (2 * r)) * previous
        x = _continue(after_step, (sigma_next / sigma) * x - (-h).expm1() * extrapolated, step)
        previous = denoised
    return x


SAMPLERS: dict[str, Callable[..., Tensor]] = {
    "euler": sample_euler,
    "euler_ancestral": sample_euler_ancestral,
    "dpmpp_2m": sample_dpmpp_2m,
}
NEEDS_NOISE = frozenset({"euler_ancestral"})


def sample(
    sampler_name: str,
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise_sampler: NoiseSampler,
    callback: StepCallback | None = None,
    after_step: AfterStep | None = None,
) -> Tensor:
    """Run the sampler of that name; `noise_sampler` is used by the ancestral ones only.

    Args:
        sampler_name: a key of SAMPLERS.
        denoise: the model with its conditioning and guidance.
        x: first noisy sample [B, C, H, W].
        sigmas: decreasing noise levels [S + 1].
        noise_sampler: source of fresh noise.
        callback: called once per step.
        after_step: changes the sample between two steps, and at the end.

    Returns:
        Latents [B, C, H, W], scaled.

    Raises:
        ConfigError: if the name is unknown.
        NonFiniteLatents: if the result contains NaN or infinity.
    """
    if sampler_name not in SAMPLERS:
        raise ConfigError(f"Sampler {sampler_name!r} is unknown; choose one of {', '.join(SAMPLERS)}.")
    options = {"noise_sampler": noise_sampler} if sampler_name in NEEDS_NOISE else {}
    latents = SAMPLERS[sampler_name](denoise, x, sigmas, callback=callback, after_step=after_step, **options)
    return require_finite(latents, f"the sampler {sampler_name!r}")


def require_finite(latents: Tensor, source: str) -> Tensor:
    """Return the latents, or refuse them when they hold NaN or infinity.

    Args:
        latents: any tensor.
        source: where they come from, for the message.

    Returns:
        The same latents.

    Raises:
        NonFiniteLatents: naming the source and how many values are bad.
    """
    num_bad = int((~torch.isfinite(latents)).sum())
    if num_bad:
        raise NonFiniteLatents(
            f"The latents from {source} contain NaN or infinity ({num_bad} of {latents.numel()} values), which would "
            "decode to a black picture. Lower the guidance scales, or run the model in float32 instead of half precision."
        )
    return latents


def _report(callback: StepCallback | None, step: int, denoised: Tensor) -> None:
    if callback is not None:
        callback(step, denoised)


def _continue(after_step: AfterStep | None, x: Tensor, step: int) -> Tensor:
    return x if after_step is None else after_step(x, step)
