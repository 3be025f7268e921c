"""Sampling with the host: its samplers and schedulers, and the noise of seed + i for image i."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import comfy.k_diffusion.sampling
import comfy.model_management
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from torch import Tensor

from ...ip2p_core.errors import ConfigError
from ...ip2p_core.randomness import NUM_SEEDS, StepNoise, hash64, start_noise
from ...ip2p_core.sampling import require_finite


def sampler_names() -> list[str]:
    """List the host's samplers."""
    return list(comfy.samplers.KSampler.SAMPLERS)


def scheduler_names() -> list[str]:
    """List the host's schedulers."""
    return list(comfy.samplers.KSampler.SCHEDULERS)


def make_sigmas(model, sampler_name: str, scheduler: str, steps: int, denoise: float) -> Tensor:
    """Return the noise levels as the host's KSampler node would use them.

    Raises:
        ConfigError: if the host has no sampler or scheduler of that name.
    """
    for kind, name, known in (("sampler", sampler_name, sampler_names()), ("scheduler", scheduler, scheduler_names())):
        if name not in known:
            raise ConfigError(f'The {kind} "{name}" is unknown to this ComfyUI; choose one of {", ".join(known)}.')
    return comfy.samplers.KSampler(
        model, steps=steps, device=model.load_device, sampler=sampler_name, scheduler=scheduler, denoise=denoise
    ).sigmas


class ItemNoiseSampler(comfy.samplers.KSAMPLER):
    """A host sampler whose fresh noise belongs to each image: image i draws from its own seed."""

    def __init__(self, base: comfy.samplers.KSAMPLER, seeds: list[int]) -> None:
        super().__init__(base.sampler_function, dict(base.extra_options), base.inpaint_options)
        self.seeds = seeds

    def sample(self, model_wrap, sigmas, extra_args, callback, noise, *args, **kwargs):
        """Sample as the host does, with the noise source put in."""
        options = {**self.extra_options, "noise_sampler": self._noise_sampler(noise, sigmas)}
        sampler = comfy.samplers.KSAMPLER(self.sampler_function, options, self.inpaint_options)
        return sampler.sample(model_wrap, sigmas, extra_args, callback, noise, *args, **kwargs)

    def _noise_sampler(self, noise: Tensor, sigmas: Tensor):
        name = getattr(self.sampler_function, "__name__", "")
        if "sde" in name and name.startswith("sample_dpmpp"):
            positive = sigmas[sigmas > 0]
            seeds = [hash64(seed, "brownian") % 2**63 for seed in self.seeds]
            return comfy.k_diffusion.sampling.BrownianTreeNoiseSampler(
                noise, positive.min(), sigmas.max(), seed=seeds, cpu=True
            )
        items = [StepNoise(seed, 1, noise.shape[1:]) for seed in self.seeds]
        return lambda sigma, sigma_next: torch.cat([item(sigma, sigma_next) for item in items]).to(noise)


def make_sampler(sampler_name: str, seeds: list[int]) -> comfy.samplers.KSAMPLER:
    """Return the host's sampler, with noise per image where it draws any."""
    base = comfy.samplers.sampler_object(sampler_name)
    if "noise_sampler" not in inspect.signature(base.sampler_function).parameters:
        return base
    return ItemNoiseSampler(base, seeds)


def item_seeds(seed: int, latent: dict) -> list[int]:
    """Return the seed of every image: seed + i, or seed + its index in the batch that it was taken from."""
    num_items = latent["samples"].shape[0]
    indices = latent.get("batch_index") or range(num_items)
    return [(seed + int(index)) % NUM_SEEDS for index in indices][:num_items]


def run_guider(
    guider,
    latent: dict,
    sampler_name: str,
    sigmas: Tensor,
    seed: int,
    *,
    seeds: list[int] | None = None,
    callback: Callable[[int, Tensor, Tensor, int], None] | None = None,
) -> dict:
    """Sample once.

    Args:
        guider: the host's guider with its conditionings.
        latent: LATENT; a noise_mask inside it keeps what lies outside.
        sampler_name: one of sampler_names().
        sigmas: noise levels, decreasing.
        seed: of the first image.
        seeds: of every image; by default seed + i.
        callback: called once per step; by default the host's progress bar with its preview.

    Returns:
        LATENT with the result.

    Raises:
        NonFiniteLatents: if the result contains NaN or infinity.
    """
    samples = latent["samples"]
    seeds = item_seeds(seed, latent) if seeds is None else seeds
    noise = torch.cat([start_noise(item, 1, samples.shape[1:]) for item in seeds])
    if callback is None:
        callback = latent_preview.prepare_callback(guider.model_patcher, sigmas.shape[-1] - 1)
    result = guider.sample(
        noise,
        samples,
        make_sampler(sampler_name, seeds),
        sigmas,
        denoise_mask=latent.get("noise_mask"),
        callback=callback,
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seed,
    )
    result = require_finite(result.to(comfy.model_management.intermediate_device()), f'the sampler "{sampler_name}"')
    return {**latent, "samples": result}
