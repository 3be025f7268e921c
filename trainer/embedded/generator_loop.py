"""The loop of the embedded generator: U-Net and text encoder trained together on latents in memory.

Editors are trained by `ip2p train`; its loop is for pairs of pictures, this one is for captions.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ...ip2p_core.conditioning import Conditioning, drop_conditioning
from ...ip2p_core.objective import changed_region, edit_loss, region_weights
from ...ip2p_core.open_clip_adapter import tokenize
from ...ip2p_core.schedule import make_scaled_linear
from ..cuda_graphs import CudaGraphs
from .models import PREDICTION_TYPE
from .state import TrainingState, device_of, half_precision, learning_rate

logger = logging.getLogger(__name__)

PEAK_LR, EMA_DECAY, DROPOUT = 1.2e-3, 0.999, 0.05
WARMUP_STEPS = 100
"""At least, however long the first ones take: a GPU needs seconds to get ready."""
START_SHARE = 0.05
"""Share of the items that are noised as sampling starts, without a trace of the picture (docs/adr/0007)."""
LAST_STEP = 999
CHANGE_SHARE = 0.25
"""The part of the loss that goes to the objects alone."""


class GeneratorModules(nn.Module):
    """U-Net and text encoder as one module, so that they share optimizer, average and state file."""

    def __init__(self, unet: nn.Module, text_encoder: nn.Module) -> None:
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder

    def embed(self, ids: Tensor) -> Tensor:
        """Text embeddings [B, 77, D] of token ids."""
        embeds: Tensor = self.text_encoder(input_ids=ids).last_hidden_state
        return embeds

    def predict(self, x: Tensor, t: Tensor, embeds: Tensor) -> Tensor:
        """The network's output [B, 4, h, w]."""
        output: Tensor = self.unet(x, t, encoder_hidden_states=embeds).sample
        return output


def change_weights(original: Tensor, edited: Tensor, spread: float) -> Tensor:
    """Weights of the loss [B, 1, H, W]: `CHANGE_SHARE` of it goes to what differs."""
    return region_weights(changed_region(original, edited, spread), CHANGE_SHARE)


class Batch(NamedTuple):
    """What one step learns from; a pure function of (seed, step), whatever the device."""

    latents: Tensor
    """Unscaled [B, 4, h, w]: what shall come out."""
    texts: list[str]
    noise: Tensor
    starts: Tensor
    t: Tensor
    u: Tensor
    weights: Tensor | None

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        weights = None if self.weights is None else self.weights.to(device)
        latents, noise, starts, t, u = (
            one.to(device) for one in (self.latents, self.noise, self.starts, self.t, self.u)
        )
        return Batch(latents, self.texts, noise, starts, t, u, weights)


MakeBatch = Callable[[int], Batch]


def noising(rng: np.random.Generator, latents: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw noise, which items are sampling starts, t, and the numbers that decide the dropout."""
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    size = len(latents)
    noise = torch.randn(latents.shape, generator=generator)
    starts = torch.rand(size, generator=generator) < START_SHARE
    t = torch.randint(0, LAST_STEP + 1, (size,), generator=generator).masked_fill(starts, LAST_STEP)
    return noise, starts, t, torch.rand(size, generator=generator)


def _token_ids() -> Callable[[str], Tensor]:
    known: dict[str, Tensor] = {}

    def ids(text: str) -> Tensor:
        if text not in known:
            known[text] = torch.tensor(tokenize(text))
        return known[text]

    return ids


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How the generator is trained."""

    seed: int
    minutes: float
    """Wall time over all resumed runs together."""
    scaling_factor: float
    """Scaled latents are latents times this."""
    threads: int
    """Processor threads."""


def train_network(modules: GeneratorModules, make_batch: MakeBatch, state_file: Path, settings: LoopSettings) -> None:
    """Train U-Net and text encoder for a number of minutes of wall time, or go on where an earlier run stopped.

    Args:
        modules: what is trained.
        make_batch: gives the batch of a step.
        state_file: where the state is kept.
        settings: seed, time, scale of the latents.
    """
    minutes = settings.minutes
    torch.set_num_threads(settings.threads)
    schedule, ids, device = make_scaled_linear(), _token_ids(), device_of(modules)
    parameters = list(modules.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=PEAK_LR, weight_decay=0.01, betas=(0.9, 0.99), fused=True)
    state = TrainingState(state_file, modules, optimizer, EMA_DECAY)
    state.resume()
    embed: Callable[..., Tensor] = modules.embed
    predict: Callable[..., Tensor] = modules.predict
    if device.type == "cuda":
        embed, predict = CudaGraphs(modules.text_encoder, embed), CudaGraphs(modules.unet, predict)
    losses: list[float] = []
    last = time.monotonic()
    while state.seconds < minutes * 60:
        progress = state.seconds / (minutes * 60)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(progress, PEAK_LR) * min(1.0, (state.step + 1) / WARMUP_STEPS)
        batch = make_batch(state.step).to(device)
        with half_precision(device):
            token_ids = torch.stack([ids(text) for text in [*batch.texts, ""]]).to(device)
            embeds = embed(token_ids)
            dropped = drop_conditioning(
                Conditioning(batch.latents[:, :0], embeds[:-1]), embeds[-1:], batch.u, p=DROPOUT
            )
            loss = edit_loss(
                predict,
                batch.latents * settings.scaling_factor,
                dropped,
                batch.t,
                batch.noise,
                schedule=schedule,
                prediction_type=PREDICTION_TYPE,  # type: ignore[arg-type]
                starts=batch.starts,
                weights=batch.weights,
            )
        state.update(loss, parameters)
        losses.append(float(loss.detach()))
        now = time.monotonic()
        state.seconds, last = state.seconds + now - last, now
        if state.step % 200 == 0:
            name, done = state_file.stem, state.seconds / 60
            logger.info("%s step %d, %.1f min, loss %.4f", name, state.step, done, np.mean(losses))
            losses.clear()
        if state.step % 500 == 0:
            state.save()
    state.save()
