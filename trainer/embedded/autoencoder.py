"""Stage 1: train the KL autoencoder on crops of photographs, textures, scenes and their global edits.

Reconstruction (L1 and squared error) plus a small Kullback-Leibler term, as in Rombach et al. 2022 without the
adversarial part. The attention of the middle block stays switched off (its output projection is zero), so that the
autoencoder works the same at every size.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..photo_edits import EFFECTS, apply_effect
from .pictures import FloatImage, training_picture
from .state import TrainingState, device_of, half_precision, learning_rate

logger = logging.getLogger(__name__)

POOL_PX, CROP_PX, BATCH = 128, 64, 8
KL_WEIGHT, PEAK_LR = 3e-6, 1.5e-3


def pool_picture(seed: int, index: int, size: int) -> FloatImage:
    """Picture `index` of the pool: four in ten of them globally edited."""
    rng = np.random.default_rng((seed, index))
    image = training_picture(rng, size)
    if rng.random() < 0.4:
        image = apply_effect(list(EFFECTS)[rng.integers(len(EFFECTS))], image)
    return image


def build_pool(seed: int, count: int) -> Tensor:
    """The pool [N, 3, 128, 128], uint8."""
    pictures = [(pool_picture(seed, i, POOL_PX) * 255 + 0.5).astype(np.uint8) for i in range(count)]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


def _batch(pool: Tensor, seed: int, step: int, size: int) -> Tensor:
    rng = np.random.default_rng((seed, 1, step))
    crops, side = [], min(CROP_PX, pool.shape[-1])
    for _ in range(size):
        i, (x, y) = rng.integers(len(pool)), rng.integers(0, pool.shape[-1] - side + 1, 2)
        crop = pool[i, :, y : y + side, x : x + side]
        crops.append(crop.flip(-1) if rng.random() < 0.5 else crop)
    return torch.stack(crops).float() / 127.5 - 1


def switch_off_attention(vae: Any) -> None:
    """Make the middle blocks' attention the identity, for good."""
    for part in (vae.encoder, vae.decoder):
        for attention in part.mid_block.attentions:
            projection = attention.to_out[0]
            torch.nn.init.zeros_(projection.weight)
            torch.nn.init.zeros_(projection.bias)
            attention.requires_grad_(requires_grad=False)


def compile_parts(vae: Any) -> None:
    """Compile encoder and decoder in place: 2.5 times faster on two cores; weights and their names stay."""
    vae.encoder.compile(dynamic=False)
    vae.decoder.compile(dynamic=False)


def loss_of(vae: Any, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Training loss, and the mean squared error on [0, 1] for the log."""
    posterior = vae.encode(images).latent_dist
    mean, std = posterior.mean.float(), posterior.std.float()
    latents = mean + std * torch.randn(mean.shape, generator=generator).to(mean.device)
    result = vae.decode(latents).sample.float()
    error = functional.mse_loss(result, images)
    kl = posterior.kl().sum() / images.numel()
    return functional.l1_loss(result, images) + 2.0 * error + KL_WEIGHT * 48 * kl, error.detach() / 4


@dataclass(frozen=True, kw_only=True)
class AutoencoderSettings:
    """How the autoencoder is trained."""

    seed: int
    minutes: float
    """Wall time over all resumed runs together."""
    threads: int
    """Processor threads."""
    pool_size: int
    """Number of pictures that the crops come from."""
    is_compiled: bool
    is_encoder_frozen: bool = False
    """Train the decoder alone, so that latents stay what they were."""
    batch_size: int = BATCH


def train_autoencoder(vae: Any, state_file: Path, settings: AutoencoderSettings, pool: Tensor | None = None) -> None:
    """Train until the time is used up, or go on where an earlier run stopped.

    Args:
        vae: the autoencoder.
        state_file: where the state is kept.
        settings: seed and time.
        pool: pictures [N, 3, H, W], uint8; smaller ones than a crop are taken whole; drawn by the settings if there are none.
    """
    torch.set_num_threads(settings.threads)
    switch_off_attention(vae)
    if settings.is_encoder_frozen:
        vae.encoder.requires_grad_(requires_grad=False)
        vae.quant_conv.requires_grad_(requires_grad=False)
    device, parameters = device_of(vae), [p for p in vae.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=PEAK_LR, weight_decay=1e-4, betas=(0.9, 0.98))
    state = TrainingState(state_file, vae, optimizer, ema_decay=0.998)
    state.resume()
    duration = settings.minutes * 60
    if state.seconds >= duration:
        return
    if pool is None:
        pool = build_pool(settings.seed + settings.is_encoder_frozen, settings.pool_size)
    logger.info("pool of %d pictures ready", len(pool))
    if settings.is_compiled:
        compile_parts(vae)
    last = time.monotonic()
    errors: list[float] = []
    while state.seconds < duration:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(state.seconds / duration, PEAK_LR)
        images = _batch(pool, settings.seed, state.step, settings.batch_size).to(device)
        generator = torch.Generator().manual_seed(state.step)
        with half_precision(device):
            loss, error = loss_of(vae, images, generator)
        state.update(loss, parameters)
        errors.append(float(error))
        now = time.monotonic()
        state.seconds, last = state.seconds + now - last, now
        if state.step % 200 == 0:
            psnr = -10 * np.log10(np.mean(errors))
            logger.info("%s step %d, %.1f min, PSNR %.2f dB", state_file.stem, state.step, state.seconds / 60, psnr)
            errors.clear()
        if state.step % 500 == 0:
            state.save()
    state.save()
