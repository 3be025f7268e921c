"""One unit of work of `ip2p pairs`: sample pairs, score them, and tell those that pass from the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch

from ..ip2p_core.clip_scorer import CLIPScorer
from ..ip2p_core.pair_generation import PairDraw, PairSettings, draw_samples, make_record
from ..ip2p_core.pair_record import PairRecord, PairScores
from ..ip2p_core.pair_store import Candidate, Unit
from ..ip2p_core.safety import SafetyClassifier, ZeroShotSafety
from ..ip2p_core.similarity import first_failure
from ..ip2p_core.triplet import Triplet
from .diffusers_adapter import choose_device, load_generator
from .edit_backend import Editor
from .edit_models import resolve_model
from .pair_config import PairsConfig
from .pair_sampler import PairBatch
from .pair_spool import Spool

UNSAFE, EARLY = "safety", "early_"


class UnitMaker:
    """Makes units on one device.

    Args:
        config: settings of the run.
        model: the text-to-image model.
        scorer: the CLIP model.
        safety: the classifier, or None where the filter is switched off.
    """

    def __init__(
        self, config: PairsConfig, model: Editor, scorer: CLIPScorer, safety: SafetyClassifier | None = None
    ) -> None:
        self.config, self.model, self.scorer, self.safety = config, model, scorer, safety
        self.settings: PairSettings = config.pair_settings()

    @classmethod
    def load(cls, config: PairsConfig, device: str = "") -> UnitMaker:
        """Load the models that the settings name.

        Args:
            config: settings of the run.
            device: as torch names it; that of the settings by default.

        Returns:
            The maker.

        Raises:
            CheckpointError: if a model is missing or no such model.
            ConfigError: if a setting does not fit it.
        """
        models, chosen = Path(config.models), choose_device(device or config.device)
        model = load_model(config, str(chosen))
        scorer = CLIPScorer.from_file(resolve_model(config.scorer, models), config.architecture, chosen)
        return cls(config, model, scorer, load_safety(config, str(chosen)))

    def make(self, batch: Sequence[Unit], by_id: Mapping[str, Triplet], spool: Spool) -> None:
        """Make the pairs of a batch, and keep its units in the spool.

        Args:
            batch: units; they are sampled together.
            by_id: the texts of every prompt.
            spool: of the run.
        """
        draws: list[PairDraw] = []
        for unit in batch:
            indices = range(unit.start, unit.stop)
            draws += draw_samples(by_id[unit.prompt_id], self.settings, self.config.seed, indices)
        outcomes = iter(self._outcomes(draws, [by_id[draw.prompt_id] for draw in draws]))
        for unit in batch:
            of_unit = list(islice(outcomes, unit.stop - unit.start))
            passing = [one for one in of_unit if isinstance(one, PairRecord)]
            spool.put(unit, passing, [one for one in of_unit if isinstance(one, Candidate)])

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
        return reasons


def load_model(config: PairsConfig, device: str) -> Editor:
    """Load the generator of a run.

    Args:
        config: settings of the run.
        device: as torch names it.

    Returns:
        The model.
    """
    model = load_generator(config.generator, models_dir=Path(config.models), dtype=config.dtype, device=device)
    if config.channels_last:
        model.use_channels_last()
    if config.compile:
        model.compile()
    return model


def load_safety(config: PairsConfig, device: str = "") -> SafetyClassifier | None:
    """Load the safety classifier of a run.

    Args:
        config: settings of the run.
        device: as torch names it; that of the settings by default.

    Returns:
        The classifier, or None where the filter is switched off.
    """
    if config.safety == "off":
        return None
    path = resolve_model(config.safety_model, Path(config.models))
    judge = CLIPScorer.from_file(path, config.safety_architecture, choose_device(device or config.device))
    return ZeroShotSafety(judge, config.safety_threshold)


def unsafe_prompts(safety: SafetyClassifier | None, by_id: Mapping[str, Triplet], names: Sequence[str]) -> list[str]:
    """List prompts with an unsafe text.

    Args:
        safety: the classifier, or None where the filter is switched off.
        by_id: the texts of every prompt.
        names: of the prompts.

    Returns:
        Some of the names.
    """
    if safety is None:
        return []
    texts = [[by_id[name].caption, by_id[name].instruction, by_id[name].edited_caption] for name in names]
    return [name for name, three in zip(names, texts, strict=True) if any(safety.unsafe_texts(three))]
