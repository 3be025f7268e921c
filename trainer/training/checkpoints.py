"""Checkpoints of a run: a folder each, written beside and renamed, its manifest last; the newest whole one counts."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from ...ip2p_core.checkpoint_files import write_tensors
from ...ip2p_core.errors import CheckpointError, PairStoreError
from ...ip2p_core.pair_store.durable_files import sha256_of, sync, write_durably

logger = logging.getLogger(__name__)

MANIFEST, PREFIX, PARTS = "checkpoint.json", "step-", ("weights", "average", "optimizer")


@dataclass
class Checkpoint:
    """All that a run needs to go on. There is no random state: every draw is a function of seed, epoch and row."""

    step: int
    """Optimizer steps done."""
    weights: dict[str, Tensor]
    """What is trained."""
    average: dict[str, Tensor]
    """Its moving average; empty without one."""
    optimizer: dict[str, Tensor]
    """Tensors of the optimizer, by "number of the weight.name"."""
    optimizer_scalars: dict[str, Any] = field(default_factory=dict)
    """What else the optimizer keeps."""
    lineage: int = 0
    """Sum over all pairs that these weights have learnt from of a hash of (step, pair), modulo 2**64."""
    identity: dict[str, Any] = field(default_factory=dict)
    """What decides the weights; a run goes on only from a checkpoint with its own."""
    scaler: dict[str, Any] = field(default_factory=dict)
    """State of the loss scaling in fp16."""


_RECORD = ("step", "optimizer_scalars", "lineage", "identity", "scaler")


def write_run_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write a checkpoint, and afterwards delete all but the newest ones.

    Args:
        folder: of the checkpoints.
        checkpoint: what to write.
        keep: how many stay.

    Returns:
        Its folder.

    Raises:
        CheckpointError: if it cannot be written, for example because the disk is full; older ones are whole.
    """
    final = folder / f"{PREFIX}{checkpoint.step:08d}"
    beside = folder / f".{final.name}.tmp"
    try:
        shutil.rmtree(beside, ignore_errors=True)
        hashes = {}
        for part in PARTS:
            path = beside / f"{part}.safetensors"
            write_tensors(path, getattr(checkpoint, part), {})
            hashes[part] = sha256_of(path)
        record = {name: getattr(checkpoint, name) for name in _RECORD}
        text = json.dumps({**record, "sha256": hashes}, indent=1)
        write_durably(beside / MANIFEST, lambda path: path.write_text(text, encoding="utf-8"))
        if final.exists():
            shutil.rmtree(final)
        beside.rename(final)
        sync(folder)
    except (OSError, PairStoreError, CheckpointError) as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise CheckpointError(
            f"The checkpoint {final} cannot be written ({error}). Older checkpoints are whole; free some space and start "
            "again."
        ) from None
    for old in _folders(folder)[keep:]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def newest_checkpoint(folder: Path, identity: Mapping[str, Any]) -> Checkpoint | None:
    """Read the newest whole checkpoint; damaged ones are named and passed over.

    Args:
        folder: of the checkpoints.
        identity: what decides the weights.

    Returns:
        The checkpoint, or None if there is none.

    Raises:
        CheckpointError: if it belongs to a run with other settings.
    """
    for checkpoint in _whole_ones(folder):
        differing = [name for name, value in identity.items() if checkpoint.identity.get(name) != value]
        if differing:
            name = differing[0]
            raise CheckpointError(
                f"The run in {folder.parent} was made with {name} = {checkpoint.identity.get(name)!r}, not {identity[name]!r}. "
                "Use its settings to go on, or another output folder to start anew."
            )
        return checkpoint
    return None


def _whole_ones(folder: Path) -> Iterator[Checkpoint]:
    for path in _folders(folder):
        try:
            yield _read(path)
        except (OSError, ValueError, KeyError, PairStoreError) as error:
            logger.warning("the checkpoint %s is damaged (%s); the one before it is taken", path, error)


def _read(path: Path) -> Checkpoint:
    record = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    for part, sha256 in record.pop("sha256").items():
        if sha256_of(path / f"{part}.safetensors") != sha256:
            raise ValueError(f"{part}.safetensors is not what was written")
    tensors = {part: load_file(path / f"{part}.safetensors") for part in PARTS}
    return Checkpoint(**tensors, **record)


def _folders(folder: Path) -> list[Path]:
    """Newest first."""
    return sorted((path for path in folder.glob(f"{PREFIX}*") if path.is_dir()), reverse=True)
