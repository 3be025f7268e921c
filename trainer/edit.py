"""One edit without a host: the same straight line as the node `InstructEdit`, on the core functions alone.

Source: Brooks et al. 2022, arXiv:2211.09800, section 3.2.
Shapes: B images, H W height and width in pixels, h w in latent cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..ip2p_core.errors import BadInstruction
from ..ip2p_core.guidance import DualGuidance, GuidanceScales, GuidanceSettings
from ..ip2p_core.image_size import Extent, extent_of, fit, fit_mask, undo, working_extent
from ..ip2p_core.instruction import clean_instruction
from ..ip2p_core.randomness import StepNoise, hash64, start_noise
from ..ip2p_core.relevance import RelevanceMeter, paste_back
from ..ip2p_core.sampling import Denoiser, StepCallback, require_finite, sample, start_sample
from ..ip2p_core.schedule import is_full_denoise, make_sigmas

if TYPE_CHECKING:
    from ..ip2p_core.checkpoint import ModelConfig
    from .edit_backend import Editor


@dataclass(frozen=True, kw_only=True)
class EditSettings:
    """Everything that decides an edit besides the model, the picture, the instruction and the seed."""

    guidance: GuidanceSettings = field(default_factory=GuidanceSettings)
    steps: int = 20
    sampler: str = "euler_ancestral"
    scheduler: str = "normal"
    denoise: float = 1.0
    """Share of the noise levels that is run; below 1 the edit starts from the noised picture."""
    working_resolution: int = 512
    """Longer side in pixels at which the model works."""
    feather: int = 0
    """Soft rim inside the mask, in pixels of the picture."""
    negative_instruction: str = ""
    """Text of the branches `image` and `uncond`."""


class Source(NamedTuple):
    """A batch of pictures of one size, encoded once."""

    image: Tensor
    """[B, H, W, 3] in [0, 1]."""
    image_latents: Tensor
    """[B, C, h, w], posterior mode, unscaled."""
    extent: Extent
    """Working size in pixels."""


class EditResult(NamedTuple):
    """The edited pictures and their latents."""

    image: Tensor
    """[B, H, W, 3] in [0, 1], the size of the source."""
    latents: Tensor
    """[B, C, h, w], scaled."""


def default_settings(config: ModelConfig) -> EditSettings:
    """Return the settings that a model was tuned with."""
    scales = GuidanceScales(
        text_guidance_scale=config.default_text_guidance_scale,
        image_guidance_scale=config.default_image_guidance_scale,
    )
    return EditSettings(
        guidance=GuidanceSettings(scales=scales),
        steps=config.default_steps,
        sampler=config.default_sampler,
        scheduler=config.default_scheduler,
        working_resolution=config.working_resolution,
    )


@torch.inference_mode()
def encode_source(editor: Editor, image: Tensor, settings: EditSettings) -> Source:
    """Fit pictures [B, H, W, 3] in [0, 1] to the working size and encode them."""
    extent = working_extent(extent_of(image), settings.working_resolution, editor.config.size_multiple)
    image_latents = editor.codec.encode(fit(image, extent))
    return Source(image, require_finite(image_latents, "the image encoder"), extent)


@torch.inference_mode()
def sample_edit(
    editor: Editor,
    image_latents: Tensor,
    instructions: Sequence[str],
    settings: EditSettings,
    *,
    seed: int,
    mask: Tensor | None = None,
    callback: StepCallback | None = None,
    meter: RelevanceMeter | None = None,
) -> Tensor:
    """Run the sampler once over a batch.

    Args:
        editor: the model.
        image_latents: [B, C, h, w], unscaled; what the edit is conditioned on.
        instructions: one per image.
        settings: scales, steps and so on.
        seed: seed of the first image; image i has seed + i.
        mask: [B or 1, H, W] in [0, 1], 1 where the picture may change; None for everywhere.
        callback: called once per step.
        meter: is shown every step, where the relevance map is wanted.

    Returns:
        Latents [B, C, h, w], scaled.
    """
    num_images, shape = len(image_latents), image_latents.shape[1:]
    # they stay on the CPU: a sampler looks at them at every step, and a GPU would have to wait each time
    sigmas = make_sigmas(settings.scheduler, editor.schedule, settings.steps, denoise=settings.denoise)
    noise = start_noise(seed, num_images, shape).to(image_latents)
    source_latents = image_latents * editor.scaling_factor
    is_full = is_full_denoise(float(sigmas[0]), editor.schedule)
    x = start_sample(noise, sigmas[0], is_full_denoise=is_full, latents=source_latents)
    denoise = guided_denoiser(editor, image_latents, instructions, settings, meter)
    if mask is not None:
        denoise = _inside(denoise, _latent_mask(mask, image_latents), source_latents, noise)
    step_noise = StepNoise(seed, num_images, shape)
    return sample(settings.sampler, denoise, x, sigmas, noise_sampler=step_noise, callback=callback)


def guided_denoiser(
    editor: Editor,
    image_latents: Tensor,
    instructions: Sequence[str],
    settings: EditSettings,
    meter: RelevanceMeter | None = None,
) -> Denoiser:
    """Make the denoiser of one run: the branches a step needs in one forward, combined by eq. 3."""
    text = editor.text.encode([clean_instruction(instruction) for instruction in instructions])
    null = editor.text.encode([settings.negative_instruction])
    denoiser = editor.denoiser(image_latents, text, null)
    guidance = DualGuidance(settings.guidance, settings.steps)

    def denoise(x: Tensor, sigma: Tensor, step: int) -> Tensor:
        branches = settings.guidance.needed_branches(step, settings.steps)
        predictions = denoiser.predict(x, sigma, branches)
        if meter is not None:
            meter.add(predictions, sigma)
        return guidance.combine(predictions, x, sigma, step)

    return denoise


def _inside(denoise: Denoiser, mask: Tensor, source_latents: Tensor, noise: Tensor) -> Denoiser:
    """Let only the cells inside the mask change, by ComfyUI's rule: outside, the source with the noise of the step."""

    def denoise_inside(x: Tensor, sigma: Tensor, step: int) -> Tensor:
        x = x * mask + (source_latents + noise * sigma) * (1.0 - mask)
        return denoise(x, sigma, step) * mask + source_latents * (1.0 - mask)

    return denoise_inside


def _latent_mask(mask: Tensor, latents: Tensor) -> Tensor:
    extent = Extent(width=latents.shape[-1], height=latents.shape[-2])
    return fit_mask(mask, extent)[:, None].to(latents)


@torch.inference_mode()
def finish_edit(
    editor: Editor, source: Source, latents: Tensor, settings: EditSettings, mask: Tensor | None = None
) -> EditResult:
    """Decode latents [B, C, h, w], restore the source size, and keep the source outside the mask [B or 1, H, W]."""
    edited = undo(editor.codec.decode(latents).to(source.image), extent_of(source.image))
    edited = require_finite(edited, "the image decoder")
    if mask is not None:
        edited = paste_back(source.image, edited, mask.to(edited), settings.feather)
    return EditResult(edited, latents)


def chain_seed(seed: int, link: int) -> int:
    """Return the seed of one link of a chain; the first link has the seed itself, so that it equals a single edit."""
    return seed if link == 0 else hash64(seed, "chain", link)


def edit_source(
    editor: Editor,
    source: Source,
    chain: Sequence[Sequence[str]],
    settings: EditSettings,
    *,
    seed: int = 0,
    mask: Tensor | None = None,
    callback: StepCallback | None = None,
) -> EditResult:
    """Edit encoded pictures, by one instruction each or by several, one after another.

    Between the links of a chain the latents are carried over: nothing is decoded and encoded again.

    Args:
        editor: the model.
        source: the pictures.
        chain: per link the instructions, one per image.
        settings: scales, steps and so on.
        seed: seed of the first image; image i has seed + i.
        mask: [B or 1, H, W] in [0, 1], 1 where the picture may change.
        callback: called once per step.

    Returns:
        The pictures after the last link.

    Raises:
        BadInstruction: if a link has not one instruction per image.
    """
    image_latents = source.image_latents
    for link, instructions in enumerate(chain):
        if len(instructions) != len(image_latents):
            raise BadInstruction(
                f"There are {len(instructions)} instructions for {len(image_latents)} images; give one per image."
            )
        latents = sample_edit(
            editor,
            image_latents,
            instructions,
            settings,
            seed=chain_seed(seed, link),
            mask=mask,
            callback=callback,
        )
        image_latents = latents / editor.scaling_factor
    return finish_edit(editor, source, latents, settings, mask)


def edit_images(
    editor: Editor,
    image: Tensor,
    instructions: Sequence[str],
    settings: EditSettings | None = None,
    *,
    seed: int = 0,
    mask: Tensor | None = None,
    callback: StepCallback | None = None,
) -> EditResult:
    """Edit pictures by instruction, exactly as the node `InstructEdit` does.

    Args:
        editor: the model.
        image: [B, H, W, 3] in [0, 1].
        instructions: one for all images, or one per image.
        settings: scales, steps and so on; by default those that the model was tuned with.
        seed: seed of the first image; image i has seed + i.
        mask: [B or 1, H, W] in [0, 1], 1 where the picture may change.
        callback: called once per step.

    Returns:
        The pictures [B, H, W, 3] and their latents.
    """
    settings = settings or default_settings(editor.config)
    each = list(instructions) * (len(image) if len(instructions) == 1 else 1)
    source = encode_source(editor, image, settings)
    return edit_source(editor, source, [each], settings, seed=seed, mask=mask, callback=callback)
