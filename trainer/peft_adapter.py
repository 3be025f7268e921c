"""The only file that knows peft: low-rank adapters in a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..ip2p_core.errors import ConfigError

NAME = "default"
"""Of the adapter."""


def add_adapters(network: nn.Module, rank: int, targets: Sequence[str], seed: int) -> None:
    """Add a low-rank adapter to every layer whose name ends so; only they take gradients afterwards.

    Args:
        network: is changed; at first its output stays what it is.
        rank: of the adapters.
        targets: ends of layer names.
        seed: of the adapters' start.

    Raises:
        ConfigError: if peft is missing, or no layer has such a name.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise ConfigError("The package peft is missing; install it with: pip install peft") from None
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(targets)), network)
        except ValueError as error:
            raise ConfigError(f"lora_targets is {list(targets)}: {error}") from None


def add_lora_folder(model: Any, folder: Path) -> Any:
    """Put the LoRA of a folder, as peft saves it, into a language model.

    Args:
        model: of transformers.
        folder: with adapter_config.json.

    Returns:
        The model with the adapter merged into its weights.

    Raises:
        ConfigError: if peft is missing, or the folder holds no adapter for this model.
    """
    try:
        from peft import PeftModel
    except ImportError:
        raise ConfigError("The package peft is missing; install it with: pip install peft") from None
    try:
        return PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"The adapter {folder} does not fit the language model ({error}).") from None


def merged_state(network: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a network by their plain names, with adapters added to the layers that have them."""
    state: dict[str, Tensor] = {}
    layers = dict(_adapted(network))
    for name, value in network.state_dict().items():
        layer, _, rest = name.rpartition(".base_layer.")
        if layer:
            state[f"{layer}.{rest}"] = value + layers[layer].get_delta_weight(NAME) if rest == "weight" else value
        elif ".lora_" not in name:
            state[name] = value
    return state


def adapter_state(network: nn.Module) -> dict[str, Tensor]:
    """Return "LAYER.lora_A", "LAYER.lora_B" of every adapter, and the other weights that are trained by their names."""
    state: dict[str, Tensor] = {}
    for name, value in network.named_parameters():
        if value.requires_grad:
            state[name.replace(f".{NAME}.weight", "")] = value.detach()
    return state


def _adapted(network: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, module in network.named_modules():
        if hasattr(module, "get_delta_weight"):
            yield name, module
