"""Text encoders of SD2.x and SDXL: transformers' CLIPTextModel <-> OpenCLIP's names in the original layout.

OpenCLIP keeps query, key and value in one matrix, and its projection transposed. Names carry no prefix here.
Shapes: D width of the text encoder, P width of the projection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .checkpoint_keys import State, check_complete, rename, text_key_map

_OUTSIDE = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
_IN_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_KINDS, _QKV = ("weight", "bias"), ("q", "k", "v")


def text_to_open_clip(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> State:
    """Rename a text encoder of transformers, with or without the prefix `text_model.`, to OpenCLIP's layout.

    Args:
        state: weights of CLIPTextModel or CLIPTextModelWithProjection.
        config: keyword arguments of CLIPTextConfig.

    Returns:
        The weights with OpenCLIP's names.

    Raises:
        CheckpointError: if a weight is missing or left over.
    """
    state = {name.removeprefix("text_model."): value for name, value in state.items() if "position_ids" not in name}
    check_complete(state, text_key_map(config, has_projection="text_projection.weight" in state), "text encoder")
    renamed = {original: state[ours] for ours, original in _plain_names(config).items()}
    for layer in range(int(config["num_hidden_layers"])):
        for kind in _KINDS:
            parts = [state[f"encoder.layers.{layer}.self_attn.{one}_proj.{kind}"] for one in _QKV]
            renamed[f"transformer.resblocks.{layer}.attn.in_proj_{kind}"] = torch.cat(parts)  # [3D, D] or [3D]
    if "text_projection.weight" in state:
        renamed["text_projection"] = state["text_projection.weight"].T.contiguous()  # [P, D] -> [D, P]
    return renamed


def text_from_open_clip(state: Mapping[str, Tensor], config: Mapping[str, Any], *, has_projection: bool) -> State:
    """Rename a text encoder of OpenCLIP's layout to transformers' names, without prefix.

    Layers beyond the configuration's are left out: SD2.x never uses its last one.

    Args:
        state: weights with OpenCLIP's names.
        config: keyword arguments of CLIPTextConfig.
        has_projection: also convert the projection, as CLIPTextModelWithProjection needs it.

    Returns:
        The weights with transformers' names.

    Raises:
        CheckpointError: if a weight is missing or left over.
    """
    num_layers = int(config["num_hidden_layers"])
    kept = {name: value for name, value in state.items() if _is_kept(name, num_layers, has_projection)}
    whole = {f"transformer.resblocks.{i}.attn.in_proj_{kind}": (i, kind) for i in range(num_layers) for kind in _KINDS}
    plain = {original: ours for ours, original in _plain_names(config).items()}
    projection = {"text_projection": "text_projection.weight"} if has_projection else {}
    check_complete(kept, {**plain, **dict.fromkeys(whole, ""), **projection}, "text encoder")
    renamed = rename({name: kept[name] for name in plain}, plain, "text encoder")
    for name, (layer, kind) in whole.items():
        for one, part in zip(_QKV, kept[name].chunk(3), strict=True):
            renamed[f"encoder.layers.{layer}.self_attn.{one}_proj.{kind}"] = part.contiguous()
    if has_projection:
        renamed["text_projection.weight"] = kept["text_projection"].T.contiguous()
    return renamed


def _plain_names(config: Mapping[str, Any]) -> dict[str, str]:
    names = dict(_OUTSIDE)
    for layer in range(int(config["num_hidden_layers"])):
        for ours, original in _IN_LAYER.items():
            for kind in _KINDS:
                names[f"encoder.layers.{layer}.{ours}.{kind}"] = f"transformer.resblocks.{layer}.{original}.{kind}"
    return names


def _is_kept(name: str, num_layers: int, has_projection: bool) -> bool:
    if name in ("logit_scale", "attn_mask") or (name == "text_projection" and not has_projection):
        return False
    is_layer = name.startswith("transformer.resblocks.")
    return not is_layer or int(name.split(".")[2]) < num_layers
