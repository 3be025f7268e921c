"""What a run would cost, for `ip2p train --dry-run`: steps, time, memory, disk."""

from __future__ import annotations

import time

import torch

from ...ip2p_core.train_job import TrainConfig
from ..accelerate_adapter import Processes, is_emulated
from .batches import MicroBatch
from .latents import PairLatents
from .network import make_network, trained_parameters
from .run_log import peak_memory_mib
from .setup import RunParts, make_batches, make_objective

NUM_MEASURED = 2


def describe_plan(config: TrainConfig, parts: RunParts, processes: Processes) -> str:
    """Measure a micro-batch and say what the run would take.

    Args:
        config: of the run.
        parts: base and pairs; the base is changed.
        processes: who would take part.

    Returns:
        Sentences.
    """
    network = make_network(parts.editor, config)
    objective = make_objective(config, parts)
    batch = _example(config, parts)
    seconds = []
    for _ in range(1 + NUM_MEASURED):
        started = time.monotonic()
        with processes.autocast():
            loss = objective.loss(network, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        network.zero_grad(set_to_none=True)
        seconds.append(time.monotonic() - started)
    per_step = min(seconds) * config.batch_size / config.micro_batch_size / processes.count
    trained = sum(weight.numel() for _, weight in trained_parameters(network))
    held = sum(weight.numel() for weight in network.parameters())
    num_bytes = 8 if config.precision == "fp64" else 4
    moments = 2 if config.optimizer == "adamw8bit" else 2 * num_bytes
    static = held * num_bytes + trained * (num_bytes + moments + (4 if config.ema_decay else 0))
    checkpoints = config.keep_checkpoints * trained * (num_bytes + moments + (4 if config.ema_decay else 0))
    cells = sum(value[0].numel() for value in batch.latents) if batch.latents else 0
    cached = len(parts.pairs) * config.cache_views * cells * 2 if parts.cache else 0
    epochs = config.steps * config.batch_size / len(parts.pairs)
    return (
        f"{len(parts.pairs)} pairs, {config.steps} steps of {config.batch_size} on {processes.count} x {processes.device}: "
        f"{epochs:.1f} epochs, about {config.steps * per_step / 3600:.2f} hours, without building the cache.\n"
        f"{trained / 1e6:.1f} of {held / 1e6:.1f} million weights are trained; weights, gradients, optimizer and average take "
        f"{static / 2**30:.2f} GiB, the peak with a micro-batch was {(peak_memory_mib(processes.device) or 0) / 1024:.2f} GiB.\n"
        f"Disk: checkpoints {checkpoints / 1e9:.2f} GB in {config.output}, cache {cached / 1e9:.2f} GB."
        + "".join(f"\n{hint}" for hint in hints(config, processes.device))
    )


def hints(config: TrainConfig, device: torch.device) -> list[str]:
    """Say what makes a run slower than it need be."""
    if not is_emulated(config.precision, device):
        return []
    return [
        f"This processor has no {config.precision} arithmetic and emulates it, many times slower than fp32: "
        "--set precision=fp32 is faster here."
    ]


def _example(config: TrainConfig, parts: RunParts) -> MicroBatch:
    """A micro-batch of the largest size, of noise in place of pictures."""
    batches, shape = make_batches(config, parts), max(parts.shapes, key=lambda one: one[0] * one[1])
    visits = batches.order.micro_batches(0, 1)[0]
    draws = batches.settings.draw(visits, shape)
    ones = torch.ones(len(visits))
    latents = PairLatents(
        draws.noise, draws.posterior, torch.ones_like(draws.noise), torch.ones_like(draws.noise[:, :1]), ones.bool()
    )
    numbers = torch.zeros(len(visits), dtype=torch.long)
    return MicroBatch(visits, latents, [], shape, numbers, ones, *draws)
