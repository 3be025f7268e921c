"""`python -m ip2p.benchmarks.auto_guidance`: does the search of AutoGuidance beat the best fixed pair of scales with many seeds?

Rendered scenes of one object, held-out combinations included, recoloured and with another background, by the embedded editor and
CLIP. The fixed pair is the best on average over other scenes, by the search's own score and, told apart, by the exact targets. Its
seeds cost as many forward passes (rows of branches through the network) as the search, and the same score chooses among them.

With `--proof RUN` it edits the renders of a run of `ip2p proof` by that run's editor, whose own scales are those that the run chose,
and the run's judge says what is right.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..ip2p_core.checkpoint import embedded_model_path
from ..ip2p_core.clip_scorer import CLIPScorer
from ..ip2p_core.edit_tradeoff import EditTexts, Tradeoff
from ..ip2p_core.guidance import GuidanceScales, GuidanceSettings, needed_branches
from ..ip2p_core.guidance_search import Edited, Found, SearchSettings, Trial, Worth, search
from ..ip2p_core.picture_metrics import l1
from ..trainer.diffusers_adapter import load_editor
from ..trainer.edit import EditSettings, Source, default_settings, edit_source, encode_source
from ..trainer.edit_backend import Editor
from ..trainer.proof.config import ProofConfig, read_proof_config
from ..trainer.proof.edits import TESTING, TUNING, captions_of, held_out_edits
from ..trainer.proof.stages import Run, judge_path
from ..trainer.proof.training import editor_name
from ..trainer.proof.trials import tune_stage
from ..trainer.shape_world.attribute_judge import AttributeJudge
from ..trainer.shape_world.captioned_edits import captioned_edit
from ..trainer.shape_world.edit_verdicts import judge_edit
from ..trainer.shape_world.edits import SceneEdit
from ..trainer.shape_world.render import render
from ..trainer.shape_world.world_edits import WorldEdit
from .timing import say

KINDS = ("recolour", "background")
STEPS = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0), (0.5, 0.75, 1.0, 1.25, 1.5)
"""Text and image scales, as multiples of the editor's own, that the fixed pair is one of; the search may go from the first to the last."""
Pair = tuple[float, float]


class Result(NamedTuple):
    """What one way of choosing gave for one scene."""

    distance: float
    """L1 to the exact target."""
    score: float
    passes: int
    edits: int
    is_right: bool | None
    """Done, and all else kept; None where there is no judge."""


class Bench:
    """The models, and the settings of all edits.

    Args:
        size: side of the pictures in pixels, at which the editor works too; a run of the proof has its own.
        keep: weight of what stays.
        margin: of the model's own scales.
        proof: settings of a run of the proof, or none.
    """

    def __init__(self, size: int, keep: float, margin: float, proof: ProofConfig | None = None) -> None:
        self.scorer = CLIPScorer.from_file(embedded_model_path("clip"))
        self.proof = proof
        if proof is None:
            self.editor: Editor = load_editor(embedded_model_path("editor"))
            self.settings = replace(default_settings(self.editor.config), working_resolution=size)
        else:
            name, size = editor_name(proof.best, proof.seeds[0]), proof.size
            self.editor = load_editor(name, models_dir=proof.folder / "models")
            self.settings = replace(
                default_settings(self.editor.config), working_resolution=size, steps=proof.edit_steps
            )
            run = Run(proof, say)
            self.judge = AttributeJudge.from_file(judge_path(run))
            tuned = run.stage("tuning", partial(tune_stage, run))
            self.settings = self.at((tuned["text_scale"], tuned["image_scale"]))
        self.size, self.keep, self.margin = size, keep, margin
        own = self.settings.guidance.scales
        self.own = own.text_guidance_scale, own.image_guidance_scale
        self.text_scales, self.image_scales = (
            [scale * step for step in steps] for scale, steps in zip(self.own, STEPS, strict=True)
        )

    def at(self, pair: Pair) -> EditSettings:
        """Settings with other scales."""
        scales = GuidanceScales(text_guidance_scale=pair[0], image_guidance_scale=pair[1])
        return replace(self.settings, guidance=GuidanceSettings(scales=scales))

    def passes(self, pair: Pair) -> int:
        """Count what one edit sends through the network."""
        return self.settings.steps * sum(needed_branches(self.at(pair).guidance.scales))


class Scene:
    """One edit with its exact result.

    Args:
        bench: the models.
        edit: with both scenes.
        caption: of what it begins with.
        edited_caption: of what shall come out.
    """

    def __init__(self, bench: Bench, edit: SceneEdit | WorldEdit, caption: str, edited_caption: str) -> None:
        self.bench, self.edit = bench, edit
        self.before, self.target = (
            torch.from_numpy(render(one, bench.size)).float() for one in (edit.before, edit.after)
        )
        self.texts = EditTexts(instruction=edit.instruction, caption=caption, edited_caption=edited_caption)

    @cached_property
    def source(self) -> Source:
        """The picture, encoded."""
        return encode_source(self.bench.editor, self.before[None], self.bench.settings)

    def tradeoff(self) -> Tradeoff:
        """Make the judge."""
        return Tradeoff(lambda: self.bench.scorer, self.before, self.texts, self.bench.keep)

    def edits(self, pair: Pair, seed: int, num_seeds: int = 1) -> Tensor:
        """Edit with several seeds: [N, H, W, 3]."""
        source = self.source
        many = Source(
            source.image.expand(num_seeds, -1, -1, -1),
            source.image_latents.expand(num_seeds, -1, -1, -1),
            source.extent,
        )
        instructions = [self.texts.instruction] * num_seeds
        return edit_source(self.bench.editor, many, [instructions], self.bench.at(pair), seed=seed).image

    def search(self, budget: int, num_seeds: int) -> Found:
        """Run the search of AutoGuidance."""
        settings = SearchSettings(
            budget=budget,
            text_scales=(self.bench.text_scales[0], self.bench.text_scales[-1]),
            image_scales=(self.bench.image_scales[0], self.bench.image_scales[-1]),
            seeds=range(num_seeds),
            own=self.bench.own,
            margin=self.bench.margin,
        )
        return search(
            lambda text_scale, image_scale, seed: Edited(self.edits((text_scale, image_scale), seed)[0]),
            self.tradeoff(),
            settings,
        )

    def result(self, picture: Tensor, worth: Worth, passes: int, edits: int) -> Result:
        """Measure what was chosen."""
        distance, is_right = float(l1(picture[None], self.target[None])), None
        if isinstance(self.edit, WorldEdit):
            verdict = judge_edit(self.bench.judge, self.edit, picture.numpy())
            is_right = verdict.is_edited and verdict.is_kept
        return Result(distance, worth.score, passes, edits, is_right)

    def searched(self, found: Found) -> Result:
        """What the search gave."""
        passes = sum(self.bench.passes(one.place[:2]) for one in found.trials)
        best: Trial = found.best
        return self.result(best.edited.picture, best.worth, passes, len(found.trials))

    def fixed(self, pair: Pair, num_seeds: int) -> Result:
        """The best of many seeds at one pair of scales."""
        pictures = [Edited(one) for one in self.edits(pair, 0, num_seeds)]
        worths = self.tradeoff()(pictures)
        best = max(range(num_seeds), key=lambda number: worths[number].score)
        passes = num_seeds * self.bench.passes(pair)
        return self.result(pictures[best].picture, worths[best], passes, num_seeds)


def scenes(bench: Bench, purpose: str, count: int) -> list[Scene]:
    """So many scenes of every kind of edit, those of a kind together."""
    if bench.proof is not None:
        named = held_out_edits(bench.proof, {"tune": TUNING, "test": TESTING}[purpose], count, KINDS)
        edits = sorted((one.edit for one in named), key=lambda edit: KINDS.index(edit.edit_type))
        return [Scene(bench, edit, *captions_of(edit)) for edit in edits]
    randoms = [(kind, random.Random(f"auto-guidance/{purpose}/{kind}/{i}")) for kind in KINDS for i in range(count)]
    return [Scene(bench, *captioned_edit(rng, kind, allow_held_out=True, max_objects=1)) for kind, rng in randoms]


def best_pairs(bench: Bench, tuning: Sequence[Scene]) -> dict[str, Pair]:
    """Try every fixed pair on the scenes of the tuning set, one seed each."""
    scores: dict[Pair, float] = {}
    distances: dict[Pair, float] = {}
    for pair in product(bench.text_scales, bench.image_scales):
        results = [one.fixed(pair, 1) for one in tuning]
        scores[pair] = statistics.fmean(one.score for one in results)
        distances[pair] = statistics.fmean(one.distance for one in results)
    by_score, by_targets = max(scores, key=scores.__getitem__), min(distances, key=distances.__getitem__)
    if by_score == by_targets:
        return {"by score and targets": by_score}
    return {"by the score": by_score, "by the targets": by_targets}


def line(name: str, results: Sequence[Result]) -> str:
    """Tell the means of one contender."""
    rights = [one.is_right for one in results if one.is_right is not None]
    right = f"right {100 * statistics.fmean(rights):4.1f} %  " if rights else ""
    return (
        f"  {name:40} {right}L1 {_mean(results, 'distance'):.4f}  score {_mean(results, 'score'):.4f}  "
        f"{_mean(results, 'edits'):5.1f} edits, {_mean(results, 'passes'):5.1f} passes"
    )


def compare(name: str, ours: Sequence[Result], other: Sequence[Result]) -> str:
    """Tell the means of a contender, and in how many scenes the search is better."""
    nearer = sum(a.distance < b.distance for a, b in zip(ours, other, strict=True))
    better = sum(a.score > b.score for a, b in zip(ours, other, strict=True))
    return f"{line(name, other)}; the search is nearer in {nearer} of {len(ours)}, its score higher in {better}"


def _mean(results: Sequence[Result], name: str) -> float:
    return statistics.fmean(getattr(one, name) for one in results)


def main() -> None:
    """Compare, for every kind of edit and for both."""
    parser = argparse.ArgumentParser(prog="python -m ip2p.benchmarks.auto_guidance", description=__doc__)
    parser.add_argument("--scenes", type=int, default=24, help="of every kind of edit")
    parser.add_argument("--tuning", type=int, default=24, help="other scenes, for the fixed pair")
    parser.add_argument("--budget", type=int, default=12, help="edits of the search")
    parser.add_argument("--seeds", type=int, default=4, help="that the search may try")
    parser.add_argument("--size", type=int, default=128, help="side of the pictures in pixels")
    parser.add_argument("--keep", type=float, default=0.2, help="weight of what stays")
    parser.add_argument("--margin", type=float, default=0.1, help="by which others must beat the model's own scales")
    parser.add_argument("--proof", type=Path, default=None, help="run folder of `ip2p proof`: its editor and renders")
    options = parser.parse_args()
    proof = options.proof and read_proof_config(options.proof / "config.json", [f"output={options.proof}"])
    bench = Bench(options.size, options.keep, options.margin, proof)
    pairs = best_pairs(bench, scenes(bench, "tune", options.tuning))
    told = ", ".join(f"{name} {pair[0]:g} and {pair[1]:g}" for name, pair in pairs.items())
    say(f"{options.scenes} + {options.scenes} scenes at {bench.size} px; best fixed text and image scales: {told}")
    tested = scenes(bench, "test", options.scenes)
    searches = [one.searched(one.search(options.budget, options.seeds)) for one in tested]
    fixed: dict[str, list[Result]] = {}
    for name, pair in pairs.items():
        counts = [max(1, one.passes // bench.passes(pair)) for one in searches]
        fixed[f"fixed {name}, equal passes"] = [one.fixed(pair, n) for one, n in zip(tested, counts, strict=True)]
        fixed[f"fixed {name}, equal edits"] = [one.fixed(pair, options.budget) for one in tested]
        fixed[f"fixed {name}, one seed"] = [one.fixed(pair, 1) for one in tested]
    for kind, part in (
        ("recolour", slice(0, options.scenes)),
        ("background", slice(options.scenes, None)),
        ("both", slice(None)),
    ):
        say(f"\n{kind}")
        say(line(f"search, budget {options.budget}", searches[part]))
        for name, results in fixed.items():
            say(compare(name, searches[part], results[part]))


if __name__ == "__main__":
    main()
