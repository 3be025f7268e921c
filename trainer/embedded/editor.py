"""Stage 3: train the 8-channel U-Net and the text encoder together on cached latents (arXiv:2211.09800, eq. 1)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
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
from .models import PREDICTION_TYPE
from .pairs import LatentPairs
from .state import TrainingState, learning_rate

logger = logging.getLogger(__name__)

BATCH, PEAK_LR, EMA_DECAY, DROPOUT = 16, 1.2e-3, 0.999, 0.05
IDENTITY_SHARE = 0.1
START_SHARE = 0.6
"""Share of the items that are noised as sampling starts, without a trace of the edited picture. Else the schedule's last
step lets 7 % of it through, and the model reads the edit there instead of in the instruction."""
LAST_STEP = 999
CHANGE_SHARE = 0.25
"""The part of the loss that goes to changed cells alone."""
OPENINGS = ("please ", "now ", "could you ", "can you please ", "in this picture, ", "edit: ", "next, ")
CLOSINGS = (" please", " now", " in this picture", " for me", ".", "!", " here")


class EditorModules(nn.Module):
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
    """Weights of the loss [B, 1, H, W]: `CHANGE_SHARE` of it goes to what the edit changes."""
    return region_weights(changed_region(original, edited, spread), CHANGE_SHARE)


def vary_wording(rng: np.random.Generator, text: str) -> str:
    """In four of ten cases an opening or a closing that says nothing, so that single words are learnt."""
    kind = rng.random()
    if kind < 0.2:
        return OPENINGS[int(rng.integers(len(OPENINGS)))] + text
    return text + CLOSINGS[int(rng.integers(len(CLOSINGS)))] if kind < 0.4 else text


class Batch(NamedTuple):
    """What one step learns from; a pure function of (seed, step)."""

    image_latents: Tensor
    """Unscaled [B, 4, h, w]; [B, 0, h, w] for a text-to-image model."""
    edited_latents: Tensor
    """Unscaled [B, 4, h, w]: what shall come out."""
    texts: list[str]
    noise: Tensor
    starts: Tensor
    t: Tensor
    u: Tensor
    weights: Tensor | None


MakeBatch = Callable[[int], Batch]


def pair_batch(pairs: LatentPairs, identity: Sequence[str], spread: float, seed: int, step: int, size: int) -> Batch:
    """Draw the batch of one step of the editor.

    Args:
        pairs: latents and instructions.
        identity: instructions under which nothing changes.
        spread: standard deviation of the latents.
        seed: of the training.
        step: number of the step.
        size: number of pairs.

    Returns:
        The batch.
    """
    rng = np.random.default_rng((seed, 3, step))
    chosen = rng.integers(len(pairs.rows), size=size)
    is_identity = rng.random(size) < IDENTITY_SHARE
    rows = pairs.rows[torch.from_numpy(chosen)]
    edited_rows = torch.where(torch.from_numpy(is_identity), rows[:, 0], rows[:, 1])
    original, edited = pairs.latents[rows[:, 0]].float(), pairs.latents[edited_rows].float()
    options = [identity if same else pairs.instructions[i] for i, same in zip(chosen, is_identity, strict=True)]
    texts = [vary_wording(rng, one[int(rng.integers(len(one)))]) for one in options]
    return Batch(original, edited, texts, *noising(rng, edited), change_weights(original, edited, spread))


def noising(
    rng: np.random.Generator, latents: Tensor, start_share: float = START_SHARE
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw noise, which items are sampling starts, t, and the numbers that decide the dropout."""
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    size = len(latents)
    noise = torch.randn(latents.shape, generator=generator)
    starts = torch.rand(size, generator=generator) < start_share
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
class EditorSettings:
    """How the editor is trained."""

    seed: int
    minutes: float
    """Wall time over all resumed runs together."""
    scaling_factor: float
    """Scaled latents are latents times this."""
    threads: int
    """Processor threads."""
    peak_lr: float = PEAK_LR
    """Learning rate after the warm-up."""


def train_editor(
    modules: EditorModules,
    sets: Sequence[tuple[LatentPairs, float]],
    identity: Sequence[str],
    run: Path,
    settings: EditorSettings,
) -> None:
    """Train the editor; each step draws from one of the sets, by weight.

    Args:
        modules: what is trained.
        sets: pairs and the share of steps that they get; a set has one picture size.
        identity: instructions under which nothing changes.
        run: folder of the state file.
        settings: seed, time, scale of the latents.
    """
    shares = np.array([share for _, share in sets])

    def make_batch(step: int) -> Batch:
        pairs = sets[np.random.default_rng((settings.seed, 4, step)).choice(len(sets), p=shares / shares.sum())][0]
        size = max(8, BATCH * 32**2 // pairs.latents.shape[-1] ** 2)
        return pair_batch(pairs, identity, 1 / settings.scaling_factor, settings.seed, step, size)

    train_network(modules, make_batch, run / "editor.pt", settings)


def train_network(modules: EditorModules, make_batch: MakeBatch, state_file: Path, settings: EditorSettings) -> None:
    """Train U-Net and text encoder for a number of minutes of wall time, or go on where an earlier run stopped.

    Args:
        modules: what is trained.
        make_batch: gives the batch of a step.
        state_file: where the state is kept.
        settings: seed, time, scale of the latents.
    """
    minutes = settings.minutes
    torch.set_num_threads(settings.threads)
    schedule, ids = make_scaled_linear(), _token_ids()
    parameters = list(modules.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=settings.peak_lr, weight_decay=0.01, betas=(0.9, 0.99), fused=True)
    state = TrainingState(state_file, modules, optimizer, EMA_DECAY)
    state.resume()
    losses: list[float] = []
    last = time.monotonic()
    while state.seconds < minutes * 60:
        progress = state.seconds / (minutes * 60)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(progress, settings.peak_lr)
        batch = make_batch(state.step)
        with torch.autocast("cpu", torch.bfloat16):
            token_ids = torch.stack([ids(text) for text in [*batch.texts, ""]])
            embeds = modules.embed(token_ids)
            dropped = drop_conditioning(Conditioning(batch.image_latents, embeds[:-1]), embeds[-1:], batch.u, p=DROPOUT)
            loss = edit_loss(
                modules.predict,
                batch.edited_latents * settings.scaling_factor,
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
