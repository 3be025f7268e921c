"""The exact results after the autoencoder: no editor that works in its latents can be better."""

from __future__ import annotations

import torch

from ...ip2p_core.clip_scorer import CLIPScorer
from ...ip2p_core.picture_metrics import l1
from ..diffusers_adapter import load_generator
from ..edit_models import resolve_model
from ..measure import round_trip
from ..shape_world.attribute_judge import AttributeJudge
from ..shape_world.edit_verdicts import judge_edits
from ..shape_world.render import render
from .edits import TESTING, captions_of, held_out_edits
from .stages import BASE, SCORER, Run, judge_path
from .trials import Trial

CEILING = "autoencoder"


def ceiling_trials(run: Run) -> list[Trial]:
    """Judge and score the exact results of the test edits after the autoencoder."""
    config = run.config
    named = held_out_edits(config, TESTING, config.num_tests)
    edits = [one.edit for one in named]
    before, exact = (
        torch.stack([torch.from_numpy(render(scene, config.size)) for scene in scenes])
        for scenes in zip(*((edit.before, edit.after) for edit in edits), strict=True)
    )
    seen = round_trip(load_generator(BASE, models_dir=run.models), exact).cpu()
    verdicts = judge_edits(AttributeJudge.from_file(judge_path(run)), edits, list(seen.numpy()))
    scorer = CLIPScorer.from_file(resolve_model(SCORER, run.models))
    scores = scorer.score(before, seen, *zip(*map(captions_of, edits), strict=True))
    nothing = float("nan")
    return [
        Trial(
            system=CEILING,
            text_scale=nothing,
            image_scale=nothing,
            strength=nothing,
            seed=config.seeds[0],
            example=one.name,
            kind=one.edit.edit_type,
            shape=one.edit.after.objects[0].shape,
            is_edited=verdict.is_edited,
            is_kept=verdict.is_kept,
            directional=score.directional,
            image=score.image,
            target_l1=float(distance),
        )
        for one, verdict, score, distance in zip(named, verdicts, scores, l1(seen, exact), strict=True)
    ]
