"""Names of the weights in diffusers and transformers <-> in the original single-file layout, both ways.

Every map is complete: a weight that is missing or left over is an error that names it. Names carry no prefix here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from .checkpoint_unet_keys import unet_key_map
from .errors import CheckpointError

State = dict[str, Tensor]


def rename(state: Mapping[str, Tensor], names: Mapping[str, str], part: str) -> State:
    """Rename all weights of one part of a model.

    Args:
        state: the weights.
        names: old name -> new name, for every weight of the part.
        part: what the weights belong to, for the message.

    Returns:
        The same tensors under the new names.

    Raises:
        CheckpointError: if a weight is missing or left over.
    """
    check_complete(state, names, part)
    return {new: state[old] for old, new in names.items()}


def check_complete(state: Mapping[str, Tensor], names: Mapping[str, str], part: str) -> None:
    """Refuse a part of a model that lacks a weight or has one too many.

    Args:
        state: the weights.
        names: a mapping whose keys are the expected names.
        part: what the weights belong to, for the message.

    Raises:
        CheckpointError: naming the first weight and how many there are.
    """
    missing = [name for name in names if name not in state]
    if missing:
        raise CheckpointError(
            f"The {part} lacks the weight {missing[0]!r} ({len(missing)} of {len(names)} are missing); it would be left "
            "random. Use a complete checkpoint of the family that its configuration names."
        )
    extra = [name for name in state if name not in names]
    if extra:
        raise CheckpointError(
            f"The {part} has the weight {extra[0]!r} that its configuration does not know ({len(extra)} in all). "
            "Use a checkpoint whose configuration belongs to its weights."
        )


def unet_to_ldm(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> State:
    """Rename diffusers' UNet2DConditionModel weights to the original layout, without prefix."""
    return rename(state, unet_key_map(config), "U-Net")


def unet_from_ldm(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> State:
    """Rename weights of the original layout, without prefix, to diffusers' UNet2DConditionModel."""
    renamed = rename(state, _inverse(unet_key_map(config)), "U-Net")
    is_linear = bool(config.get("use_linear_projection", False))
    for name in [name for name in renamed if name.endswith((".proj_in.weight", ".proj_out.weight"))]:
        renamed[name] = _as_linear(renamed[name]) if is_linear else _as_convolution(renamed[name])
    return renamed


def vae_to_ldm(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> State:
    """Rename diffusers' AutoencoderKL weights to the original layout, without prefix."""
    return _map_values(rename(state, vae_key_map(config), "autoencoder"), _is_vae_attention, _as_convolution)


def vae_from_ldm(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> State:
    """Rename weights of the original layout, without prefix, to diffusers' AutoencoderKL."""
    linear = _map_values(dict(state), _is_vae_attention, _as_linear)
    return rename(linear, _inverse(vae_key_map(config)), "autoencoder")


def vae_key_map(config: Mapping[str, Any]) -> dict[str, str]:
    """List every weight of an autoencoder.

    Args:
        config: keyword arguments of diffusers' AutoencoderKL.

    Returns:
        Name in diffusers -> name in the original layout.
    """
    names: dict[str, str] = {}
    if config.get("use_quant_conv", True):
        names["quant_conv"] = "quant_conv"
    if config.get("use_post_quant_conv", True):
        names["post_quant_conv"] = "post_quant_conv"
    names.update(_vae_side(config, "encoder"))
    names.update(_vae_side(config, "decoder"))
    return {f"{ours}.{kind}": f"{original}.{kind}" for ours, original in names.items() for kind in ("weight", "bias")}


def _vae_side(config: Mapping[str, Any], side: str) -> Iterator[tuple[str, str]]:
    channels, num_layers = list(config["block_out_channels"]), int(config.get("layers_per_block", 1))
    is_encoder, last = side == "encoder", len(channels) - 1
    for ours, original in (("conv_in", "conv_in"), ("conv_norm_out", "norm_out"), ("conv_out", "conv_out")):
        yield f"{side}.{ours}", f"{side}.{original}"
    for level in range(len(channels)):
        width = channels[level] if is_encoder else channels[last - level]
        before = channels[max(level - 1, 0)] if is_encoder else channels[min(last - level + 1, last)]
        ours = f"{side}.down_blocks.{level}" if is_encoder else f"{side}.up_blocks.{level}"
        original = f"{side}.down.{level}" if is_encoder else f"{side}.up.{last - level}"
        for layer in range(num_layers + (not is_encoder)):
            has_shortcut = layer == 0 and before != width
            yield from _vae_resnet(f"{ours}.resnets.{layer}", f"{original}.block.{layer}", has_shortcut)
        if level != last:
            sampler = ("downsamplers", "downsample") if is_encoder else ("upsamplers", "upsample")
            yield f"{ours}.{sampler[0]}.0.conv", f"{original}.{sampler[1]}.conv"
    for layer in (0, 1):
        yield from _vae_resnet(f"{side}.mid_block.resnets.{layer}", f"{side}.mid.block_{layer + 1}", False)
    if config.get("mid_block_add_attention", True):
        attention = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
        for ours, original in attention.items():
            yield f"{side}.mid_block.attentions.0.{ours}", f"{side}.mid.attn_1.{original}"


def _vae_resnet(ours: str, original: str, has_shortcut: bool) -> Iterator[tuple[str, str]]:
    for name in ("norm1", "conv1", "norm2", "conv2"):
        yield f"{ours}.{name}", f"{original}.{name}"
    if has_shortcut:
        yield f"{ours}.conv_shortcut", f"{original}.nin_shortcut"


def _is_vae_attention(name: str) -> bool:
    return ".mid.attn_1." in name and name.endswith(".weight") and ".norm." not in name


def text_to_ldm(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> State:
    """Bring a CLIP text encoder, with or without the prefix `text_model.`, to names without it."""
    names = text_key_map(config)
    return rename({name.removeprefix("text_model."): value for name, value in _weights(state)}, names, "text encoder")


def text_from_ldm(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> State:
    """Bring a CLIP text encoder of the original layout to the names of transformers 5 (no prefix)."""
    return text_to_ldm(state, config)


def text_key_map(config: Mapping[str, Any], *, has_projection: bool = False) -> dict[str, str]:
    """List every weight of transformers' CLIPTextModel, each name mapped to itself.

    Args:
        config: keyword arguments of CLIPTextConfig.
        has_projection: the encoder also has the projection of CLIPTextModelWithProjection.

    Returns:
        Name -> the same name, without the prefix `text_model.`.
    """
    names = ["embeddings.token_embedding.weight", "embeddings.position_embedding.weight"]
    modules = [
        f"encoder.layers.{layer}.{module}"
        for layer in range(int(config["num_hidden_layers"]))
        for module in (
            *(f"self_attn.{m}_proj" for m in ("q", "k", "v", "out")),
            "layer_norm1",
            "layer_norm2",
            "mlp.fc1",
            "mlp.fc2",
        )
    ]
    names += [f"{module}.{kind}" for module in [*modules, "final_layer_norm"] for kind in ("weight", "bias")]
    if has_projection:
        names.append("text_projection.weight")
    return {name: name for name in names}


def _weights(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Leave out the position numbers, which older files store beside the weights."""
    return ((name, value) for name, value in state.items() if not name.endswith("position_ids"))


def _inverse(names: Mapping[str, str]) -> dict[str, str]:
    return {new: old for old, new in names.items()}


def _map_values(state: State, is_chosen: Callable[[str], bool], change: Callable[[Tensor], Tensor]) -> State:
    return {name: change(value) if is_chosen(name) else value for name, value in state.items()}


def _as_linear(weight: Tensor) -> Tensor:
    return weight.reshape(weight.shape[0], weight.shape[1])


def _as_convolution(weight: Tensor) -> Tensor:
    return weight.reshape(weight.shape[0], weight.shape[1], 1, 1)


def widen_conv_in(weight: Tensor, bias: Tensor, in_channels: int = 8) -> tuple[Tensor, Tensor]:
    """Give the first convolution more input channels whose weights are 0 (arXiv:2211.09800, section 3.2).

    Args:
        weight: [out, in, k, k].
        bias: [out].
        in_channels: wanted number of input channels, at least the present one.

    Returns:
        Weight [out, in_channels, k, k] and bias; on inputs padded with anything, the output is what it was.

    Raises:
        ValueError: if there are more input channels already.
    """
    present = weight.shape[1]
    if present > in_channels:
        raise ValueError(f"conv_in has {present} input channels already; {in_channels} are fewer.")
    zeros = weight.new_zeros(weight.shape[0], in_channels - present, *weight.shape[2:])
    return torch.cat([weight, zeros], dim=1), bias.clone()
