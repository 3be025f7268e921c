"""What a training stage must keep to go on where it stopped: weights, optimizer, EMA, step, elapsed time."""

from __future__ import annotations

import copy
import math
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..accelerate_adapter import is_emulated

CPU = torch.device("cpu")


def half_precision(device: torch.device = CPU) -> AbstractContextManager[Any]:
    """Compute in bfloat16 on devices that do; on other processors it would be emulated, 20 to 80 times slower."""
    return torch.autocast(device.type, torch.bfloat16, enabled=not is_emulated("bf16", device))


def device_of(module: nn.Module) -> torch.device:
    """Where a module's weights lie."""
    return next(module.parameters()).device


def learning_rate(progress: float, peak: float, warmup: float = 0.02, floor: float = 0.02) -> float:
    """Linear warm-up, then a cosine down to `floor` times the peak; `progress` is in [0, 1]."""
    if progress < warmup:
        return peak * max(progress / warmup, 0.02)
    done = (progress - warmup) / (1 - warmup)
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


class TrainingState:
    """A module with its optimizer and exponential moving average, saved as one file beside-and-renamed."""

    def __init__(self, path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, ema_decay: float) -> None:
        self.path, self.module, self.optimizer, self.ema_decay = path, module, optimizer, ema_decay
        self.step = 0
        self.seconds = 0.0
        self.ema: dict[str, Tensor] = copy.deepcopy(module.state_dict())

    def resume(self) -> bool:
        """Load the file where there is one."""
        if not self.path.exists():
            return False
        saved: dict[str, Any] = torch.load(self.path, device_of(self.module), weights_only=True)  # noqa: TID251 - our own file
        self.module.load_state_dict(saved["module"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.ema, self.step, self.seconds = saved["ema"], saved["step"], saved["seconds"]
        return True

    def update(self, loss: Tensor, parameters: list[nn.Parameter]) -> None:
        """One optimizer step and one step of the moving average; halts on a loss that is not finite."""
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} at step {self.step}; the last saved state is kept")
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        decay = min(self.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            current = self.module.state_dict()
            floats = [k for k, v in self.ema.items() if v.is_floating_point()]
            torch._foreach_lerp_([self.ema[k] for k in floats], [current[k] for k in floats], 1 - decay)

    def save(self) -> None:
        """Write the file; a crash leaves the old one whole."""
        beside = self.path.with_suffix(".tmp")
        saved = {"module": self.module.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save({**saved, "ema": self.ema, "step": self.step, "seconds": self.seconds}, beside)
        os.replace(beside, self.path)  # noqa: PTH105
