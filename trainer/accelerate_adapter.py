"""The only file that knows accelerate: one or many processes, number formats, and what they need of each other."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from ..ip2p_core.errors import ConfigError

MIXED = {"fp32": "no", "fp64": "no", "bf16": "bf16", "fp16": "fp16"}


def is_emulated(precision: str, device: torch.device) -> bool:
    """Say whether a device has no arithmetic of a number format, so that it takes many times as long as fp32 there."""
    if device.type != "cpu" or precision not in ("bf16", "fp16"):
        return False
    kernels = torch.ops.mkldnn
    is_native = kernels._is_mkldnn_bf16_supported if precision == "bf16" else kernels._is_mkldnn_fp16_supported  # noqa: SLF001
    return not (torch._C._has_mkldnn and is_native())  # noqa: SLF001


class Processes:
    """The processes of a training: this one alone, or those that `accelerate launch` or `torchrun` started.

    Args:
        precision: "fp32", "fp64", "bf16" or "fp16".
        is_cpu: train on the CPU.
        strategy: "ddp", or "fsdp" to divide weights and optimizer.

    Raises:
        ConfigError: if accelerate is missing, or the processes cannot find each other.
    """

    def __init__(self, precision: str, *, is_cpu: bool, strategy: Literal["ddp", "fsdp"]) -> None:
        try:
            from accelerate import Accelerator
            from accelerate.state import AcceleratorState
            from accelerate.utils import FullyShardedDataParallelPlugin
        except ImportError:
            raise ConfigError("The package accelerate is missing; install it with: pip install accelerate") from None
        plugin = FullyShardedDataParallelPlugin(fsdp_version=2) if strategy == "fsdp" else None
        AcceleratorState._reset_state()  # noqa: SLF001 - else a second run in one process keeps the first one's precision
        try:
            self._accelerator = Accelerator(mixed_precision=MIXED[precision], cpu=is_cpu, fsdp_plugin=plugin)
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ConfigError(f"The processes of this training cannot start together ({reason}).") from None
        self.rank, self.count = self._accelerator.process_index, self._accelerator.num_processes
        self.is_main = self._accelerator.is_main_process
        self.device: torch.device = self._accelerator.device

    def prepare(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
        """Wrap network and optimizer for all processes and the number format."""
        return tuple(self._accelerator.prepare(network, optimizer))

    def unwrap(self, network: nn.Module) -> Any:
        """Return the network inside the wrappers."""
        return self._accelerator.unwrap_model(network)

    def autocast(self) -> AbstractContextManager[Any]:
        """Compute in the number format of the training."""
        context: AbstractContextManager[Any] = self._accelerator.autocast()
        return context

    def accumulating(self, network: nn.Module, *, is_last: bool) -> AbstractContextManager[Any]:
        """Leave the gradients of other processes for the last micro-batch of a step."""
        context: AbstractContextManager[Any] = nullcontext() if is_last else self._accelerator.no_sync(network)
        return context

    def backward(self, loss: Tensor) -> None:
        """Compute gradients, scaled where fp16 needs it."""
        self._accelerator.backward(loss)

    def clip(self, parameters: Sequence[nn.Parameter], norm: float) -> Tensor | None:
        """Scale gradients down to a norm, and return what it was."""
        total: Tensor | None = self._accelerator.clip_grad_norm_(parameters, norm)
        return total

    def sum(self, value: Tensor) -> Tensor:
        """Add up a tensor over all processes."""
        total: Tensor = self._accelerator.reduce(value, "sum")
        return total

    def wait(self) -> None:
        """Wait for all processes."""
        self._accelerator.wait_for_everyone()

    def scaler_state(self) -> dict[str, Any]:
        """Return the state of the loss scaling in fp16; empty otherwise."""
        scaler = self._accelerator.scaler
        return {} if scaler is None else dict(scaler.state_dict())

    def restore_scaler(self, state: dict[str, Any]) -> None:
        """Put the state of the loss scaling back."""
        if self._accelerator.scaler is not None and state:
            self._accelerator.scaler.load_state_dict(state)

    def end(self) -> None:
        """Part from the other processes."""
        self._accelerator.end_training()


def whole(tensor: Tensor) -> Tensor:
    """Put together, on the CPU, a tensor that may be divided among processes; all processes call it together."""
    full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full.detach().cpu().contiguous()


def divide(tensor: Tensor, weight: Tensor) -> Tensor:
    """Give this process its part of a tensor, divided as `weight` is, and in its order in memory.

    The fused optimizer goes through weights and its own tensors side by side in memory, whatever their strides say.
    """
    if isinstance(weight, DTensor):
        return distribute_tensor(tensor.to(weight.device), weight.device_mesh, weight.placements)
    return torch.empty_like(weight, dtype=tensor.dtype, requires_grad=False).copy_(tensor)
