"""What a model file says about itself: the JSON under `ip2p.config`, and the known families of full size."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from .errors import CheckpointError
from .schedule import PredictionType

MODEL_CONFIG_KEY = "ip2p.config"
FORMAT_VERSION = 1
Family = Literal["sd1", "sd2", "sdxl", "cosxl", "tiny"]
Kind = Literal["editor", "generator"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything needed to build and run a model besides its weights.

    Attributes:
        format_version: of this record; a newer one is refused.
        kind: "editor" (8 input channels) or "generator" (4).
        in_channels: of the U-Net.
        num_heads: attention heads, the same everywhere; None where num_head_channels holds.
        num_head_channels: channels per attention head; None where num_heads holds.
        prediction_type: "eps" or "v".
        image_latent_scale: "none" where image latents are the raw mode, "scaled" where the VAE's scale applies (CosXL).
        unet: keyword arguments of diffusers' UNet2DConditionModel.
        vae: keyword arguments of diffusers' AutoencoderKL, with its scaling_factor.
        text_encoder: keyword arguments of transformers' CLIPTextConfig.
        text_encoder_2: the same for SDXL's second encoder; None elsewhere.
        default_text_guidance_scale: s_T at which the model is best.
        default_image_guidance_scale: s_I at which the model is best.
        default_steps: number of sampling steps at which the model is best.
        default_sampler: key of sampling.SAMPLERS.
        default_scheduler: one of schedule.SCHEDULERS.
        working_resolution: length of the longer side in pixels at which the model is best.
        size_multiple: both sides in pixels are multiples of this.
        base: what the training started from.
        recipe: how it was trained.
        data_hash: identifies the training data.
        licence: of the weights.
    """

    format_version: int = FORMAT_VERSION
    kind: Kind = "editor"
    in_channels: int = 8
    num_heads: int | None = None
    num_head_channels: int | None = None
    prediction_type: PredictionType = "eps"
    image_latent_scale: Literal["none", "scaled"] = "none"
    unet: dict[str, Any] = field(default_factory=dict)
    vae: dict[str, Any] = field(default_factory=dict)
    text_encoder: dict[str, Any] = field(default_factory=dict)
    text_encoder_2: dict[str, Any] | None = None
    default_text_guidance_scale: float = 7.5
    default_image_guidance_scale: float = 1.5
    default_steps: int = 20
    default_sampler: str = "euler_ancestral"
    default_scheduler: str = "normal"
    working_resolution: int = 512
    size_multiple: int = 64
    base: str = ""
    recipe: str = ""
    data_hash: str = ""
    licence: str = ""

    @property
    def vae_factor(self) -> int:
        """Pixels per latent cell."""
        num_levels: int = len(self.vae["block_out_channels"])
        return 1 << (num_levels - 1)

    @property
    def scaling_factor(self) -> float:
        """Scaled latents are unscaled latents times this."""
        return float(self.vae.get("scaling_factor", 0.18215))

    def to_json(self) -> str:
        """Write the record as JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ModelConfig:
        """Read the record.

        Args:
            text: JSON, as `to_json` writes it.

        Returns:
            The record; lists stay lists.

        Raises:
            CheckpointError: if it is not JSON, of a newer format, or holds unknown keys.
        """
        try:
            record = json.loads(text)
        except json.JSONDecodeError as error:
            raise CheckpointError(
                f"The model's {MODEL_CONFIG_KEY} is not JSON ({error}). Export the model again."
            ) from None
        if not isinstance(record, dict):
            raise CheckpointError(f"The model's {MODEL_CONFIG_KEY} is not a JSON object. Export the model again.")
        version = record.get("format_version")
        if version != FORMAT_VERSION:
            raise CheckpointError(
                f"The model's format version is {version!r}; this version of the pack reads {FORMAT_VERSION}. Update the "
                "pack, or export the model again."
            )
        unknown = sorted(set(record) - {one.name for one in fields(cls)})
        if unknown:
            raise CheckpointError(
                f"The model's {MODEL_CONFIG_KEY} has the unknown key {unknown[0]!r}. Update the pack, or export the "
                "model again."
            )
        return cls(**record)


_SD_VAE: dict[str, Any] = {
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 4,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "sample_size": 512,
}
_CLIP_L: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "quick_gelu",
    "projection_dim": 768,
    "max_position_embeddings": 77,
    "vocab_size": 49408,
}
_CROSS_DOWN, _CROSS_UP = ["CrossAttnDownBlock2D"], ["CrossAttnUpBlock2D"]
_SD_UNET: dict[str, Any] = {
    "sample_size": 64,
    "out_channels": 4,
    "layers_per_block": 2,
    "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": [*_CROSS_DOWN * 3, "DownBlock2D"],
    "up_block_types": ["UpBlock2D", *_CROSS_UP * 3],
}
_UNETS: dict[str, dict[str, Any]] = {
    "sd1": {**_SD_UNET, "cross_attention_dim": 768, "attention_head_dim": 8},
    "sd2": {
        **_SD_UNET,
        "cross_attention_dim": 1024,
        "attention_head_dim": [5, 10, 20, 20],
        "use_linear_projection": True,
    },
    "sdxl": {
        **_SD_UNET,
        "sample_size": 128,
        "block_out_channels": [320, 640, 1280],
        "down_block_types": ["DownBlock2D", *_CROSS_DOWN * 2],
        "up_block_types": [*_CROSS_UP * 2, "UpBlock2D"],
        "cross_attention_dim": 2048,
        "attention_head_dim": [5, 10, 20],
        "transformer_layers_per_block": [1, 2, 10],
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
_OPEN_CLIP_H = {
    **_CLIP_L,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,  # the last of 24 is not used
    "num_attention_heads": 16,
    "hidden_act": "gelu",
    "projection_dim": 1024,
}
_OPEN_CLIP_G = {
    **_CLIP_L,
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
    "projection_dim": 1280,
}


def family_config(family: Family, in_channels: int, prediction_type: PredictionType = "eps") -> ModelConfig:
    """Describe a checkpoint of full size that carries no description of its own.

    Args:
        family: "sd1", "sd2", "sdxl" or "cosxl".
        in_channels: of its U-Net.
        prediction_type: what its U-Net predicts; CosXL always predicts v.

    Returns:
        The record with the family's usual settings.
    """
    is_xl = family in ("sdxl", "cosxl")
    base = "sdxl" if is_xl else family
    return ModelConfig(
        kind="editor" if in_channels == 8 else "generator",
        in_channels=in_channels,
        num_heads=8 if family == "sd1" else None,
        num_head_channels=None if family == "sd1" else 64,
        prediction_type="v" if family == "cosxl" else prediction_type,
        image_latent_scale="scaled" if family == "cosxl" else "none",
        unet={**_UNETS[base], "in_channels": in_channels},
        vae={**_SD_VAE, "scaling_factor": 0.13025 if is_xl else 0.18215},
        text_encoder=dict(_OPEN_CLIP_H if family == "sd2" else _CLIP_L),
        text_encoder_2=dict(_OPEN_CLIP_G) if is_xl else None,
        working_resolution=1024 if family == "cosxl" else 768 if is_xl else 512,
        base=family,
    )
