"""The work of `ip2p pairs` cut into jobs, and the engines of one machine that do them.

A unit is a range of samples of one prompt; a batch is units that are sampled together; a job is batches that one worker does
in order. Engines put units into the spool and say which.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from ..ip2p_core.errors import Ip2pError, WorkerError
from ..ip2p_core.pair_store import Unit
from ..ip2p_core.triplet import Triplet
from .diffusers_adapter import MODEL_MODULES
from .pair_config import PairsConfig
from .pair_spool import Spool
from .pair_units import UnitMaker
from .worker_context import worker_context

Batch = list[Unit]
Job = list[Batch]
POLL_SECONDS = 0.5
STOPPED_BY_MISTAKE = 2


@dataclass(frozen=True)
class Recipe:
    """All that a worker has to know."""

    config: PairsConfig
    by_id: dict[str, Triplet]
    """The texts of every prompt that is not in the dataset yet, in order."""
    spool_folder: Path


def units_of(config: PairsConfig, name: str) -> Iterator[Unit]:
    """Cut the samples of a prompt into units."""
    size, count = config.samples_per_unit, config.num_samples
    return (Unit(name, start, min(start + size, count)) for start in range(0, count, size))


def jobs_of(config: PairsConfig, names: Sequence[str]) -> Iterator[Job]:
    """Group the units of prompts to jobs.

    Args:
        config: settings of the run.
        names: of the prompts.

    Yields:
        Job: The batches of one worker; all of a prompt that may be stopped early are in one job.
    """
    per_batch = max(1, config.batch_size // config.samples_per_unit)
    if config.stop_when_full or config.give_up_after:
        # one unit of each prompt at a time, to see when to stop
        for first in range(0, len(names), per_batch):
            window = names[first : first + per_batch]
            yield [list(row) for row in zip(*(units_of(config, name) for name in window), strict=True)]
    else:
        ordered = (unit for name in names for unit in units_of(config, name))
        yield from ([batch] for batch in iter(lambda: list(islice(ordered, per_batch)), []))


class Tally:
    """How many samples of every prompt were tried, and how many passed: says when a prompt needs no more."""

    def __init__(self, config: PairsConfig) -> None:
        self.config = config
        self._passing: dict[str, int] = {}
        self._tried: dict[str, int] = {}
        self._counted: set[Unit] = set()

    def count(self, units: Iterable[Unit], spool: Spool) -> int:
        """Count those of the units that are in the spool, each once.

        Args:
            units: to be counted.
            spool: of the run; damaged units leave it.

        Returns:
            The number of samples that were not counted before.
        """
        num_new = 0
        for unit in units:
            if unit in self._counted or (num_passing := spool.num_passing(unit)) is None:
                continue
            size = unit.stop - unit.start
            self._counted.add(unit)
            self._passing[unit.prompt_id] = self._passing.get(unit.prompt_id, 0) + num_passing
            self._tried[unit.prompt_id] = self._tried.get(unit.prompt_id, 0) + size
            num_new += size
        return num_new

    def forget(self, units: Iterable[Unit]) -> None:
        """Drop the numbers of a finished prompt."""
        for unit in units:
            self._counted.discard(unit)
            self._passing.pop(unit.prompt_id, None)
            self._tried.pop(unit.prompt_id, None)

    def is_needed(self, unit: Unit, spool: Spool) -> bool:
        """Say whether a unit has to be made."""
        return unit not in spool and not self._is_stopped(unit)

    def _is_stopped(self, unit: Unit) -> bool:
        passing, tried = self._passing.get(unit.prompt_id, 0), self._tried.get(unit.prompt_id, 0)
        is_full = self.config.stop_when_full and passing >= self.config.keep
        is_hopeless = 0 < self.config.give_up_after <= tried and passing == 0
        return (is_full or is_hopeless) and unit.start >= tried


def do_jobs(maker: UnitMaker, recipe: Recipe, spool: Spool, jobs: Iterable[Job]) -> Iterator[Batch]:
    """Do jobs here.

    Args:
        maker: with the models.
        recipe: what is made.
        spool: of the run.
        jobs: to be done.

    Yields:
        Batch: The units of every batch, when they are in the spool.
    """
    for job in jobs:
        tally = Tally(recipe.config)
        tally.count([unit for batch in job for unit in batch], spool)
        for batch in job:
            if missing := [unit for unit in batch if tally.is_needed(unit, spool)]:
                maker.make(missing, recipe.by_id, spool)
                tally.count(missing, spool)
                yield missing


def do_jobs_here(maker: UnitMaker, recipe: Recipe, spool: Spool) -> Iterator[Batch]:
    """Do all jobs in this process.

    Args:
        maker: with the models.
        recipe: what is made.
        spool: of the run.

    Returns:
        The units of every batch, when they are in the spool.
    """
    return do_jobs(maker, recipe, spool, jobs_of(recipe.config, list(recipe.by_id)))


def do_jobs_in_processes(recipe: Recipe, spool: Spool, num_workers: int) -> Iterator[Batch]:
    """Do the jobs in processes of this machine; with several GPUs, one after the other is taken.

    Args:
        recipe: what is made.
        spool: of the run.
        num_workers: processes; each loads the models.

    Yields:
        Batch: Units that are new in the spool.

    Raises:
        WorkerError: if a process ends with an error or is killed; what is done is kept.
    """
    context = worker_context([__name__, *MODEL_MODULES])
    workers = [
        context.Process(target=_work, args=(recipe, rank, num_workers), daemon=True) for rank in range(num_workers)
    ]
    for worker in workers:
        worker.start()
    try:
        is_running = True
        while is_running:
            is_running = any(worker.is_alive() for worker in workers)
            if new := spool.refresh():
                yield new
            for worker in workers:
                if worker.exitcode:
                    raise WorkerError(_describe_end(worker.exitcode))
            if is_running:
                time.sleep(POLL_SECONDS)
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def _describe_end(code: int) -> str:
    cause = f"was killed by signal {-code} (9 is often a lack of memory)" if code < 0 else "failed; its error is above"
    return f"A worker {cause}. What is done is kept: mend the cause and run the same command again."


def _work(recipe: Recipe, rank: int, num_workers: int) -> None:
    """Do every `num_workers`-th job; ends when the process that started it is gone."""
    torch.set_num_threads(max(1, torch.get_num_threads() // num_workers))
    parent = multiprocessing.parent_process()
    try:
        maker = UnitMaker.load(recipe.config, device_of(recipe.config, rank))
        jobs = islice(jobs_of(recipe.config, list(recipe.by_id)), rank, None, num_workers)
        for _ in do_jobs(maker, recipe, Spool(recipe.spool_folder, is_shared=True), jobs):
            if parent is not None and not parent.is_alive():
                return
    except Ip2pError as error:
        sys.stderr.write(f"worker {rank}: {error}\n")
        sys.exit(STOPPED_BY_MISTAKE)


def device_of(config: PairsConfig, rank: int) -> str:
    """Choose a worker's device: its own GPU where there are several."""
    if config.device in ("auto", "cuda") and (count := torch.cuda.device_count()) > 1:
        return f"cuda:{rank % count}"
    return config.device


Engine = Callable[[Recipe, Spool], Iterator[Batch]]
