"""Making the pairs of one prompt as plain functions; finished pairs survive a cancelled run."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..ip2p_core.pair_generation import PairDraw, PairSettings, draw_samples, make_record
from ..ip2p_core.pair_record import PairRecord
from ..ip2p_core.triplet import Triplet
from .comfy_adapter import pair_sampling, sampling, text
from .comfy_adapter.progress import StepProgress
from .comfy_adapter.settings import config_of_model
from .edit_inputs import MODEL_DEFAULT
from .schema import Blocker

MAX_REMEMBERED = 64
"""Prompts whose finished pairs are remembered, as encoded pictures, in case the run is cancelled."""
_finished: OrderedDict[Hashable, dict[int, PairRecord]] = OrderedDict()


@dataclass(frozen=True, kw_only=True)
class PairPlan:
    """How the pairs of a node are sampled; 0 and 'model default' are the model's own values."""

    seed: int
    steps: int
    sampler_name: str
    scheduler: str
    width: int
    height: int
    batch_size: int


def make_pairs(model, clip, vae, triplet: Triplet, settings: PairSettings, plan: PairPlan) -> tuple[PairRecord, ...]:
    """Make all samples of one prompt, batch by batch.

    Args:
        model: MODEL of a text-to-image U-Net.
        clip: the host's CLIP.
        vae: the host's VAE.
        triplet: the texts.
        settings: what is drawn and shared.
        plan: how it is sampled.

    Returns:
        The pairs in the order of their samples, without scores.
    """
    pair_sampling.require_generator(model)
    draws = draw_samples(triplet, settings, plan.seed)
    text.require_whole(clip, [triplet.caption, triplet.edited_caption])
    config = config_of_model(model)
    sampler_name = config.default_sampler if plan.sampler_name == MODEL_DEFAULT else plan.sampler_name
    scheduler = config.default_scheduler if plan.scheduler == MODEL_DEFAULT else plan.scheduler
    sigmas = sampling.make_sigmas(model, sampler_name, scheduler, plan.steps or config.default_steps, 1.0)
    width, height = plan.width or config.working_resolution, plan.height or config.working_resolution
    shape = pair_sampling.latent_shape(vae, width, height)
    done = _remember((pair_sampling.identity(model, clip, vae), triplet, settings, plan))
    batches = _batches([draw for draw in draws if draw.sample_index not in done], plan.batch_size)
    progress = StepProgress(len(batches), len(sigmas) - 1)
    for batch in batches:
        pictures = pair_sampling.sample_pairs(
            model,
            clip,
            vae,
            batch,
            triplet,
            settings,
            sampler_name=sampler_name,
            sigmas=sigmas,
            shape=shape,
            callback=progress.callback,
        ).cpu()
        for draw, pair in zip(batch, pictures.split(2), strict=True):
            done[draw.sample_index] = make_record(draw, triplet, settings, pair[0], pair[1])
        progress.finish_run(pictures[:2])
    return tuple(done[draw.sample_index] for draw in draws)


def _batches(draws: list[PairDraw], batch_size: int) -> list[list[PairDraw]]:
    return [draws[first : first + batch_size] for first in range(0, len(draws), batch_size)]


def _remember(key: Hashable) -> dict[int, PairRecord]:
    """Return the pairs that are finished under these settings, to be filled."""
    done = _finished.setdefault(key, {})
    _finished.move_to_end(key)
    while len(_finished) > MAX_REMEMBERED:
        _finished.popitem(last=False)
    return done


def show(pairs: tuple[PairRecord, ...], num_shown: int) -> tuple[Tensor, Tensor] | tuple[Blocker, Blocker]:
    """Decode the first pairs to IMAGE batches; the rest stays encoded.

    Args:
        pairs: the pairs; of those of another size than the first none is shown.
        num_shown: how many at most.

    Returns:
        Originals and edited pictures, each [N, H, W, 3] in [0, 1]; without pairs what holds up the nodes that follow.
    """
    if not pairs:
        return Blocker(None), Blocker(None)
    shown = [(one.original.tensor(), one.edited.tensor()) for one in pairs[:num_shown]]
    alike = [pair for pair in shown if pair[0].shape == shown[0][0].shape]
    return torch.stack([original for original, _ in alike]), torch.stack([edited for _, edited in alike])
