"""Names of the U-Net's weights: diffusers' UNet2DConditionModel <-> the original single-file layout.

Both name lists are derived from the same walk over the architecture, for any width and depth, so each is complete:
a weight that is missing or left over can be named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .errors import CheckpointError

_PLAIN, _ATTENTION = ("DownBlock2D", "UpBlock2D"), ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D")
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
}
Pairs = Iterator[tuple[str, str]]


def unet_key_map(config: Mapping[str, Any]) -> dict[str, str]:
    """List every weight of a U-Net.

    Args:
        config: keyword arguments of diffusers' UNet2DConditionModel.

    Returns:
        Name in diffusers -> name in the original layout, both without a prefix.

    Raises:
        CheckpointError: if the architecture is not one of Stable Diffusion's.
    """
    _check_supported(config)
    pairs = dict(_outer(config))
    pairs.update(_down(config))
    pairs.update(_middle(config))
    pairs.update(_up(config))
    return pairs


def _check_supported(config: Mapping[str, Any]) -> None:
    blocks = (*config["down_block_types"], *config["up_block_types"])
    unknown = [name for name in blocks if name not in _PLAIN + _ATTENTION]
    if config.get("mid_block_type", "UNetMidBlock2DCrossAttn") != "UNetMidBlock2DCrossAttn":
        unknown.append(str(config["mid_block_type"]))
    if unknown:
        raise CheckpointError(
            f"The U-Net has blocks of type {unknown[0]}; only Stable Diffusion's U-Nets (1.x, 2.x, XL) can be opened. "
            "Choose an InstructPix2Pix checkpoint of one of these families."
        )


def _outer(config: Mapping[str, Any]) -> Pairs:
    names = {
        "conv_in": "input_blocks.0.0",
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
    }
    if config.get("addition_embed_type") == "text_time":
        names |= {"add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2"}
    for ours, original in names.items():
        yield from _weight_and_bias(ours, original)


def _down(config: Mapping[str, Any]) -> Pairs:
    channels, layers = list(config["block_out_channels"]), _layers(config)
    depths, types = _depths(config), config["down_block_types"]
    block, last = 1, len(channels) - 1
    for level, num_layers in enumerate(layers):
        for layer in range(num_layers):
            ours, original = f"down_blocks.{level}", f"input_blocks.{block}"
            before = channels[max(level - 1, 0)] if layer == 0 else channels[level]
            yield from _resnet(f"{ours}.resnets.{layer}", f"{original}.0", before != channels[level])
            if types[level] in _ATTENTION:
                yield from _transformer(f"{ours}.attentions.{layer}", f"{original}.1", depths[level])
            block += 1
        if level != last:
            yield from _weight_and_bias(f"down_blocks.{level}.downsamplers.0.conv", f"input_blocks.{block}.0.op")
            block += 1


def _middle(config: Mapping[str, Any]) -> Pairs:
    yield from _resnet("mid_block.resnets.0", "middle_block.0", has_shortcut=False)
    yield from _transformer("mid_block.attentions.0", "middle_block.1", _depths(config)[-1])
    yield from _resnet("mid_block.resnets.1", "middle_block.2", has_shortcut=False)


def _up(config: Mapping[str, Any]) -> Pairs:
    channels, layers = list(config["block_out_channels"])[::-1], _layers(config)[::-1]
    depths, types = _depths(config)[::-1], config["up_block_types"]
    block, last = 0, len(channels) - 1
    for level, num_layers in enumerate(layers):
        width, below = channels[level], channels[max(level - 1, 0)]
        skip_of_last = channels[min(level + 1, last)]
        for layer in range(num_layers + 1):
            ours, original = f"up_blocks.{level}", f"output_blocks.{block}"
            incoming = (below if layer == 0 else width) + (skip_of_last if layer == num_layers else width)
            yield from _resnet(f"{ours}.resnets.{layer}", f"{original}.0", incoming != width)
            has_attention = types[level] in _ATTENTION
            if has_attention:
                yield from _transformer(f"{ours}.attentions.{layer}", f"{original}.1", depths[level])
            if layer == num_layers and level != last:
                yield from _weight_and_bias(f"{ours}.upsamplers.0.conv", f"{original}.{1 + has_attention}.conv")
            block += 1


def _resnet(ours: str, original: str, has_shortcut: bool) -> Pairs:
    for name, original_name in _RESNET.items():
        yield from _weight_and_bias(f"{ours}.{name}", f"{original}.{original_name}")
    if has_shortcut:
        yield from _weight_and_bias(f"{ours}.conv_shortcut", f"{original}.skip_connection")


def _transformer(ours: str, original: str, depth: int) -> Pairs:
    """Transformers have the same names in both layouts."""
    for name in ("norm", "proj_in", "proj_out"):
        yield from _weight_and_bias(f"{ours}.{name}", f"{original}.{name}")
    for index in range(depth):
        block = f"transformer_blocks.{index}"
        for name in ("norm1", "norm2", "norm3", "attn1.to_out.0", "attn2.to_out.0", "ff.net.0.proj", "ff.net.2"):
            yield from _weight_and_bias(f"{ours}.{block}.{name}", f"{original}.{block}.{name}")
        for attention in ("attn1", "attn2"):
            for name in ("to_q", "to_k", "to_v"):
                key = f"{block}.{attention}.{name}.weight"
                yield f"{ours}.{key}", f"{original}.{key}"


def _weight_and_bias(ours: str, original: str) -> Pairs:
    yield f"{ours}.weight", f"{original}.weight"
    yield f"{ours}.bias", f"{original}.bias"


def _layers(config: Mapping[str, Any]) -> list[int]:
    return _per_level(config.get("layers_per_block", 2), config)


def _depths(config: Mapping[str, Any]) -> list[int]:
    return _per_level(config.get("transformer_layers_per_block", 1), config)


def _per_level(value: Any, config: Mapping[str, Any]) -> list[int]:
    return [value] * len(config["block_out_channels"]) if isinstance(value, int) else [int(one) for one in value]
