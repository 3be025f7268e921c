"""The steps of one edit as plain functions, so that InstructEdit is a composition of what the other nodes do."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..ip2p_core import image_size
from ..ip2p_core.errors import BadImageSize, ConfigError
from ..ip2p_core.guidance import ApgSettings, GuidanceSettings
from ..ip2p_core.instruction import split_lines
from ..ip2p_core.relevance import RelevanceMeter, paste_back
from ..ip2p_core.sampling import require_finite
from .comfy_adapter import codec, roles, sampling, settings, text
from .comfy_adapter.guider import InstructGuider, require_editor
from .edit_inputs import MODEL_DEFAULT


class Conditioned(NamedTuple):
    """What Instruct Conditioning returns."""

    full: list
    image: list
    uncond: list
    latent: dict


def condition(
    clip,
    vae,
    image: Tensor,
    instruction: str,
    negative_instruction: str = "",
    working_resolution: int = 0,
    mask: Tensor | None = None,
) -> Conditioned:
    """Make the three conditionings and the source latents of a batch of images.

    Args:
        clip: the host's CLIP.
        vae: the host's VAE.
        image: [B, H, W, C] in [0, 1].
        instruction: one line for all images, or one per image.
        negative_instruction: the same for what to stay away from; empty for none.
        working_resolution: longer side in pixels, 0 for the model's own.
        mask: [B, H, W] in [0, 1], 1 where to edit; None for everywhere.

    Returns:
        full, image, uncond and LATENT.
    """
    config = settings.config_of_encoders(clip, vae)
    image = codec.as_rgb(image)
    num_images = image.shape[0]
    instructions = split_lines(instruction, num_images)
    negatives = split_lines(negative_instruction, num_images) if negative_instruction.strip() else [""] * num_images
    extent = image_size.working_extent(
        image_size.extent_of(image),
        working_resolution or config.working_resolution,
        config.size_multiple,
    )
    image_latents = codec.encode(vae, image_size.fit(image, extent))
    latent = {"samples": image_latents}
    if mask is not None:
        latent["noise_mask"] = image_size.fit_mask(match_mask(mask, image), extent)[:, None]
    with_image = {roles.IMAGE_LATENTS: image_latents}
    return Conditioned(
        full=text.encode_texts(clip, instructions, {**with_image, roles.ROLE: "full"}),
        image=text.encode_texts(clip, negatives, {**with_image, roles.ROLE: "image"}),
        uncond=text.encode_texts(clip, negatives, {roles.ROLE: "uncond"}),
        latent=latent,
    )


def match_mask(mask: Tensor, image: Tensor) -> Tensor:
    """Give the mask [B, H, W] the batch of the images [B, H, W, C]; it must have their size.

    Raises:
        BadImageSize: if size or batch do not fit.
    """
    mask = mask.reshape(-1, *mask.shape[-2:])
    if mask.shape[-2:] != image.shape[1:3] or mask.shape[0] not in (1, image.shape[0]):
        raise BadImageSize(
            f"The mask is {mask.shape[0]} of {mask.shape[-1]}x{mask.shape[-2]} and the image {image.shape[0]} of "
            f'{image.shape[2]}x{image.shape[1]}; one mask, or one per image, of the image\'s size is needed on "mask". '
            "Resize the mask first."
        )
    return mask.expand(image.shape[0], -1, -1)


def guidance_settings(  # noqa: PLR0913
    model,
    text_guidance_scale: float,
    image_guidance_scale: float,
    *,
    text_start: float = 0.0,
    text_end: float = 1.0,
    image_start: float = 0.0,
    image_end: float = 1.0,
    rescale: float = 0.0,
    apg: bool = False,
    apg_eta: float = 0.0,
    apg_norm_threshold: float = 0.0,
    apg_momentum: float = 0.0,
) -> GuidanceSettings:
    """Turn the widgets into the core's settings; a negative scale is the model's own."""
    projected = ApgSettings(eta=apg_eta, norm_threshold=apg_norm_threshold, momentum=apg_momentum)
    return GuidanceSettings(
        scales=settings.choose_scales(settings.config_of_model(model), text_guidance_scale, image_guidance_scale),
        text_interval=(text_start, text_end),
        image_interval=(image_start, image_end),
        rescale=rescale,
        apg=projected if apg else None,
    )


def make_guider(
    model, full: list, image: list, uncond: list, guidance: GuidanceSettings, meter: RelevanceMeter | None = None
) -> InstructGuider:
    """Check model and wiring, and make the guider."""
    require_editor(model)
    roles.check_roles(full, image, uncond)
    guider = InstructGuider(model, guidance, meter)
    guider.set_conds(full, image, uncond)
    return guider


class Sampled(NamedTuple):
    """What Dual CFG Sampler returns."""

    latent: dict
    relevance_map: Tensor


def sample(
    model,
    conditioned: Conditioned,
    guidance: GuidanceSettings,
    *,
    seed: int,
    steps: int,
    sampler_name: str,
    scheduler: str,
    denoise: float = 1.0,
) -> Sampled:
    """Sample once, with the model's own values where a widget says so."""
    config = settings.config_of_model(model)
    meter = RelevanceMeter()
    guider = make_guider(model, conditioned.full, conditioned.image, conditioned.uncond, guidance, meter)
    sampler_name = config.default_sampler if sampler_name == MODEL_DEFAULT else sampler_name
    scheduler = config.default_scheduler if scheduler == MODEL_DEFAULT else scheduler
    sigmas = sampling.make_sigmas(model, sampler_name, scheduler, steps or config.default_steps, denoise)
    latent = sampling.run_guider(guider, conditioned.latent, sampler_name, sigmas, seed)
    return Sampled(latent, _relevance_map(meter, latent["samples"]))


def _relevance_map(meter: RelevanceMeter, samples: Tensor) -> Tensor:
    """Return the map [B, h, w] at the size of the latent; zeros where nothing was sampled."""
    if meter.num_steps == 0:
        return torch.zeros(samples.shape[0], *samples.shape[-2:])
    return meter.map().cpu()


def decode(vae, latent: dict, original: Tensor, mask: Tensor | None = None, mask_feather: int = 8) -> Tensor:
    """Decode an edit to the exact size of the original, and keep the original outside the mask.

    Args:
        vae: the host's VAE.
        latent: LATENT of the edit.
        original: [B, H, W, C] in [0, 1].
        mask: [B, H, W] in [0, 1], or None to keep nothing.
        mask_feather: width in pixels of the soft edge.

    Returns:
        [B, H, W, 3] in [0, 1].
    """
    original = codec.as_rgb(original)
    samples = require_finite(latent["samples"], '"latent"')
    if samples.shape[0] % original.shape[0]:
        raise ConfigError(
            f'There are {samples.shape[0]} edits for {original.shape[0]} images on "image"; the first must be a multiple '
            "of the second. Connect the images that were edited."
        )
    original = original.repeat(samples.shape[0] // original.shape[0], 1, 1, 1)
    edited = image_size.undo(codec.decode(vae, samples), image_size.extent_of(original))
    if mask is None:
        return edited
    return paste_back(original, edited.to(original), match_mask(mask, original), mask_feather)
