"""Text guidance (eq. 2) of a text-to-image model, as a denoiser.

Shapes: B rows of a batch, H W in pixels, h w in latent cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..ip2p_core.guidance import guide_text
from ..ip2p_core.schedule import output_to_denoised, scale_model_input
from .edit_backend import Editor, TextCondition, added_conditions

BRANCHES = (True, False)
"""Conditional, then unconditional, in one call of the network."""


class TextDenoiser:
    """The guided denoised prediction of a batch.

    Args:
        model: a text-to-image model.
        scales: text guidance scale of every row.
        captions: of every row.
        size: height and width in pixels.
    """

    def __init__(self, model: Editor, scales: Sequence[float], captions: Sequence[str], size: tuple[int, int]) -> None:
        self.model = model
        self.scales = torch.tensor(scales, device=model.device)
        texts: list[TextCondition] = [model.text.encode(captions), model.text.encode([""] * len(captions))]
        self.embeds = torch.cat([text.embeds for text in texts]).to(model.dtype)
        self.added: Any = added_conditions(texts, size, model.dtype)

    def __call__(self, x: Tensor, sigma: Tensor, _step: int) -> Tensor:
        """Predict [B, 4, h, w]."""
        model = self.model
        network_input = scale_model_input(x, sigma).repeat(len(BRANCHES), 1, 1, 1).to(model.dtype)
        if model.is_channels_last:
            network_input = network_input.contiguous(memory_format=torch.channels_last)
        t = model.schedule.network_time(sigma)
        output = model.unet(network_input, t, self.embeds, added_cond_kwargs=self.added, return_dict=False)[0]
        outputs = output.to(x.dtype).chunk(len(BRANCHES))
        cond, uncond = (output_to_denoised(one, x, sigma, model.config.prediction_type) for one in outputs)
        return guide_text(cond, uncond, self.scales)
