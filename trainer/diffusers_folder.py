"""A model as a folder that diffusers' pipelines open with from_pretrained: networks, tokenizer, scheduler, index."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..ip2p_core import open_clip_adapter
from ..ip2p_core.checkpoint import ModelConfig, ModelParts
from ..ip2p_core.checkpoint_files import write_tensors
from ..ip2p_core.checkpoint_layout import family_of
from ..ip2p_core.errors import CheckpointError

_SCHEDULER = {
    "_class_name": "EulerAncestralDiscreteScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
}
_PIPELINES = {
    ("editor", False): "StableDiffusionInstructPix2PixPipeline",
    ("editor", True): "StableDiffusionXLInstructPix2PixPipeline",
    ("generator", False): "StableDiffusionPipeline",
    ("generator", True): "StableDiffusionXLPipeline",
}


def write_folder(path: Path, parts: ModelParts, config: ModelConfig, dtype: torch.dtype) -> None:
    """Write a diffusers folder beside its place and rename it.

    Args:
        path: the folder; one that is there is replaced.
        parts: the weights.
        config: their description.
        dtype: of the stored weights.

    Raises:
        CheckpointError: if it cannot be written.
    """
    beside = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        _fill(beside, parts, config, dtype)
        if path.exists():
            shutil.rmtree(path)
        beside.rename(path)
    except OSError as error:
        raise CheckpointError(
            f"The folder {path} could not be written ({error.strerror or error}). Free some disk space or choose another."
        ) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _fill(folder: Path, parts: ModelParts, config: ModelConfig, dtype: torch.dtype) -> None:
    is_xl = config.text_encoder_2 is not None
    _network(folder / "unet", "UNet2DConditionModel", config.unet, parts.unet, dtype)
    vae = {**config.vae, "scaling_factor": config.scaling_factor}
    _network(folder / "vae", "AutoencoderKL", vae, parts.vae, dtype)
    pad_id = 0 if family_of(config) == "sd2" else open_clip_adapter.END_ID
    _text(folder, "", config.text_encoder, parts.text, dtype, pad_id)
    index: dict[str, Any] = {
        "_class_name": _PIPELINES[config.kind, is_xl],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", _SCHEDULER["_class_name"]],
    }
    if config.text_encoder_2 is not None:
        _text(folder, "_2", config.text_encoder_2, parts.text_2 or {}, dtype, 0)
        index["text_encoder_2"] = ["transformers", "CLIPTextModelWithProjection"]
        index["tokenizer_2"] = ["transformers", "CLIPTokenizer"]
        index["is_cosxl_edit"] = config.image_latent_scale == "scaled"
    else:
        index.update(safety_checker=[None, None], feature_extractor=[None, None], requires_safety_checker=False)
    prediction = {"prediction_type": "epsilon" if config.prediction_type == "eps" else "v_prediction"}
    _json(folder / "scheduler" / "scheduler_config.json", {**_SCHEDULER, **prediction})
    _json(folder / "model_index.json", index)


def _network(
    folder: Path, kind: str, config: Mapping[str, Any], state: Mapping[str, Tensor], dtype: torch.dtype
) -> None:
    _json(folder / "config.json", {"_class_name": kind, **config})
    write_tensors(folder / "diffusion_pytorch_model.safetensors", _stored(state, dtype), {"format": "pt"})


def _text(
    folder: Path, number: str, config: Mapping[str, Any], state: Mapping[str, Tensor], dtype: torch.dtype, pad_id: int
) -> None:
    """A text encoder with its tokenizer; names have the prefix that every version of transformers reads."""
    kind = "CLIPTextModelWithProjection" if number else "CLIPTextModel"
    record = {"architectures": [kind], "model_type": "clip_text_model", **config}
    _json(folder / f"text_encoder{number}" / "config.json", record)
    prefixed = {
        name if name.startswith(("text_model.", "text_projection")) else f"text_model.{name}": value
        for name, value in state.items()
    }
    write_tensors(folder / f"text_encoder{number}" / "model.safetensors", _stored(prefixed, dtype), {"format": "pt"})
    tokenizer = folder / f"tokenizer{number}"
    tokens, merges = open_clip_adapter.vocabulary()
    _json(tokenizer / "vocab.json", tokens)
    (tokenizer / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    padding = {"pad_token": "!" if pad_id == 0 else "<|endoftext|>"}
    length = int(config.get("max_position_embeddings", open_clip_adapter.CONTEXT_LENGTH))
    _json(
        tokenizer / "tokenizer_config.json",
        {"tokenizer_class": "CLIPTokenizer", "model_max_length": length, "do_lower_case": True, **special, **padding},
    )


def _stored(state: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: value.detach().to("cpu", dtype) for name, value in state.items()}


def _json(path: Path, record: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")
