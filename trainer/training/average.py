"""The exponential moving average of the weights that is exported, always in float32 or wider."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class WeightAverage:
    """An average that follows the weights, faster at first, as LitEma of the original program does.

    In bfloat16 a decay of .9999 would never move: one step's change is below its precision.

    Args:
        parameters: names and weights.
        decay: after the start; 0 keeps no average.
    """

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]], decay: float) -> None:
        self.decay = decay
        self._weights = dict(parameters)
        wide = {name: torch.promote_types(weight.dtype, torch.float32) for name, weight in self._weights.items()}
        self.values: dict[str, Tensor] = (
            {name: weight.detach().to(wide[name], copy=True) for name, weight in self._weights.items()} if decay else {}
        )

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step.

        Args:
            step: number of steps done, from 1 on.
        """
        if not self.values:
            return
        decay = min(self.decay, (1 + step) / (10 + step))
        averages = list(self.values.values())
        current = [weight.detach().to(self.values[name].dtype) for name, weight in self._weights.items()]
        torch._foreach_lerp_(averages, current, 1 - decay)
