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
CHANGE_THRESHOLD, SMALLEST_REGION = 0.25, 0.02
"""A cell has changed where its latents differ by so many standard deviations; and the smallest share of a picture that
weights make up for."""


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
    wide = torch.promote_types(prediction.dtype, torch.float32)
    prediction, target = prediction.to(wide), target.to(wide)
    if weights is None:
        return functional.mse_loss(prediction, target)  # eq. 1
    return ((prediction - target).square() * weights).mean()


def changed_region(original: Tensor, edited: Tensor, spread: float) -> Tensor:
    """Find the cells that an edit changes.

    Args:
        original: latents [B, C, H, W].
        edited: the same, after the edit.
        spread: standard deviation of the latents.

    Returns:
        [B, 1, H, W]: 1 where the latents differ by more than `CHANGE_THRESHOLD` of it on average, else 0.
    """
    return ((edited - original).abs().mean(1, keepdim=True) > CHANGE_THRESHOLD * spread).to(edited.dtype)


def region_weights(region: Tensor, share: float) -> Tensor:
    """Weigh the loss so that a share of it goes to a region of the picture, however small that is.

    Args:
        region: how much each cell belongs to it [B, 1, H, W], in [0, 1].
        share: of the loss, in [0, 1].

    Returns:
        Weights [B, 1, H, W], of mean 1 where the region covers more than `SMALLEST_REGION` of the picture.
    """
    covered = region.mean((1, 2, 3), keepdim=True).clamp(min=SMALLEST_REGION)
    return 1 - share + share * region / covered


def min_snr_weights(t: Tensor, gamma: float, schedule: NoiseSchedule, prediction_type: PredictionType) -> Tensor:
    """Weigh the steps so that all pull alike (arXiv:2303.09556, section 3.4).

    Args:
        t: training step of each item [B].
        gamma: cap of the signal-to-noise ratio; 5 is usual.
        schedule: the noise levels of the training.
        prediction_type: what the network predicts.

    Returns:
        Weights [B, 1, 1, 1]: min(SNR, gamma) / SNR for eps, min(SNR, gamma) / (SNR + 1) for v.
    """
    alphas = schedule.alphas_cumprod.to(t.device)[t].reshape(-1, 1, 1, 1)
    snr = alphas / (1 - alphas)
    return snr.clamp(max=gamma) / (snr if prediction_type == "eps" else snr + 1)


def _signal_and_spread(latents: Tensor, t: Tensor, schedule: NoiseSchedule) -> tuple[Tensor, Tensor]:
    alphas = schedule.alphas_cumprod.to(latents.device)[t].reshape(-1, *[1] * (latents.ndim - 1))
    return alphas.sqrt().to(latents.dtype), (1 - alphas).sqrt().to(latents.dtype)
