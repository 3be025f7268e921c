"""Editing renders by `ip2p evaluate`, and judging every edit: was it done, and was everything else kept?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy

from ...ip2p_core.image_tensor import load_image
from ..evaluation import command as evaluate_command
from ..shape_world.attribute_judge import AttributeJudge, Seen
from ..shape_world.edit_verdicts import verdict_of
from ..shape_world.world_edits import WorldEdit
from .config import STUDIES
from .edits import TESTING, TUNING, Named, held_out_edits, read_rows, write_examples
from .stages import BASE, Run, judge_path
from .training import editor_name

TEXT_SWEEP, IMAGE_SWEEP, SDEDIT, TEXT2LIVE = "text sweep", "image sweep", "SDEdit", "Text2LIVE"
TUNED_TEXT, TUNED_IMAGE = (1.0, 1.5, 2.0, 3.0, 4.0), (1.0, 1.5, 2.0, 2.5)
BATCH = 48


class Trial(NamedTuple):
    """One edit of a render, judged."""

    system: str
    text_scale: float
    image_scale: float
    strength: float
    seed: int
    """Of the training and of the edit."""
    example: str
    kind: str
    shape: str
    """Of the first object in the exact result."""
    is_edited: bool
    is_kept: bool
    directional: float
    image: float
    target_l1: float


class Judged(NamedTuple):
    """A row of an evaluation, what was asked for, and what the picture shows."""

    row: dict[str, str]
    edit: WorldEdit
    seen: Seen


class Scales(NamedTuple):
    """Both guidance scales."""

    text: float
    image: float


def tune_stage(run: Run) -> dict[str, Any]:
    """Choose both scales for the best editor, on renders that are not tested: most edits done with all else kept.

    Of equally good scales it takes the highest: at scales of 1 nothing is guided yet.
    """
    config = run.config
    named = held_out_edits(config, TUNING, config.num_tuned)
    system = {
        "name": config.best,
        "model": editor_name(config.best, config.seeds[0]),
        "text_scales": list(TUNED_TEXT),
        "image_scales": list(TUNED_IMAGE),
        "steps": [config.edit_steps],
    }
    trials = _evaluate(run, "tuning", named, [system], seed=config.seeds[0], shown=2)
    shares = {
        scales: float(numpy.mean([one.is_edited and one.is_kept for one in trials if _scales(one) == scales]))
        for scales in dict.fromkeys(map(_scales, trials))
    }
    best = max(shares, key=lambda scales: (shares[scales], scales))
    table = [[*scales, share] for scales, share in shares.items()]
    return {"text_scale": best.text, "image_scale": best.image, "table": table}


def _scales(trial: Trial) -> Scales:
    return Scales(trial.text_scale, trial.image_scale)


def trial_stage(run: Run, seed: int, scales: Scales) -> list[Trial]:
    """Edit the test renders with everything that was trained with a seed, and over both scales; with the first by SDEdit too."""
    config = run.config
    systems = [editor_system(run, variant, seed, scales) for variant in config.variants_of(seed)]
    if seed == config.seeds[0]:
        systems.append(
            {
                "name": SDEDIT,
                "kind": "sdedit",
                "model": BASE,
                "strengths": config.strengths,
                "steps": [config.pair_steps],
            }
        )
    named = held_out_edits(config, TESTING, config.num_tests)
    trials = _evaluate(run, f"trials_{seed}", named, systems, seed=seed, shown=9)
    if seed in config.seeds[: config.sweep_seeds]:
        trials += _evaluate(run, f"sweeps_{seed}", named, _sweeps(run, seed, scales), seed=seed, shown=0)
    return trials


def _sweeps(run: Run, seed: int, scales: Scales) -> list[dict[str, Any]]:
    """The best editor over each scale, the other one as it was chosen."""
    config = run.config
    chosen = editor_system(run, config.best, seed, scales)
    return [
        chosen | {"name": TEXT_SWEEP, "text_scales": config.text_scales},
        chosen | {"name": IMAGE_SWEEP, "image_scales": config.image_scales},
    ]


def text2live_stage(run: Run) -> list[Trial]:
    """Edit a few of the test renders by Text2LIVE, which takes half a minute for each."""
    output = edit_by_text2live(run)
    return trials_of(run, output, _text2live_tests(run), run.config.seeds[0]) if output else []


def edit_by_text2live(run: Run) -> Path | None:
    """Edit them; the run folder of the evaluation, or None where the settings ask for no edits."""
    config, named = run.config, _text2live_tests(run)
    if not named:
        return None
    system = {"name": TEXT2LIVE, "kind": "text2live"} | (
        {"steps": [config.text2live_steps]} if config.text2live_steps else {}
    )
    return edit_all(run, "text2live", named, [system], seed=config.seeds[0], shown=6)


def _text2live_tests(run: Run) -> list[Named]:
    return held_out_edits(run.config, TESTING, run.config.num_tests)[: run.config.num_text2live]


def _evaluate(
    run: Run, name: str, named: Sequence[Named], systems: Sequence[Mapping[str, Any]], *, seed: int, shown: int
) -> list[Trial]:
    return trials_of(run, edit_all(run, name, named, systems, seed=seed, shown=shown), named, seed)


def trials_of(run: Run, output: Path, named: Sequence[Named], seed: int) -> list[Trial]:
    """Judge every edit of an evaluation in `output`; the seed is noted."""
    judge = AttributeJudge.from_file(judge_path(run))
    return [trial_of(*judged, seed) for judged in judged_rows(judge, output, named)]


def edit_study(run: Run, study: str, named: Sequence[Named], scales: Scales) -> Path:
    """Edit renders by the editors of a study, a key of STUDIES; otherwise as `edit_all`."""
    seed = run.config.seeds[0]
    systems = [editor_system(run, variant, seed, scales) for variant in STUDIES[study]]
    return edit_all(run, study, named, systems, seed=seed, shown=8)


def editor_system(run: Run, variant: str, seed: int, scales: Scales) -> dict[str, Any]:
    """An editor at chosen scales, as `ip2p evaluate` takes it."""
    return {
        "name": variant,
        "model": editor_name(variant, seed),
        "text_scales": [scales.text],
        "image_scales": [scales.image],
        "steps": [run.config.edit_steps],
    }


def edit_all(
    run: Run, name: str, named: Sequence[Named], systems: Sequence[Mapping[str, Any]], *, seed: int, shown: int
) -> Path:
    """Edit renders by `ip2p evaluate`.

    Args:
        run: the run folder.
        name: of the evaluation.
        named: the edits.
        systems: that edit.
        seed: of the training; edits of different trainings start from different noise.
        shown: how many examples the page shows.

    Returns:
        Run folder of the evaluation.
    """
    examples = write_examples(run.folder / "examples" / name, named, run.config.size)
    return run_evaluation(run, name, examples, systems, seed=seed, shown=shown)


def run_evaluation(
    run: Run, name: str, examples: Path, systems: Sequence[Mapping[str, Any]], *, seed: int, shown: int
) -> Path:
    """Edit examples by `ip2p evaluate`; otherwise as `edit_all`."""
    output = run.folder / "evaluations" / name
    settings = {
        "examples": str(examples),
        "output": str(output),
        "models": str(run.models),
        "systems": list(systems),
        "seeds": [seed * 1_000_000],
        "batch_size": max(BATCH, run.config.pair_batch_size),
        "shown": shown,
    }
    run.command(evaluate_command.main, f"evaluate_{name}", settings)
    return output


def judged_rows(judge: AttributeJudge, output: Path, named: Sequence[Named]) -> list[Judged]:
    """Read the pictures of an evaluation.

    Args:
        judge: of attributes.
        output: run folder of the evaluation.
        named: its edits; the names begin the keys of the examples.

    Returns:
        Every row with what was asked for and what the picture shows.
    """
    edits = {one.name: one.edit for one in named}
    rows = read_rows(output)
    judged: list[Judged] = []
    for first in range(0, len(rows), BATCH):
        some = rows[first : first + BATCH]
        pictures = [load_image(output / row["picture"]).pixels.numpy() for row in some]
        for row, seen in zip(some, judge.judge(pictures), strict=True):
            judged.append(Judged(row, edits[example_name(row)], seen))
    return judged


def example_name(row: Mapping[str, str]) -> str:
    """Name the edit of a row of an evaluation."""
    return row["example"].rsplit("-", 1)[0]


def trial_of(row: Mapping[str, str], edit: WorldEdit, seen: Seen, seed: int) -> Trial:
    """Judge one edit: its row, what was asked for, what the picture shows, and the seed to be noted."""
    verdict = verdict_of(edit, seen)
    return Trial(
        system=row["system"],
        text_scale=score_of(row, "text_scale"),
        image_scale=score_of(row, "image_scale"),
        strength=score_of(row, "strength"),
        seed=seed,
        example=row["example"],
        kind=edit.edit_type,
        shape=edit.after.objects[0].shape,
        is_edited=verdict.is_edited,
        is_kept=verdict.is_kept,
        directional=score_of(row, "directional"),
        image=score_of(row, "image"),
        target_l1=score_of(row, "target_l1"),
    )


def score_of(row: Mapping[str, str], name: str) -> float:
    """A score of a row of an evaluation; not a number where it is empty."""
    return float(row.get(name) or "nan")
