"""Tiny real models, seeded: diffusers' U-Net and autoencoder, transformers' text encoder, written by our own exporter."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from ip2p.ip2p_core.checkpoint import write_checkpoint
from ip2p.ip2p_core.model_config import ModelConfig

TEXT_WIDTH = 40
NUM_HEADS = 4
CLIP_VOCAB = 49408


class TinyModels(NamedTuple):
    """The parts of a tiny model and its description."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text: CLIPTextModel
    config: ModelConfig


def unet_config(in_channels: int = 8, **changes: Any) -> dict[str, Any]:
    config: dict[str, Any] = {
        "in_channels": in_channels,
        "out_channels": 4,
        "layers_per_block": 1,
        "block_out_channels": [32, 32, 64],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "cross_attention_dim": TEXT_WIDTH,
        "attention_head_dim": NUM_HEADS,
        "norm_num_groups": 8,
        "sample_size": 16,
    }
    return config | changes


def vae_config(factor: int = 4, scaling_factor: float = 0.6, **changes: Any) -> dict[str, Any]:
    num_levels = factor.bit_length()
    config: dict[str, Any] = {
        "block_out_channels": [32] * (num_levels - 1) + [64],
        "down_block_types": ["DownEncoderBlock2D"] * num_levels,
        "up_block_types": ["UpDecoderBlock2D"] * num_levels,
        "layers_per_block": 1,
        "latent_channels": 4,
        "norm_num_groups": 8,
        "scaling_factor": scaling_factor,
        "sample_size": 64,
    }
    return config | changes


def text_config(**changes: Any) -> dict[str, Any]:
    config: dict[str, Any] = {
        "vocab_size": CLIP_VOCAB,
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 160,
        "num_hidden_layers": 2,
        "num_attention_heads": 5,
        "max_position_embeddings": 77,
        "hidden_act": "quick_gelu",
        "projection_dim": TEXT_WIDTH,
        "pad_token_id": 49407,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
    }
    return config | changes


def tiny_models(
    in_channels: int = 8,
    kind: Literal["editor", "generator"] | None = None,
    prediction_type: Literal["eps", "v"] = "eps",
    factor: int = 4,
    scaling_factor: float = 0.6,
    seed: int = 0,
) -> TinyModels:
    """Build the parts with seeded random weights; all in evaluation mode."""
    unet_kwargs, vae_kwargs, text_kwargs = unet_config(in_channels), vae_config(factor, scaling_factor), text_config()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(**unet_kwargs).eval()
        vae = AutoencoderKL(**vae_kwargs).eval()
        text = CLIPTextModel(CLIPTextConfig(**text_kwargs)).eval()
    config = ModelConfig(
        kind=kind or ("editor" if in_channels == 8 else "generator"),
        in_channels=in_channels,
        num_heads=NUM_HEADS,
        prediction_type=prediction_type,
        unet=unet_kwargs,
        vae=vae_kwargs,
        text_encoder=text_kwargs,
        default_text_guidance_scale=4.0,
        default_image_guidance_scale=1.5,
        default_steps=4,
        working_resolution=64,
        size_multiple=16,
        base="random weights",
        recipe="tests/tiny.py",
        licence="MIT",
    )
    return TinyModels(unet, vae, text, config)


def tiny_editor(path: Path, in_channels: int = 8, dtype: torch.dtype = torch.float16, **options: Any) -> TinyModels:
    """Write a tiny model to one file in our layout; the returned parts hold the same, rounded, weights."""
    models = tiny_models(in_channels, **options)
    for part in (models.unet, models.vae, models.text):
        part.to(dtype).float()
    write_checkpoint(
        path,
        models.unet.state_dict(),
        models.vae.state_dict(),
        models.text.state_dict(),
        models.config,
        dtype,
    )
    return models
