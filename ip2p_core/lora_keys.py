"""Low-rank adapters in the names that ComfyUI's own LoRA loader takes: kohya's, over diffusers' names of the layers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

PREFIX = "lora_unet_"
_SIDES = {"lora_A": "lora_down.weight", "lora_B": "lora_up.weight"}


def lora_to_kohya(adapters: Mapping[str, Tensor], base: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """Name adapters and whole differences as kohya does.

    Args:
        adapters: "LAYER.lora_A" [rank, in, ...], "LAYER.lora_B" [out, rank, ...], and whole weights, as "conv_in.weight".
        base: what the whole weights were before the training, by the same names.
        alpha: the adapters' scale times their rank.

    Returns:
        Name -> tensor: lora_down, lora_up and alpha of each layer; `.diff` and `.diff_b` of weights trained in full.

    Raises:
        KeyError: if a whole weight has no base.
    """
    named: dict[str, Tensor] = {}
    for name, value in adapters.items():
        layer, _, side = name.rpartition(".")
        stem = PREFIX + layer.replace(".", "_")
        if side in _SIDES:
            named[f"{stem}.{_SIDES[side]}"] = value
            named[f"{stem}.alpha"] = torch.tensor(float(alpha))
        else:
            named[f"{stem}.{'diff' if side == 'weight' else 'diff_b'}"] = value - base[name].to(value)
    return named
