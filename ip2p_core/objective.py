"""The training objective (arXiv:2211.09800, eq. 1): noise the edited latents, concatenate, predict, compare.

Shapes: B batch, C latent channels, H W latent height and width, T training steps.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from .conditioning import Conditioning
from .schedule import NoiseSchedule, PredictionType

Unet = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(noisy and image latents [B, 2C, H, W], t [B], text_embeds [B, L, D]) -> prediction [B, C, H, W]."""


def add_noise(latents: Tensor, noise: Tensor, t: Tensor, schedule: NoiseSchedule) -> Tensor:
    """Noise latents to training step t, at unit variance: sqrt(a) latents + sqrt(1 - a) noise."""
    signal, spread = _signal_and_spread(latents, t, schedule)
    return signal * latents + spread * noise


def prediction_target(
    latents: Tensor, noise: Tensor, t: Tensor, schedule: NoiseSchedule, prediction_type: PredictionType
) -> Tensor:
    """Return what the network shall predict: the noise, or v = sqrt(a) noise - sqrt(1 - a) latents."""
    if prediction_type == "eps":
        return noise
    signal, spread = _signal_and_spread(latents, t, schedule)
    return signal * noise - spread * latents  # arXiv:2202.00512, appendix D


def edit_loss(  # noqa: PLR0913
    unet: Unet,
    latents: Tensor,
    conditioning: Conditioning,
    t: Tensor,
    noise: Tensor,
    *,
    schedule: NoiseSchedule,
    prediction_type: PredictionType = "eps",
    starts: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Compute the loss of one batch.

    Args:
        unet: the network.
        latents: latents of the edited image [B, C, H, W], scaled.
        conditioning: image latents (unscaled) and text embeddings, after dropout.
        t: training step of each item [B], 0 to T - 1.
        noise: unit noise [B, C, H, W].
        schedule: the noise levels of the training.
        prediction_type: what the network predicts.
        starts: items [B] (bool) that the network sees as sampling starts: noise without any latents in it. The schedule's
            last step still holds 7 % of the latents (arXiv:2305.08891, section 3.1), and a network learns to read it.
        weights: how much each place counts, broadcast against [B, C, H, W]; of mean 1 to keep the size of the loss.

    Returns:
        The mean squared error, weighted where weights are given, a scalar.
    """
    visible = latents if starts is None else latents * ~starts.reshape(-1, 1, 1, 1)
    noisy_latents = add_noise(visible, noise, t, schedule)
    prediction = unet(torch.cat([noisy_latents, conditioning.image_latents], dim=1), t, conditioning.text_embeds)
    target = prediction_target(latents, noise, t, schedule, prediction_type)
    if weights is None:
        return functional.mse_loss(prediction.float(), target.float())  # eq. 1
    return ((prediction.float() - target.float()).square() * weights).mean()


def _signal_and_spread(latents: Tensor, t: Tensor, schedule: NoiseSchedule) -> tuple[Tensor, Tensor]:
    alphas = schedule.alphas_cumprod.to(latents.device)[t].reshape(-1, *[1] * (latents.ndim - 1))
    return alphas.sqrt().to(latents.dtype), (1 - alphas).sqrt().to(latents.dtype)
