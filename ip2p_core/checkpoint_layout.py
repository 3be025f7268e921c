"""The single-file layout: which part of a model lies under which prefix, and how it comes apart.

Weights keep their names of the single-file layout until `RawCheckpoint.parts` turns them into diffusers' names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from .checkpoint_keys import State, text_from_ldm, text_to_ldm, unet_from_ldm, unet_to_ldm, vae_from_ldm, vae_to_ldm
from .checkpoint_text_keys import text_from_open_clip, text_to_open_clip
from .model_config import Family, ModelConfig

UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."
TEXT_PREFIX = "cond_stage_model.transformer.text_model."
TEXT_PREFIX_SD2 = "cond_stage_model.model."
TEXT_PREFIX_XL = "conditioner.embedders.0.transformer.text_model."
TEXT_2_PREFIX_XL = "conditioner.embedders.1.model."

MODEL_PREFIXES = (UNET_PREFIX, VAE_PREFIX, TEXT_PREFIX, TEXT_PREFIX_SD2, TEXT_PREFIX_XL, TEXT_2_PREFIX_XL)
FAMILY_OF_WIDTH: dict[int, Family] = {768: "sd1", 1024: "sd2", 2048: "sdxl"}
Layout = Literal["ip2p", "ldm", "diffusers"]


class ModelParts(NamedTuple):
    """The weights of a model with the names that diffusers and transformers 5 use."""

    unet: State
    vae: State
    text: State
    text_2: State | None = None


@dataclass(frozen=True)
class RawCheckpoint:
    """A model as read: weights in the single-file layout, and what is known about them.

    Attributes:
        state: weights with the full names of the original single-file layout.
        config: the file's own description, a diffusers folder's, or the family's usual one.
        layout: how it lay on disk.
        family: which architecture it is; "tiny" for every other size.
    """

    state: State
    config: ModelConfig
    layout: Layout
    family: Family

    def parts(self) -> ModelParts:
        """Rename the weights for diffusers and transformers.

        Returns:
            U-Net, autoencoder and text encoders, each complete.

        Raises:
            CheckpointError: if a weight is missing or left over.
        """
        config = self.config
        text, text_2 = _text_parts(self)
        return ModelParts(
            unet=unet_from_ldm(weights_of(self.state, UNET_PREFIX), config.unet),
            vae=vae_from_ldm(weights_of(self.state, VAE_PREFIX), config.vae),
            text=text,
            text_2=text_2,
        )


def _text_parts(raw: RawCheckpoint) -> tuple[State, State | None]:
    state, config = raw.state, raw.config
    if config.text_encoder_2 is not None:
        second = text_from_open_clip(weights_of(state, TEXT_2_PREFIX_XL), config.text_encoder_2, has_projection=True)
        return text_from_ldm(weights_of(state, TEXT_PREFIX_XL), config.text_encoder), second
    if raw.family == "sd2":
        return text_from_open_clip(weights_of(state, TEXT_PREFIX_SD2), config.text_encoder, has_projection=False), None
    return text_from_ldm(weights_of(state, TEXT_PREFIX), config.text_encoder), None


def join_parts(parts: ModelParts, config: ModelConfig, family: Family) -> State:
    """Rename the weights of diffusers and transformers to the single-file layout, with prefixes.

    Args:
        parts: the weights.
        config: description of the model.
        family: decides where the text encoders go.

    Returns:
        Full name -> weight.

    Raises:
        CheckpointError: if a weight is missing or left over.
    """
    state = with_prefix(UNET_PREFIX, unet_to_ldm(parts.unet, config.unet))
    state |= with_prefix(VAE_PREFIX, vae_to_ldm(parts.vae, config.vae))
    if config.text_encoder_2 is not None:
        state |= with_prefix(TEXT_PREFIX_XL, text_to_ldm(parts.text, config.text_encoder))
        state |= with_prefix(TEXT_2_PREFIX_XL, text_to_open_clip(parts.text_2 or {}, config.text_encoder_2))
    elif family == "sd2":
        state |= with_prefix(TEXT_PREFIX_SD2, text_to_open_clip(parts.text, config.text_encoder))
    else:
        state |= with_prefix(TEXT_PREFIX, text_to_ldm(parts.text, config.text_encoder))
    return state


def family_of(config: ModelConfig) -> Family:
    """Recognise the full-size families by width; everything else is tiny."""
    unet = config.unet
    if config.image_latent_scale == "scaled":
        return "cosxl"
    if unet["block_out_channels"][0] != 320:
        return "tiny"
    return FAMILY_OF_WIDTH.get(unet.get("cross_attention_dim", 0), "tiny")


def weights_of(state: State, prefix: str) -> State:
    """Return the weights under a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def with_prefix(prefix: str, state: State) -> State:
    """Return the weights with a prefix before every name."""
    return {prefix + name: value for name, value in state.items()}
