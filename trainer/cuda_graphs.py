"""Replaying a network's forward and backward from CUDA graphs (torch.cuda.make_graphed_callables).

A step of a small network is a few thousand short kernels, which Python starts more slowly than a GPU computes them; a graph
starts them all at once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor, nn


class _Call(nn.Module):
    """A method of a module as a module of its own, so that its weights' gradients are captured too."""

    def __init__(self, module: nn.Module, method: Callable[..., Tensor]) -> None:
        super().__init__()
        self.module, self.method = module, method

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.method(*inputs)


class CudaGraphs:
    """Calls a method of a module; its kernels are captured at the first call for every shape of its inputs.

    Weights may change between calls, but must stay where they are in memory. Gradients may lie in the graph's own memory: use
    them, and set them to None, before the next call. Nothing else in the process may use the GPU while a graph is captured.

    Args:
        module: whose weights take part, on a GPU.
        method: of the module; what it does depends on its inputs' shapes alone.
    """

    def __init__(self, module: nn.Module, method: Callable[..., Tensor]) -> None:
        self._module, self._method = module, method
        self._captured: dict[Hashable, Any] = {}

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Compute the output; without gradients, nothing is captured or replayed."""
        if not torch.is_grad_enabled():
            return self._method(*inputs)
        key = tuple((one.shape, one.dtype, one.requires_grad) for one in inputs)
        if key not in self._captured:
            self._captured[key] = self._capture(inputs)
        output: Tensor = self._captured[key](*inputs)
        return output

    def _capture(self, inputs: tuple[Tensor, ...]) -> Any:
        samples = tuple(one.detach().clone().requires_grad_(one.requires_grad) for one in inputs)
        call = _Call(self._module, self._method)
        call.training = self._module.training
        dtype, is_enabled = torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda")
        # a cached cast would be missing in the replay
        with torch.autocast("cuda", dtype, enabled=is_enabled, cache_enabled=False):
            return torch.cuda.make_graphed_callables(call, samples, allow_unused_input=True)
