"""The text encoders of a model as the host's CLIP."""

from __future__ import annotations

import inspect
from typing import Any

import comfy.sd
import comfy.sd1_clip
import comfy.sdxl_clip
import comfy.text_encoders.sd2_clip
import comfy.utils
import folder_paths
import torch
from comfy.supported_models_base import ClipTarget

from ...ip2p_core.checkpoint import RawCheckpoint
from ...ip2p_core.errors import CheckpointError

PROJECTION = "text_projection.weight"
MADE_BY_HOST = ("logit_scale",)
"""Not random: the host sets it to a constant, and no file of ours has it."""
SHAPE_KEYS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act")


def build_clip(raw: RawCheckpoint, disable_dynamic: bool = False) -> comfy.sd.CLIP:
    """Build the host's CLIP around the weights of a model.

    Args:
        raw: the model as read.
        disable_dynamic: do not use the host's dynamic memory, where it has any.

    Returns:
        The CLIP with all its weights.

    Raises:
        CheckpointError: if a weight is missing.
    """
    target, names = _target(raw)
    weights = _weights(raw, names)
    options: dict[str, Any] = {
        "embedding_directory": folder_paths.get_folder_paths("embeddings"),
        "parameters": comfy.utils.calculate_parameters(weights),
        "model_options": _model_options(raw, names),
        "state_dict": weights,
        "disable_dynamic": disable_dynamic,
    }
    known = inspect.signature(comfy.sd.CLIP.__init__).parameters
    clip = comfy.sd.CLIP(target, **{name: value for name, value in options.items() if name in known})
    if "state_dict" not in known:
        clip.load_sd(weights, full_model=True)
    _require_complete(clip, weights)
    if raw.family == "sd2":
        clip.clip_layer(-1)  # the layer that SD2.x never uses is not in the model, so the last is the wanted one
    return clip


def _target(raw: RawCheckpoint) -> tuple[ClipTarget, tuple[str, ...]]:
    if raw.family in ("sdxl", "cosxl"):
        return ClipTarget(comfy.sdxl_clip.SDXLTokenizer, comfy.sdxl_clip.SDXLClipModel), ("clip_l", "clip_g")
    if raw.family == "sd2":
        sd2_clip = comfy.text_encoders.sd2_clip
        return ClipTarget(sd2_clip.SD2Tokenizer, sd2_clip.SD2ClipModel), ("clip_h",)
    return ClipTarget(comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel), ("clip_l",)


def _weights(raw: RawCheckpoint, names: tuple[str, ...]) -> dict:
    parts = raw.parts()
    weights = {}
    for name, part in zip(names, (parts.text, parts.text_2), strict=False):
        for key, value in (part or {}).items():
            inner = key if key == PROJECTION else f"text_model.{key.removeprefix('text_model.')}"
            weights[f"{name}.transformer.{inner}"] = value
        if part and PROJECTION not in part:  # the host has one even where the model has none, and would leave it random
            norm = part["final_layer_norm.weight"]
            weights[f"{name}.transformer.{PROJECTION}"] = torch.eye(norm.shape[0], dtype=norm.dtype, device=norm.device)
    return weights


def _model_options(raw: RawCheckpoint, names: tuple[str, ...]) -> dict:
    """Give the host the true sizes of the text encoders; it assumes those of the full-size families."""
    options = {}
    for name, config in zip(names, (raw.config.text_encoder, raw.config.text_encoder_2), strict=False):
        options[f"{name}_model_config"] = {key: config[key] for key in SHAPE_KEYS if config and key in config}
    return options


def _require_complete(clip: comfy.sd.CLIP, weights: dict) -> None:
    missing = [n for n in clip.cond_stage_model.state_dict() if n not in weights and not n.endswith(MADE_BY_HOST)]
    if missing:
        raise CheckpointError(
            f"The text encoder lacks the weight {missing[0]!r} ({len(missing)} are missing); it would be left random. "
            "Use a complete checkpoint."
        )
