"""The editors of the proof, trained by `ip2p train`: one after the other, or several side by side in processes of their own.

Networks as small as these keep neither many processor cores nor a GPU busy: two trainings with one core each are faster than
one after the other with two.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ...ip2p_core.checkpoint import read_checkpoint, write_checkpoint
from ...ip2p_core.errors import Ip2pError
from .. import train_command
from ..diffusers_adapter import new_modules
from .biased_edits import balanced_edits, biased_edits
from .config import STUDIES, ProofConfig
from .edits import spatial_training_edits, training_edits, write_wordings
from .processes import exit_when_told
from .stages import BASE, Run, dataset

RANDOM = "proof_random"
POLL_SECONDS, TELL_SECONDS = 0.2, 30.0


class Trained(NamedTuple):
    """An editor: what names it and its dataset, and the seed of its training."""

    variant: str
    seed: int

    @property
    def name(self) -> str:
        """What the editor is called."""
        return editor_name(*self)

    @property
    def stage(self) -> str:
        """What its stage is called."""
        return f"train_{self.variant}_{self.seed}"


def editor_name(variant: str, seed: int) -> str:
    """What an editor is called."""
    return f"proof_{variant}_{seed}"


def _wanted(config: ProofConfig) -> list[Trained]:
    """All editors of a run, those of the studies last."""
    found = [Trained(variant, seed) for seed in config.seeds for variant in config.variants_of(seed)]
    return found + [Trained(variant, config.seeds[0]) for study in config.studies for variant in STUDIES[study]]


def train_editors(run: Run) -> None:
    """Train every editor that is missing; the datasets are there.

    Args:
        run: the run folder.

    Raises:
        Ip2pError: if a training does not finish; the others are stopped, and all go on from their checkpoints next time.
    """
    wanted = [one for one in _wanted(run.config) if not run.is_done(one.stage)]
    for is_second in (False, True):  # "longer" goes on from "main"
        some = [one for one in wanted if (one.variant == "longer") == is_second]
        settings = {one: _settings(run, one) for one in some}
        if run.config.train_workers > 1 and len(some) > 1:
            _train_side_by_side(run, settings)
        else:
            for one in some:
                run.stage(one.stage, partial(_train_here, run, one, settings[one]))


def _train_here(run: Run, one: Trained, settings: dict[str, Any]) -> dict[str, Any]:
    run.command(train_command.main, f"train_{one.name}", settings)
    return _found(one)


def _found(one: Trained) -> dict[str, Any]:
    return {"name": one.name}


def _train_side_by_side(run: Run, settings: dict[Trained, dict[str, Any]]) -> None:
    waiting, running = list(settings), dict[Trained, subprocess.Popen[bytes]]()
    told = time.monotonic()
    with _ended_with_this_process(running):
        while waiting or running:
            while waiting and len(running) < run.config.train_workers:
                one = waiting.pop(0)
                running[one] = _start(run, one, settings[one])
            for one, process in list(running.items()):
                if process.poll() is not None:
                    del running[one]
                    _require_finished(run, one, process)
                    run.stage(one.stage, partial(_found, one))
            if time.monotonic() > told + TELL_SECONDS:
                told = time.monotonic()
                run.say("; ".join(f"{one.name}: {_last_line(run, one)}" for one in running))
            time.sleep(POLL_SECONDS)


def _start(run: Run, one: Trained, settings: dict[str, Any]) -> subprocess.Popen[bytes]:
    path, log = run.write_settings(f"train_{one.name}", settings), _log(run, one)
    run.say(f"Training {one.name}; its messages are in {log}.")
    log.parent.mkdir(exist_ok=True)
    cores = max(1, (os.cpu_count() or 1) // run.config.train_workers)
    command = [sys.executable, "-m", "ip2p.trainer", "train", str(path)]
    with log.open("ab") as opened:
        environment = {"OMP_NUM_THREADS": str(cores), **os.environ}
        return subprocess.Popen(command, stdout=opened, stderr=opened, env=environment)  # noqa: S603 - ourselves


@contextmanager
def _ended_with_this_process(running: dict[Trained, subprocess.Popen[bytes]]) -> Iterator[None]:
    """End the trainings when this process is told to end, so that none is left behind; they write their checkpoints."""
    with exit_when_told():
        try:
            yield
        finally:
            for process in running.values():
                process.terminate()
            for process in running.values():
                process.wait()


def _require_finished(run: Run, one: Trained, process: subprocess.Popen[bytes]) -> None:
    if process.returncode:
        raise Ip2pError(
            f"The training of {one.name} did not finish: {_last_line(run, one)} All of it is in {_log(run, one)}. Mend the "
            "cause, and run this again."
        )


def _log(run: Run, one: Trained) -> Path:
    return run.folder / "logs" / f"{one.stage}.txt"


def _last_line(run: Run, one: Trained) -> str:
    lines = _log(run, one).read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "no message yet.")


def _settings(run: Run, one: Trained) -> dict[str, Any]:
    """Write what a training reads, and return its settings."""
    config = run.config
    wordings = run.folder / "wordings.json"
    if not wordings.exists():
        write_wordings(
            wordings,
            [*training_edits(config), *spatial_training_edits(config), *biased_edits(config), *balanced_edits(config)],
        )
    if one.variant == "scratch":
        _write_random_base(run)
    base = {"scratch": RANDOM, "longer": editor_name("main", one.seed)}.get(one.variant, BASE)
    return {
        "preset": "embedded",
        "dataset": str(dataset(run, "main" if base != BASE else one.variant)),
        "split": "train",
        "wordings": str(wordings),
        "base": base,
        "output": str(run.folder / "editors" / one.name),
        "name": one.name,
        "models": str(run.models),
        "seed": one.seed,
        "steps": config.steps_of(one.variant),
        "batch_size": config.batch_size,
        "micro_batch_size": config.batch_size,
        "learning_rate": config.learning_rate,
        "precision": config.precision,
        "compile": config.compile,
        "cuda_graphs": not config.compile,
        "resolution": config.size,
        "checkpoint_steps": 500,
        "validation_steps": 0,
    }


def _write_random_base(run: Run) -> None:
    """Write the generator's networks with fresh weights, for the editor that does not start from what it learned."""
    folder = run.models / "ip2p"
    path = folder / f"{RANDOM}.safetensors"
    if path.exists():
        return
    generator = read_checkpoint(folder / f"{BASE}.safetensors")
    config = generator.config
    torch.manual_seed(run.config.seed)
    vae = {name: value for name, value in config.vae.items() if name != "scaling_factor"}
    unet, _, text = new_modules(config.unet, vae, config.text_encoder)
    write_checkpoint(path, unet.state_dict(), generator.parts().vae, text.state_dict(), config, torch.float32)
