"""SDEdit (Meng et al. 2022, arXiv:2108.01073) with a text-to-image model: the baseline of the paper's Figures 8 and 9.

The picture is noised up to a share of the noise levels and sampled from there towards the edited caption: the less noise, the
more of it stays. It equals the host's KSampler with a denoise below 1, and diffusers' img2img.
Shapes: B pictures, H W height and width in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...ip2p_core.errors import BadInstruction
from ...ip2p_core.image_size import extent_of, fit, undo, working_extent
from ...ip2p_core.model_config import ModelConfig
from ...ip2p_core.randomness import StepNoise, start_noise
from ...ip2p_core.sampling import require_finite, sample, start_sample
from ...ip2p_core.schedule import is_full_denoise, make_sigmas
from ..edit_backend import Editor
from ..text_denoiser import TextDenoiser


@dataclass(frozen=True, kw_only=True)
class SDEditSettings:
    """How pictures are sampled again.

    Attributes:
        strength: share of the noise levels, above 0 and at most 1; at 1 nothing of the picture is left.
        text_guidance_scale: of eq. 2.
        steps: that are sampled, whatever the strength.
        sampler: a key of sampling.SAMPLERS.
        scheduler: one of schedule.SCHEDULERS.
        working_resolution: longer side in pixels at which the model works.
    """

    strength: float = 0.6
    text_guidance_scale: float = 7.5
    steps: int = 20
    sampler: str = "euler_ancestral"
    scheduler: str = "normal"
    working_resolution: int = 512


def default_sdedit(config: ModelConfig) -> SDEditSettings:
    """Return the settings that a model was tuned with."""
    return SDEditSettings(
        text_guidance_scale=config.default_text_guidance_scale,
        steps=config.default_steps,
        sampler=config.default_sampler,
        scheduler=config.default_scheduler,
        working_resolution=config.working_resolution,
    )


@torch.inference_mode()
def sdedit(model: Editor, image: Tensor, captions: Sequence[str], settings: SDEditSettings, *, seed: int = 0) -> Tensor:
    """Sample pictures again from part-way.

    Args:
        model: a text-to-image model.
        image: [B, H, W, 3] in [0, 1].
        captions: what each shall show afterwards.
        settings: strength, scale, steps and so on.
        seed: of the first picture; picture i has seed + i.

    Returns:
        [B, H, W, 3] in [0, 1], of the same size.

    Raises:
        BadInstruction: if there is not one caption per picture.
    """
    if len(captions) != len(image):
        raise BadInstruction(f"There are {len(captions)} captions for {len(image)} pictures; give one per picture.")
    extent = working_extent(extent_of(image), settings.working_resolution, model.config.size_multiple)
    latents = model.codec.encode(fit(image, extent)) * model.scaling_factor
    sigmas = make_sigmas(settings.scheduler, model.schedule, settings.steps, denoise=settings.strength)
    shape = latents.shape[1:]
    noise = start_noise(seed, len(image), shape).to(latents)
    is_full = is_full_denoise(float(sigmas[0]), model.schedule)
    x = start_sample(noise, sigmas[0], is_full_denoise=is_full, latents=latents)
    scales = [settings.text_guidance_scale] * len(image)
    denoise = TextDenoiser(model, scales, captions, (extent.height, extent.width))
    sampled = sample(settings.sampler, denoise, x, sigmas, noise_sampler=StepNoise(seed, len(image), shape))
    pictures = undo(model.codec.decode(sampled).to(image), extent_of(image))
    return require_finite(pictures, "the image decoder")
