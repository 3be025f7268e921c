"""Stage 4: choose the settings at which the editor is best, on pictures like those of training, and store them.

The held-out photographs, wordings and combinations are not looked at here.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...ip2p_core.checkpoint import read_checkpoint, write_checkpoint
from ...ip2p_core.guidance import GuidanceScales, GuidanceSettings
from ...ip2p_core.picture_metrics import l1
from ..diffusers_adapter import load_editor
from ..edit import EditSettings, default_settings
from ..edit_backend import Editor
from ..measure import edit_many, round_trip, to_tensor
from ..photo_edits import EFFECTS, apply_effect, training_wordings
from ..shape_world.render import render
from .pairs import training_scene_edits
from .pictures import photo_crop

logger = logging.getLogger(__name__)

VALIDATION_SEED = 987_654


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is tried, and on how many pictures; one setting after another, each at the best of those before."""

    num_photos: int = 2
    num_scenes: int = 4
    text_scales: tuple[float, ...] = (1.0, 1.25, 1.5)
    image_scales: tuple[float, ...] = (1.0, 1.2)
    samplers: tuple[tuple[str, int], ...] = (("euler", 2), ("euler", 3), ("euler", 5), ("dpmpp_2m", 5))
    """(name, steps)."""


def validation_edits(size: int, search: Search) -> list[tuple[Tensor, Tensor, str]]:
    """(before, after, instruction): fresh crops of the training photographs with all effects, and fresh scenes."""
    edits = []
    for index in range(search.num_photos):
        photo = photo_crop(np.random.default_rng((VALIDATION_SEED, index)), size)
        for name in EFFECTS:
            if name != "identity":
                wordings = training_wordings(name)
                pair = to_tensor([photo, apply_effect(name, photo)])
                edits.append((pair[0], pair[1], wordings[index % len(wordings)]))
    for index in range(search.num_scenes):
        for edit in training_scene_edits(VALIDATION_SEED, index):
            pair = to_tensor([render(edit.before, size), render(edit.after, size)])
            edits.append((pair[0], pair[1], edit.instruction))
    return edits


def mean_distance(editor: Editor, settings: EditSettings, edits: list[tuple[Tensor, Tensor, str]]) -> float:
    """Mean D = L1(result, AE(target)) / L1(AE(input), AE(target))."""
    before, after = torch.stack([edit[0] for edit in edits]), torch.stack([edit[1] for edit in edits])
    expected, start = round_trip(editor, after), round_trip(editor, before)
    results = edit_many(editor, before, [edit[2] for edit in edits], settings, seed=VALIDATION_SEED)
    return float((l1(results, expected) / l1(start, expected)).clamp(max=3).mean())


def tune(path: Path, search: Search) -> EditSettings:
    """Find the settings with the smallest mean distance, one setting after another, and write them into the file."""
    editor = load_editor(path)
    scales = GuidanceScales(text_guidance_scale=1.0, image_guidance_scale=1.0)
    best = replace(default_settings(editor.config), guidance=GuidanceSettings(scales=scales), sampler="euler", steps=2)
    edits = validation_edits(best.working_resolution, search)

    @cache  # the best of one search is the first candidate of the next
    def distance(settings: EditSettings) -> float:
        found = mean_distance(editor, settings, edits)
        logger.info("D %.4f: %s, %s, %d steps", found, settings.guidance.scales, settings.sampler, settings.steps)
        return found

    def choose(candidates: list[EditSettings]) -> EditSettings:
        return min(candidates, key=distance)

    best = choose([_with_scales(best, text_guidance_scale=value) for value in search.text_scales])
    best = choose([_with_scales(best, image_guidance_scale=value) for value in search.image_scales])
    best = choose([replace(best, sampler=sampler, steps=steps) for sampler, steps in search.samplers])
    _store(path, best)
    return best


def _with_scales(settings: EditSettings, **scales: float) -> EditSettings:
    return replace(settings, guidance=GuidanceSettings(scales=replace(settings.guidance.scales, **scales)))


def _store(path: Path, best: EditSettings) -> None:
    raw = read_checkpoint(path)
    parts = raw.parts()
    config = replace(
        raw.config,
        default_text_guidance_scale=best.guidance.scales.text_guidance_scale,
        default_image_guidance_scale=best.guidance.scales.image_guidance_scale,
        default_steps=best.steps,
        default_sampler=best.sampler,
    )
    write_checkpoint(path, parts.unet, parts.vae, parts.text, config)
    logger.info("stored %s", best)
