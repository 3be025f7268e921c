"""Triplets to a dataset of pairs: an engine makes units, the best pairs of every prompt are kept; resumes after any kill.

Finished units wait in a spool; when all of a prompt are there, its best pairs go to the dataset, and the scores of all its
candidates to the ledger.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..ip2p_core.errors import PairStoreError
from ..ip2p_core.pair_record import PairRecord
from ..ip2p_core.pair_store import Candidate, PairWriter, Unit
from ..ip2p_core.similarity import keep_best
from ..ip2p_core.triplet import Triplet, prompt_id
from .pair_config import PairsConfig
from .pair_jobs import Engine, Recipe, Tally, units_of
from .pair_spool import Spool, UnitResult
from .pair_units import UNSAFE

NOT_AMONG_BEST = "quota"
PASSES = 2
"""The second one makes units again that were damaged on the disk."""


@dataclass
class Progress:
    """What a run has done so far."""

    num_prompts: int = 0
    num_done: int = 0
    """Prompts that are in the dataset."""
    num_samples: int = 0
    """Pairs sampled by this run."""
    num_accepted: int = 0
    """Pairs accepted by this run."""
    num_unsafe: int = 0
    samples_left: int = 0
    started: float = field(default_factory=time.monotonic)

    def describe(self) -> str:
        """One line: counts, accepted pairs per hour, and time left."""
        seconds = time.monotonic() - self.started
        rate = self.num_samples / seconds if seconds else 0.0
        left = f", {_clock(self.samples_left / rate)} left" if rate else ""
        return (
            f"{self.num_done} of {self.num_prompts} prompts done, {self.num_samples} pairs sampled, {self.num_accepted} "
            f"accepted ({3600 * self.num_accepted / seconds:.0f} an hour){left}"
        )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


class PairGenerator:
    """One run.

    Args:
        config: its settings.
        engine: makes units.
        unsafe_prompts: lists prompts with unsafe texts; they are done, with nothing made.
    """

    def __init__(
        self,
        config: PairsConfig,
        engine: Engine,
        unsafe_prompts: Callable[[Mapping[str, Triplet], Sequence[str]], list[str]],
    ) -> None:
        self.config, self.engine, self._unsafe_prompts = config, engine, unsafe_prompts
        self.progress = Progress()
        self._tally = Tally(config)
        self._unsaved: list[str] = []
        self._num_shards = 0

    def run(
        self,
        triplets: Sequence[Triplet],
        writer: PairWriter,
        spool: Spool,
        on_progress: Callable[[Progress], object] = lambda progress: None,  # noqa: ARG005
    ) -> Progress:
        """Make what is missing of the pairs of all triplets.

        Args:
            triplets: without duplicates.
            writer: of the dataset.
            spool: of the run.
            on_progress: called whenever units are made.

        Returns:
            What was done.

        Raises:
            PairStoreError: if units come back damaged from the disk, or it is full.
        """
        by_id = {prompt_id(triplet): triplet for triplet in triplets}
        progress = self.progress
        missing = [name for name in by_id if not self._is_done(name, writer)]
        progress.num_prompts, progress.num_done = len(by_id), len(by_id) - len(missing)
        for name in self._unsafe_prompts(by_id, missing):
            writer.add(self._whole(name), [])
            progress.num_done += 1
            progress.num_unsafe += 1
        self._num_shards = len(writer.manifest.shards)
        for _ in range(PASSES):
            missing = [name for name in missing if not self._is_done(name, writer)]
            if missing:
                self._make({name: by_id[name] for name in missing}, writer, spool, on_progress)
        if not all(self._is_done(name, writer) for name in missing):
            raise PairStoreError(f"Finished pairs in {spool.folder} come back damaged. Check the disk, and run again.")
        writer.save()
        spool.clear()
        return progress

    def _make(
        self,
        by_id: dict[str, Triplet],
        writer: PairWriter,
        spool: Spool,
        on_progress: Callable[[Progress], object],
    ) -> None:
        """Make the pairs of prompts, and finish them in order."""
        spool.drop([unit for unit in spool.units() if unit.prompt_id not in by_id])  # they are in the dataset
        num_known = self._tally.count(spool.units(), spool)
        self.progress.samples_left = len(by_id) * self.config.num_samples - num_known
        waiting = deque(by_id)
        self._finish(waiting, writer, spool)
        for batch in self.engine(Recipe(self.config, by_id, spool.folder.resolve()), spool):
            num_new = self._tally.count(batch, spool)
            self.progress.num_samples += num_new
            self.progress.samples_left -= num_new
            self._finish(waiting, writer, spool)
            on_progress(self.progress)

    def _whole(self, name: str) -> Unit:
        return Unit(name, 0, self.config.num_samples)

    def _is_done(self, name: str, writer: PairWriter) -> bool:
        return writer.is_done(self._whole(name))

    def _finish(self, waiting: deque[str], writer: PairWriter, spool: Spool) -> None:
        """Finish complete prompts, in the order of the triplets, however many workers make their units."""
        while waiting and not any(self._tally.is_needed(unit, spool) for unit in units_of(self.config, waiting[0])):
            name = waiting.popleft()
            results = [spool.get(unit) for unit in units_of(self.config, name) if unit in spool]
            whole = [result for result in results if result is not None]
            if len(whole) == len(results):  # else a unit was damaged, and the next pass makes it again
                self._add(name, whole, writer)
                self._drop_saved(writer, spool)

    def _add(self, name: str, results: Sequence[UnitResult], writer: PairWriter) -> None:
        """Put the best pairs of a prompt into the dataset."""
        passing = [record for result in results for record in result.passing]
        rejected = [candidate for result in results for candidate in result.rejected]
        scores = [record.scores for record in passing if record.scores is not None]
        seeds = [record.seed for record in passing]
        best = set(keep_best([name] * len(passing), seeds, scores, self.config.thresholds(), self.config.keep))
        accepted = [record for row, record in enumerate(passing) if row in best]
        self.progress.num_unsafe += sum(candidate.reason == UNSAFE for candidate in rejected)
        rejected += [_as_candidate(record) for row, record in enumerate(passing) if row not in best]
        writer.add(self._whole(name), accepted, rejected)
        self._unsaved.append(name)
        self.progress.num_done += 1
        self.progress.num_accepted += len(accepted)

    def _drop_saved(self, writer: PairWriter, spool: Spool) -> None:
        """Forget the spool of prompts that the writer has saved; a new shard says that it saved all it had."""
        if len(writer.manifest.shards) > self._num_shards:
            self._num_shards = len(writer.manifest.shards)
            units = [unit for name in self._unsaved for unit in units_of(self.config, name)]
            spool.drop(units)
            self._tally.forget(units)
            self._unsaved.clear()


def _as_candidate(record: PairRecord) -> Candidate:
    return Candidate(
        record.prompt_id,
        record.sample_index,
        record.seed,
        record.p2p_threshold,
        record.text_guidance_scale,
        record.mode,
        record.scores,
        NOT_AMONG_BEST,
    )


def run_folder(output: Path) -> Path:
    """Where a run keeps its settings, its log and its spool: beside the dataset."""
    return output.with_name(f"{output.name}.run")
