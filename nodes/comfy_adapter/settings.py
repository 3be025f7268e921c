"""The record of a model file, carried on MODEL, CLIP and VAE, and the values it stands for."""

from __future__ import annotations

import comfy.model_base

from ...ip2p_core.guidance import GuidanceScales
from ...ip2p_core.model_config import ModelConfig, family_config

ATTACHMENT = "ip2p_config"


def attach(patcher, config: ModelConfig) -> None:
    """Store the record on a patcher; the host copies it to every clone."""
    patcher.set_attachments(ATTACHMENT, config)


def attached(*owners) -> ModelConfig | None:
    """Return the first record found on models, CLIPs or VAEs."""
    for owner in owners:
        patcher = getattr(owner, "patcher", owner)
        config = getattr(patcher, "attachments", {}).get(ATTACHMENT)
        if config is not None:
            return config
    return None


def config_of_model(model) -> ModelConfig:
    """Return the record of a MODEL; for one from another loader, that of its family."""
    config = attached(model)
    if config is not None:
        return config
    channels = model.model.model_config.unet_config.get("in_channels", 8)
    if not isinstance(model.model, comfy.model_base.SDXL):
        return family_config("sd1", channels)
    is_cosxl = model.model.model_type == comfy.model_base.ModelType.V_PREDICTION_EDM
    return family_config("cosxl" if is_cosxl else "sdxl", channels)


def config_of_encoders(clip, vae) -> ModelConfig:
    """Return the record of a CLIP and a VAE; for those of another loader, that of their family."""
    config = attached(vae, clip)
    if config is not None:
        return config
    return family_config("sdxl" if hasattr(getattr(clip, "tokenizer", None), "clip_g") else "sd1", 8)


def choose_scales(config: ModelConfig, text_guidance_scale: float, image_guidance_scale: float) -> GuidanceScales:
    """Return the scales, a negative one meaning the model's own."""
    return GuidanceScales(
        text_guidance_scale=config.default_text_guidance_scale if text_guidance_scale < 0 else text_guidance_scale,
        image_guidance_scale=config.default_image_guidance_scale if image_guidance_scale < 0 else image_guidance_scale,
    )
