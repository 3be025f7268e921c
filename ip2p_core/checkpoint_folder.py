"""Diffusers folders: the configuration files and the weights beside them, read without diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .checkpoint_files import read_json, read_tensors
from .checkpoint_keys import State, vae_from_ldm
from .errors import CheckpointError
from .model_config import Family, ModelConfig, family_config

_TEXT_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "projection_dim",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "hidden_act",
    "layer_norm_eps",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
)
_PREDICTION_TYPES: dict[str, Any] = {"epsilon": "eps", "v_prediction": "v"}


class Folder(NamedTuple):
    """A diffusers model as it lies on disk, with diffusers' names."""

    config: ModelConfig
    unet: State
    vae: State
    text: State
    text_2: State | None


def is_diffusers_folder(path: Path) -> bool:
    """Say whether a folder looks like a diffusers model."""
    return (path / "unet" / "config.json").is_file()


def read_folder(path: Path, other_vae: Path | None = None) -> Folder:
    """Read a diffusers model.

    Args:
        path: the folder that holds unet/, vae/ and text_encoder/.
        other_vae: another autoencoder to use instead of vae/, which may then be missing.

    Returns:
        Description and weights.

    Raises:
        CheckpointError: if a configuration or a weight file is missing or damaged.
    """
    unet, text = _own_fields(path / "unet"), _text_fields(path / "text_encoder")
    is_xl = (path / "text_encoder_2").is_dir()
    vae, vae_state = _vae(path / "vae", other_vae, "sdxl" if is_xl else "sd1")
    scheduler = path / "scheduler" / "scheduler_config.json"
    name = read_json(scheduler).get("prediction_type", "epsilon") if scheduler.is_file() else "epsilon"
    if name not in _PREDICTION_TYPES:
        raise CheckpointError(
            f"{scheduler} says prediction_type {name!r}; only epsilon and v_prediction can be sampled. Use another model."
        )
    index = path / "model_index.json"
    is_cosxl = bool(read_json(index).get("is_cosxl_edit", False)) if index.is_file() else False
    in_channels = int(unet.get("in_channels", 4))
    heads = unet.get("num_attention_heads") or unet.get("attention_head_dim", 8)  # diffusers' field holds the count
    is_full_size = unet["block_out_channels"][0] == 320
    resolution = int(unet.get("sample_size") or 64) * (1 << (len(vae["block_out_channels"]) - 1))
    config = ModelConfig(
        kind="editor" if in_channels == 8 else "generator",
        in_channels=in_channels,
        num_heads=heads if isinstance(heads, int) else None,
        num_head_channels=None if isinstance(heads, int) else unet["block_out_channels"][0] // heads[0],
        prediction_type=_PREDICTION_TYPES[name],
        image_latent_scale="scaled" if is_cosxl else "none",
        unet=unet,
        vae=vae,
        text_encoder=text,
        text_encoder_2=_text_fields(path / "text_encoder_2") if is_xl else None,
        working_resolution=resolution,
        size_multiple=64 if is_full_size else 16,
        base=path.name,
    )
    return Folder(
        config=config,
        unet=_weights(path / "unet", "diffusion_pytorch_model"),
        vae=vae_state,
        text=_text_weights(path / "text_encoder", has_projection=False),
        text_2=_text_weights(path / "text_encoder_2", has_projection=True) if is_xl else None,
    )


def _vae(own: Path, other: Path | None, family: Family) -> tuple[dict[str, Any], State]:
    """Describe and read the model's own autoencoder, or the other one that takes its place."""
    if other is None:
        return _own_fields(own), _renamed_attention(_weights(own, "diffusion_pytorch_model"))
    state, config = read_vae(other, _own_fields(own) if own.is_dir() else family_config(family, 8).vae)
    return config, state


def read_vae(path: Path, config: Mapping[str, Any]) -> tuple[State, dict[str, Any]]:
    """Read an autoencoder to put in the place of a model's own.

    Args:
        path: a diffusers folder of an autoencoder, or a file in diffusers' or the original layout.
        config: description of the autoencoder that it replaces; a file must have the same shape.

    Returns:
        The weights with diffusers' names, and their description.

    Raises:
        CheckpointError: if it is missing, damaged or of another shape.
    """
    if path.is_dir():
        return _renamed_attention(_weights(path, "diffusion_pytorch_model")), _own_fields(path)
    prefix = "first_stage_model."
    state = {name.removeprefix(prefix): value for name, value in read_tensors(path).items()}
    if any(".down_blocks." in name for name in state):
        return _renamed_attention(state), dict(config)
    own = {name: value for name, value in state.items() if name.startswith(("encoder.", "decoder.", "quant", "post_q"))}
    return vae_from_ldm(own, config), dict(config)


def _own_fields(folder: Path) -> dict[str, Any]:
    return {name: value for name, value in read_json(folder / "config.json").items() if not name.startswith("_")}


def _text_fields(folder: Path) -> dict[str, Any]:
    record = read_json(folder / "config.json")
    record = record.get("text_config_dict") or record.get("text_config") or record
    return {name: record[name] for name in _TEXT_FIELDS if name in record}


def _weights(folder: Path, stem: str) -> State:
    """Read one weight file, or the shards that an index names."""
    for variant in (stem, f"{stem}.fp16"):
        if (folder / f"{variant}.safetensors").is_file():
            return read_tensors(folder / f"{variant}.safetensors")
    for index in (folder / f"{stem}.safetensors.index.json", folder / f"{stem}.safetensors.index.fp16.json"):
        if index.is_file():
            shards = sorted({Path(str(name)).name for name in read_json(index).get("weight_map", {}).values()})
            return {name: value for shard in shards for name, value in read_tensors(folder / shard).items()}
    pickled = folder / f"{'pytorch_model' if stem == 'model' else stem}.bin"
    if pickled.is_file():
        return read_tensors(pickled)
    raise CheckpointError(
        f"The folder {folder} has no {stem}.safetensors. Download the whole model, with its weights in safetensors form."
    )


def _text_weights(folder: Path, *, has_projection: bool) -> State:
    state = _weights(folder, "model")
    return {
        name: value
        for name, value in state.items()
        if not name.endswith("position_ids") and (has_projection or name != "text_projection.weight")
    }


def _renamed_attention(state: State) -> State:
    """Bring the attention names of diffusers before 0.17 (query, key, value, proj_attn) to today's."""
    old = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
    renamed: State = {}
    for name, value in state.items():
        for before, after in old.items():
            if ".mid_block.attentions.0." in name:
                name = name.replace(before, after)
        is_weight = name.endswith(("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight"))
        renamed[name] = value.reshape(value.shape[:2]) if is_weight else value
    return renamed
