"""`ip2p train CONFIG.json`: fine-tune an 8-channel U-Net on a dataset of pairs; it resumes where it was stopped.

On several GPUs or machines start it with `accelerate launch -m ip2p.trainer train CONFIG.json` or torchrun.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ..ip2p_core.clip_scorer import CLIPScorer
from ..ip2p_core.errors import PairStoreError
from ..ip2p_core.train_job import TrainConfig, read_train_config
from ..ip2p_core.train_progress import ProgressEvent
from .accelerate_adapter import Processes
from .argument_parser import ArgumentParser
from .diffusers_adapter import choose_attention, choose_device
from .edit_models import resolve_model
from .training.export import export_run
from .training.loop import TrainingLoop
from .training.network import TrainedNetwork, is_replayed, make_network
from .training.objective_step import EditObjective
from .training.pictures import EditPairs
from .training.plan import describe_plan, hints
from .training.run_log import RunLog
from .training.setup import RunParts, build_cache, check_batch, make_batches, make_objective, prepare_parts
from .training.validation import FOLDER, Validation, averaged

STOPPED = 130
"""Exit code after a signal, as shells use it; the run can go on."""


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of `ip2p train`."""
    parser = ArgumentParser(
        prog="ip2p train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, nargs="?", help="JSON file of settings")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, in what time and space")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    config = read_train_config(options.config, options.set)
    is_cpu = choose_device(config.device).type == "cpu"
    processes = Processes(config.precision, is_cpu=is_cpu, strategy=config.strategy)
    check_batch(config, processes.count)
    if options.dry_run:
        print(describe_plan(config, prepare_parts(config, processes.device), processes))  # noqa: T201
        return 0
    with RunLog(Path(config.output), config, is_main=processes.is_main) as log:
        is_done = train(config, processes, log)
    processes.end()
    return 0 if is_done else STOPPED


def make_loop(config: TrainConfig, processes: Processes, log: RunLog) -> tuple[RunParts, TrainedNetwork, TrainingLoop]:
    """Prepare a run up to its first step, the cache included.

    Args:
        config: of the run.
        processes: who takes part.
        log: of the run.

    Returns:
        What it is made of, what it trains, and its loop.
    """
    parts = prepare_parts(config, processes.device)
    for text in (_describe(parts), *hints(config, processes.device)):
        log.say(text)
    build_cache(parts, processes, lambda done, count: log.say(f"cached {done} of {count} files"))
    network = make_network(parts.editor, config)
    if config.compile:
        choose_attention(network.unet, processes.device)
        network.unet.compile(dynamic=False)
    if is_replayed(config, processes):
        network.use_cuda_graphs()
    loop = TrainingLoop(
        config, network, make_objective(config, parts), make_batches(config, parts), processes, log, parts.identity
    )
    return parts, network, loop


def train(config: TrainConfig, processes: Processes, log: RunLog) -> bool:
    """Do one run, or go on with it.

    Args:
        config: of the run.
        processes: who takes part.
        log: of the run.

    Returns:
        False if a signal ended it before its last step.
    """
    parts, network, loop = make_loop(config, processes, log)
    loop.resume(log.folder)
    is_done = loop.run(_validator(config, parts, loop, network, log))
    if is_done and processes.is_main:
        with averaged(loop.weights, loop.average.values):
            path = export_run(config, parts, network)
        log.write(ProgressEvent(kind="done", step=loop.step, steps=config.steps, path=str(path)))
    elif processes.is_main:
        message = "stopped; the same command goes on from here"
        log.write(ProgressEvent(kind="stopped", step=loop.step, steps=config.steps, message=message))
    return is_done


def _validator(
    config: TrainConfig, parts: RunParts, loop: TrainingLoop, network: TrainedNetwork, log: RunLog
) -> Callable[[], str | None]:
    """Make what looks at the run every so many steps; it does nothing where there are no held-out pairs."""
    validation = _validation(config, parts, log)

    def look() -> str | None:
        if validation is None:
            return None
        with averaged(loop.weights, loop.average.values):
            objective = EditObjective(
                parts.editor, replace(config, dropout=0.0), validation.pairs.instructions, loop.objective.dtype
            )
            path, record = validation.run(loop.step, network, objective)
        numbers = ", ".join(f"{name} {value}" for name, value in record.items() if name != "step")
        log.write(ProgressEvent(kind="validation", step=loop.step, steps=config.steps, message=numbers))
        return str(path)

    return look


def _validation(config: TrainConfig, parts: RunParts, log: RunLog) -> Validation | None:
    if not config.validation_steps:
        return None
    if config.strategy == "fsdp":
        log.say("no grids of held-out pairs: they need the whole model in one process, which fsdp divides")
        return None
    try:
        pairs = EditPairs.open(Path(config.dataset), "val", is_skipping=True)
    except PairStoreError:
        log.say("no grids of held-out pairs: the split val of the dataset is empty")
        return None
    scorer = None
    if config.scorer:
        path = resolve_model(config.scorer, Path(config.models))
        scorer = CLIPScorer.from_file(path, config.scorer_architecture, parts.editor.device)
    return Validation(parts.editor, pairs, config, scorer, log.folder / FOLDER)


def _describe(parts: RunParts) -> str:
    pairs = parts.pairs
    skipped = f", {pairs.num_skipped} in damaged shards left out" if pairs.num_skipped else ""
    cut = f", {len(parts.buckets)} sizes" if len(parts.buckets) > 1 else ""
    device = "" if parts.editor.device.type == "cpu" else f" on {torch.cuda.get_device_name(parts.editor.device)}"
    return f"{len(pairs)} pairs, {len(pairs.instructions) - 1} instructions{cut}{skipped}{device}"
