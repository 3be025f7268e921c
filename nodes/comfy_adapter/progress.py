"""Progress, previews and interruption of work that is longer than one run of the sampler."""

from __future__ import annotations

import comfy.model_management
import comfy.utils
import torch
from torch import Tensor

from ...ip2p_core.image_tensor import to_pil

PREVIEW_PX = 512


class StepProgress:
    """One progress bar over several runs of the sampler, with finished pictures as previews.

    Args:
        num_runs: runs of the sampler.
        num_steps: steps of one run.
    """

    def __init__(self, num_runs: int, num_steps: int) -> None:
        self._bar = comfy.utils.ProgressBar(max(1, num_runs * num_steps))
        self._num_steps, self._num_done = num_steps, 0

    def callback(self, step: int, _denoised: Tensor, _x: Tensor, _total: int) -> None:
        """Count a step; the sampler calls it."""
        self._bar.update_absolute(self._num_done * self._num_steps + step + 1)

    def finish_run(self, pictures: Tensor) -> None:
        """Count a run and show pictures [B, H, W, 3] side by side; stops here if the person cancelled."""
        self._num_done += 1
        shown = to_pil(torch.cat(list(pictures), dim=1))
        self._bar.update_absolute(self._num_done * self._num_steps, preview=("JPEG", shown, PREVIEW_PX))
        comfy.model_management.throw_exception_if_processing_interrupted()
