"""Optimizer and learning rate of a training, and the optimizer's state as plain tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...ip2p_core.errors import ConfigError
from ...ip2p_core.train_job import TrainConfig

FLOOR = 0.02
"""Where the learning rate ends, as a part of its peak."""


def make_optimizer(parameters: Sequence[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    """Build AdamW, fused, or its 8-bit form.

    Args:
        parameters: what is trained.
        config: of the training.

    Returns:
        The optimizer.

    Raises:
        ConfigError: if the package bitsandbytes is needed and missing.
    """
    settings: dict[str, Any] = {
        "lr": config.learning_rate,
        "betas": (0.9, config.beta_2),
        "weight_decay": config.weight_decay,
    }
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, fused=True, **settings)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        raise ConfigError(
            'The package bitsandbytes is missing; install it with pip install bitsandbytes, or set "optimizer": "adamw".'
        ) from None
    optimizer: torch.optim.Optimizer = AdamW8bit(parameters, **settings)
    return optimizer


def learning_rate(step: int, config: TrainConfig) -> float:
    """Return the learning rate of a step, counted from 0."""
    if step < config.lr_warmup_steps:
        return config.learning_rate * (step + 1) / config.lr_warmup_steps
    if config.lr_schedule == "constant":
        return config.learning_rate
    done = (step - config.lr_warmup_steps) / max(1, config.steps - config.lr_warmup_steps)
    left = 1 - done if config.lr_schedule == "linear" else 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    return config.learning_rate * (FLOOR + (1 - FLOOR) * left)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all weights."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def state_tensors(
    optimizer: torch.optim.Optimizer, whole: Callable[[Tensor], Tensor]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Take an optimizer's state apart.

    Args:
        optimizer: of the run.
        whole: puts together a tensor that is divided among processes.

    Returns:
        Tensors by "number of the weight.name", and what is no tensor, by the same keys.
    """
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, Any] = {}
    for number, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{number}.{name}"] = whole(value)
            else:
                scalars[f"{number}.{name}"] = value
    return tensors, scalars


def restore_state(
    optimizer: torch.optim.Optimizer,
    tensors: dict[str, Tensor],
    scalars: dict[str, Any],
    divide: Callable[[Tensor, nn.Parameter], Tensor],
) -> None:
    """Put an optimizer's state back.

    Args:
        optimizer: of the run, with the same weights in the same order.
        tensors: as `state_tensors` gave them.
        scalars: the same.
        divide: gives this process its part of a tensor that belongs to a weight.
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **scalars}.items():
        number, name = key.split(".", 1)
        is_divided = isinstance(value, Tensor) and value.shape == weights[int(number)].shape
        state.setdefault(int(number), {})[name] = divide(value, weights[int(number)]) if is_divided else value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
