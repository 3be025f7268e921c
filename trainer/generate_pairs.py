"""Triplets to a dataset of pairs: sample in batches, score, keep the best of every prompt; resumes after any kill.

A unit is a range of samples of one prompt. Finished units wait in a spool; when all of a prompt are there, its best pairs go
to the dataset, and the scores of all its candidates to the ledger.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import torch

from ..ip2p_core.clip_scorer import CLIPScorer
from ..ip2p_core.pair_generation import PairDraw, PairSettings, draw_samples, make_record
from ..ip2p_core.pair_record import PairRecord, PairScores
from ..ip2p_core.pair_store import Candidate, PairWriter, Unit
from ..ip2p_core.safety import SafetyClassifier
from ..ip2p_core.similarity import first_failure, keep_best
from ..ip2p_core.triplet import Triplet, prompt_id
from .edit_backend import Editor
from .pair_config import PairsConfig
from .pair_sampler import PairBatch
from .pair_spool import Spool

UNSAFE, NOT_AMONG_BEST, EARLY = "safety", "quota", "early_"


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
        model: the text-to-image model.
        scorer: the CLIP model.
        safety: the classifier, or None where the filter is switched off.
    """

    def __init__(
        self, config: PairsConfig, model: Editor, scorer: CLIPScorer, safety: SafetyClassifier | None = None
    ) -> None:
        self.config, self.model, self.scorer, self.safety = config, model, scorer, safety
        self.settings: PairSettings = config.pair_settings()
        self.progress = Progress()
        self._passing: dict[str, int] = {}
        self._tried: dict[str, int] = {}
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
            on_progress: called after every batch.

        Returns:
            What was done.
        """
        by_id = {prompt_id(triplet): triplet for triplet in triplets}
        progress = self.progress
        missing = [name for name in by_id if not writer.is_done(Unit(name, 0, self.config.num_samples))]
        progress.num_prompts, progress.num_done = len(by_id), len(by_id) - len(missing)
        missing = self._without_unsafe(missing, by_id, writer)
        progress.samples_left = len(missing) * self.config.num_samples
        self._num_shards = len(writer.manifest.shards)
        self._count_spool(set(missing), spool)
        for batch in self._batches(missing, spool):
            self._make(batch, by_id, spool)
            for name in dict.fromkeys(unit.prompt_id for unit in batch):
                self._finish_if_complete(name, writer, spool)
            on_progress(progress)
        for name in missing:  # those whose units were all in the spool already
            self._finish_if_complete(name, writer, spool)
        writer.save()
        self._drop_saved(writer, spool)
        return progress

    def _units(self, name: str) -> Iterator[Unit]:
        size, count = self.config.samples_per_unit, self.config.num_samples
        return (Unit(name, start, min(start + size, count)) for start in range(0, count, size))

    def _without_unsafe(self, names: list[str], by_id: dict[str, Triplet], writer: PairWriter) -> list[str]:
        """Leave out prompts with unsafe captions; they are done, with nothing made."""
        if self.safety is None:
            return names
        safe = []
        for name in names:
            texts = by_id[name]
            if not any(self.safety.unsafe_texts([texts.caption, texts.instruction, texts.edited_caption])):
                safe.append(name)
                continue
            writer.add(Unit(name, 0, self.config.num_samples), [])
            self.progress.num_done += 1
            self.progress.num_unsafe += 1
        return safe

    def _batches(self, names: list[str], spool: Spool) -> Iterator[list[Unit]]:
        """Group units to batches. The groups do not depend on what is done already, so a resumed run repeats them."""
        per_batch = max(1, self.config.batch_size // self.config.samples_per_unit)
        if self.config.stop_when_full or self.config.give_up_after:
            # one unit of each prompt at a time, to see when to stop
            windows = [names[first : first + per_batch] for first in range(0, len(names), per_batch)]
            groups: Iterator[list[Unit]] = (
                list(row) for window in windows for row in zip(*map(self._units, window), strict=True)
            )
        else:
            ordered = (unit for name in names for unit in self._units(name))
            groups = iter(lambda: list(islice(ordered, per_batch)), [])
        for group in groups:
            if batch := [unit for unit in group if self._is_needed(unit, spool)]:
                yield batch

    def _is_needed(self, unit: Unit, spool: Spool) -> bool:
        return unit not in spool and not self._is_stopped(unit)

    def _is_stopped(self, unit: Unit) -> bool:
        passing, tried = self._passing.get(unit.prompt_id, 0), self._tried.get(unit.prompt_id, 0)
        is_full = self.config.stop_when_full and passing >= self.config.keep
        is_hopeless = 0 < self.config.give_up_after <= tried and passing == 0
        return (is_full or is_hopeless) and unit.start >= tried

    def _count_spool(self, names: set[str], spool: Spool) -> None:
        """Count the units of an earlier run, and forget those of prompts that are in the dataset."""
        for unit in spool.units():
            if unit.prompt_id not in names:
                spool.drop([unit])
            elif (result := spool.get(unit)) is not None:
                self._tally(unit, len(result.passing))

    def _tally(self, unit: Unit, num_passing: int) -> None:
        size = unit.stop - unit.start
        self._passing[unit.prompt_id] = self._passing.get(unit.prompt_id, 0) + num_passing
        self._tried[unit.prompt_id] = self._tried.get(unit.prompt_id, 0) + size
        self.progress.samples_left -= size

    def _make(self, batch: list[Unit], by_id: dict[str, Triplet], spool: Spool) -> None:
        """Make the pairs of a batch, and keep its units."""
        draws: list[PairDraw] = []
        for unit in batch:
            indices = range(unit.start, unit.stop)
            draws += draw_samples(by_id[unit.prompt_id], self.settings, self.config.seed, indices)
        outcomes = iter(self._outcomes(draws, [by_id[draw.prompt_id] for draw in draws]))
        self.progress.num_samples += len(draws)
        for unit in batch:
            of_unit = list(islice(outcomes, unit.stop - unit.start))
            passing = [one for one in of_unit if isinstance(one, PairRecord)]
            spool.put(unit, passing, [one for one in of_unit if isinstance(one, Candidate)])
            self._tally(unit, len(passing))

    def _outcomes(self, draws: list[PairDraw], triplets: list[Triplet]) -> list[PairRecord | Candidate]:
        """Sample and score: for every draw the pair, or why there is none."""
        outcomes: dict[int, PairRecord | Candidate] = {}
        batch = PairBatch(self.model, draws, triplets, self.settings, self.config.sampling())
        if until := int(self.config.reject_at * self.config.steps):
            batch.run(until)
            loose = self.config.loose_thresholds()
            for row, scores in enumerate(self._score(batch.pictures(is_preview=True), triplets)):
                if reason := first_failure(scores, loose):
                    outcomes[row] = Candidate(*draws[row], self.settings.mode, scores, f"{EARLY}{reason}")
        alive = [row for row in range(len(draws)) if row not in outcomes]
        if alive:
            if outcomes:
                batch = batch.keep(alive)
            batch.run(self.config.steps)
            finished = self._sort(batch.draws, batch.triplets, batch.pictures().float())
            outcomes.update(zip(alive, finished, strict=True))
        return [outcomes[row] for row in range(len(draws))]

    def _sort(
        self, draws: list[PairDraw], triplets: list[Triplet], pictures: torch.Tensor
    ) -> list[PairRecord | Candidate]:
        """Score finished pairs, and tell those that pass from the others."""
        mode, outcomes = self.settings.mode, []
        scores = self._score(pictures, triplets)
        reasons = self._reasons(pictures, scores)
        for row, (draw, reason) in enumerate(zip(draws, reasons, strict=True)):
            outcome: PairRecord | Candidate
            if reason is None:
                record = make_record(draw, triplets[row], self.settings, pictures[2 * row], pictures[2 * row + 1])
                outcome = replace(record, scores=scores[row])
            else:
                outcome = Candidate(*draw, mode, scores[row], reason)
            outcomes.append(outcome)
        return outcomes

    def _score(self, pictures: torch.Tensor, triplets: list[Triplet]) -> list[PairScores]:
        captions, edited = [one.caption for one in triplets], [one.edited_caption for one in triplets]
        return self.scorer.score(pictures[::2], pictures[1::2], captions, edited)

    def _reasons(self, pictures: torch.Tensor, scores: list[PairScores]) -> list[str | None]:
        """Say of each pair why it is rejected, or None."""
        thresholds = self.config.thresholds()
        reasons = [first_failure(one, thresholds) for one in scores]
        passing = [row for row, reason in enumerate(reasons) if reason is None]
        if self.safety is None or not passing:
            return reasons
        unsafe = self.safety.unsafe_images(torch.cat([pictures[2 * row : 2 * row + 2] for row in passing]))
        for place, row in enumerate(passing):
            if unsafe[2 * place] or unsafe[2 * place + 1]:
                reasons[row] = UNSAFE
                self.progress.num_unsafe += 1
        return reasons

    def _finish_if_complete(self, name: str, writer: PairWriter, spool: Spool) -> None:
        """Put the best pairs of a prompt into the dataset, once all its units are made."""
        whole = Unit(name, 0, self.config.num_samples)
        if writer.is_done(whole) or any(self._is_needed(unit, spool) for unit in self._units(name)):
            return
        results = [result for unit in self._units(name) if (result := spool.get(unit)) is not None]
        passing = [record for result in results for record in result.passing]
        rejected = [candidate for result in results for candidate in result.rejected]
        scores = [record.scores for record in passing if record.scores is not None]
        seeds = [record.seed for record in passing]
        best = set(keep_best([name] * len(passing), seeds, scores, self.config.thresholds(), self.config.keep))
        accepted = [record for row, record in enumerate(passing) if row in best]
        rejected += [_as_candidate(record) for row, record in enumerate(passing) if row not in best]
        writer.add(whole, accepted, rejected)
        self._unsaved.append(name)
        self.progress.num_done += 1
        self.progress.num_accepted += len(accepted)
        self._drop_saved(writer, spool)

    def _drop_saved(self, writer: PairWriter, spool: Spool) -> None:
        """Forget the spool of prompts that the writer has saved; a new shard says that it saved all it had."""
        if len(writer.manifest.shards) > self._num_shards:
            self._num_shards = len(writer.manifest.shards)
            spool.drop(unit for name in self._unsaved for unit in self._units(name))
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
