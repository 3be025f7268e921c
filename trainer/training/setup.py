"""From settings to everything a run needs: base model, pairs, cache, micro-batches, network, objective."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...ip2p_core.errors import ConfigError
from ...ip2p_core.sample_order import SampleOrder, group_by_shape
from ...ip2p_core.train_job import TrainConfig
from ..accelerate_adapter import Processes
from ..diffusers_adapter import load_base
from ..edit_backend import Editor
from .batches import BatchSettings, MicroBatches
from .latents import CropSettings, LatentCache, cache_key
from .network import DTYPES
from .objective_step import EditObjective
from .pictures import EditPairs, check_shape, read_wordings


@dataclass(frozen=True)
class RunParts:
    """What a run is made of."""

    editor: Editor
    pairs: EditPairs
    shapes: list[tuple[int, int]]
    """Height and width in pixels of each bucket."""
    buckets: tuple[np.ndarray, ...]
    """Rows of each bucket."""
    crops: CropSettings
    cache: LatentCache | None
    identity: dict[str, Any]
    """What decides the weights that come out."""


def cache_folder(config: TrainConfig) -> Path:
    """Return where caches lie: beside the runs, so that several runs share them."""
    return Path(config.output).absolute().parent / "cache"


def prepare_parts(config: TrainConfig, device: torch.device) -> RunParts:
    """Open base and pairs, and describe the cache; nothing is encoded yet.

    Args:
        config: of the run.
        device: where the model goes.

    Returns:
        The parts.

    Raises:
        ConfigError: if settings, base and pairs do not go together.
        PairStoreError: if the dataset is empty or damaged.
        CheckpointError: if the base cannot be read.
    """
    editor = load_base(config.base, models_dir=Path(config.models), device=str(device))
    check_shape(config.resolution, editor.config.size_multiple)
    wordings = read_wordings(Path(config.wordings)) if config.wordings else {}
    pairs = EditPairs.open(Path(config.dataset), config.split, is_skipping=config.damaged == "skip", wordings=wordings)
    if config.buckets:
        by_row = pairs.bucket_shapes(config.resolution, editor.config.size_multiple)
    else:
        by_row = [(config.resolution, config.resolution)] * len(pairs)
    buckets = group_by_shape(by_row)
    shapes = [by_row[int(rows[0])] for rows in buckets]
    crops = CropSettings(
        resize=config.resize,
        flip=config.flip,
        is_skipping=config.damaged == "skip",
        is_with_mask=config.mask_share > 0,
    )
    cache = None
    if config.cache == "latents":
        key = cache_key(pairs.data_hash, editor.codec.vae, crops, shapes, config.cache_views)
        cache = LatentCache(cache_folder(config) / key, buckets, shapes, config.cache_views, key)
    identity = {**config.identity(), "data": pairs.data_hash, "base_weights": weights_hash(editor.unet)}
    if wordings:
        identity["wordings"] = hashlib.sha256(json.dumps(wordings).encode()).hexdigest()[:16]
    return RunParts(editor, pairs, shapes, buckets, crops, cache, identity)


def build_cache(parts: RunParts, processes: Processes, report: Callable[[int, int], None]) -> None:
    """Encode what the cache lacks; the processes share the work."""
    if parts.cache is not None:
        share = processes.rank, processes.count
        parts.cache.build(parts.pairs, parts.editor.codec, parts.crops, share=share, report=report)
        processes.wait()


def make_batches(config: TrainConfig, parts: RunParts) -> MicroBatches:
    """Say how micro-batches are made."""
    settings = BatchSettings.of(parts.editor, config.seed, config.start_share, parts.crops)
    order = SampleOrder(config.seed, parts.buckets, config.micro_batch_size)
    weights = pair_weights(parts.pairs) if config.use_weights else None
    return MicroBatches(parts.pairs, order, parts.shapes, settings, parts.cache, weights)


def make_objective(config: TrainConfig, parts: RunParts) -> EditObjective:
    """Say what is learnt."""
    objective = EditObjective(
        parts.editor, config, parts.pairs.instructions, DTYPES.get(config.precision, torch.float32)
    )
    if config.cache_text:
        objective.keep_text()
    return objective


def pair_weights(pairs: EditPairs) -> Tensor | None:
    """Read the weights of the pairs; None where all are 1."""
    weights = torch.tensor([1.0 if record.weight is None else record.weight for record in pairs.records])
    return None if bool((weights == 1).all()) else weights


def check_batch(config: TrainConfig, num_processes: int) -> None:
    """Refuse a batch that the processes cannot share evenly.

    Args:
        config: of the run.
        num_processes: how many take part.

    Raises:
        ConfigError: naming a size that they can share.
    """
    unit = config.micro_batch_size * num_processes
    if config.batch_size % unit:
        raise ConfigError(
            f"batch_size is {config.batch_size}; {num_processes} processes with micro_batch_size {config.micro_batch_size} "
            f"need a multiple of {unit}, such as {max(1, round(config.batch_size / unit)) * unit}."
        )


def weights_hash(module: Any) -> str:
    """Identify the weights of a network by a sample of them."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        part = value.detach().flatten()[:64].float().cpu()
        digest.update(json.dumps([name, list(value.shape)]).encode() + part.numpy().tobytes())
    return digest.hexdigest()[:16]
