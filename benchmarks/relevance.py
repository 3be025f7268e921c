"""`python -m ip2p.benchmarks.relevance`: is the relevance map where the edit belongs, and does a localised edit keep more?

Renders of one object, held-out combinations included, recoloured by the embedded editor. The mask of RelevanceMask is
compared with the exact one (intersection over union), at several thresholds; then the same edits are made inside a
mask that is large enough for the whole object.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..ip2p_core.checkpoint import embedded_model_path
from ..ip2p_core.guidance import GuidanceScales, GuidanceSettings
from ..ip2p_core.image_size import extent_of
from ..ip2p_core.picture_metrics import l1
from ..ip2p_core.relevance import RelevanceMeter, mask_of_map
from ..trainer.diffusers_adapter import load_editor
from ..trainer.edit import EditSettings, Source, default_settings, edit_source, encode_source, sample_edit
from ..trainer.edit_backend import Editor
from ..trainer.shape_world.captioned_edits import captioned_edit
from ..trainer.shape_world.edits import SceneEdit
from ..trainer.shape_world.judge import judge
from ..trainer.shape_world.render import render
from .timing import say

KINDS = ("recolour",)
"""The embedded editor does not replace shapes at this size."""
THRESHOLDS, GROWS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8), (0, 2, 4)
EDITED = (0.5, 2)
"""Threshold and growth of the masks that are edited in: the mask of the best overlap leaves out a part of many objects."""
MAP_SCALES = GuidanceScales(text_guidance_scale=1.5, image_guidance_scale=1.0)
"""The embedded editor's own scales, 1 and 1, compare nothing."""


class Case(NamedTuple):
    """An edit with its exact result."""

    edit: SceneEdit
    kind: str
    before: Tensor
    after: Tensor
    mask: Tensor
    """[H, W], 1 where something changes."""


class Outcome(NamedTuple):
    """What an edit did."""

    is_right: bool
    outside: float
    """L1 to the original where nothing should change."""
    to_target: float


def cases_of(number: int, size: int) -> list[Case]:
    """Draw edits, as many of each kind."""
    cases = []
    for place in range(number):
        kind = KINDS[place % len(KINDS)]
        edit = captioned_edit(random.Random(f"relevance/{place}"), kind, max_objects=1, allow_held_out=True).edit
        before, after = (torch.from_numpy(render(scene, size)).float() for scene in (edit.before, edit.after))
        cases.append(Case(edit, kind, before, after, ((before - after).abs().amax(-1) > 0.05).float()))
    return cases


def relevance_map(editor: Editor, source: Source, instruction: str, settings: EditSettings, seed: int) -> Tensor:
    """Sample once, and return the map [1, h, w] that Dual CFG Sampler returns."""
    meter = RelevanceMeter()
    sample_edit(editor, source.image_latents, [instruction], settings, seed=seed, meter=meter)
    return meter.map()


def overlap(mask: Tensor, exact: Tensor) -> float:
    """Intersection over union of two masks [H, W]."""
    both, either = (mask * exact).sum(), torch.maximum(mask, exact).sum()
    return float(both / either.clamp_min(1))


def outcome(case: Case, picture: Tensor) -> Outcome:
    """Judge an edited picture [H, W, 3]."""
    seen, wanted = judge(picture.numpy()), case.edit.after.objects[0]
    is_right = seen.colour == wanted.colour if case.kind == "recolour" else seen.shape == wanted.shape
    outside = float(l1(picture[None], case.before[None], 1 - case.mask[None]))
    return Outcome(is_right, outside, float(l1(picture[None], case.after[None])))


def report(name: str, outcomes: Sequence[Outcome]) -> None:
    """Print the averages of a way to edit."""
    right = 100 * statistics.mean(one.is_right for one in outcomes)
    outside, target = (statistics.mean(getattr(one, field) for one in outcomes) for field in ("outside", "to_target"))
    say(
        f"{name}: {right:.1f} % right, outside the true mask L1 to the original {outside:.4f}, to the target {target:.4f}"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--renders", type=int, default=60, help="half choose the threshold, half are measured")
    parser.add_argument("--size", type=int, default=128, help="side in pixels")
    options = parser.parse_args(argv)
    editor = load_editor(embedded_model_path("editor"))
    plain = replace(default_settings(editor.config), working_resolution=options.size)
    mapping = replace(plain, guidance=GuidanceSettings(scales=MAP_SCALES))
    cases = cases_of(options.renders, options.size)
    sources = [encode_source(editor, case.before[None], plain) for case in cases]
    maps = [
        relevance_map(editor, source, case.edit.instruction, mapping, seed)
        for seed, (case, source) in enumerate(zip(cases, sources, strict=True))
    ]
    half = len(cases) // 2
    choices = {
        (threshold, grow): statistics.mean(
            overlap(mask_of_map(one, extent_of(case.before[None]), threshold, grow)[0], case.mask)
            for one, case in zip(maps[:half], cases[:half], strict=True)
        )
        for threshold in THRESHOLDS
        for grow in GROWS
    }
    for (threshold, grow), value in choices.items():
        say(f"threshold {threshold:g}, grown by {grow} px: IoU {value:.3f} (on the {half} renders that choose)")
    best = max(choices, key=choices.__getitem__)
    everywhere, inside, overlaps = [], [], []
    for seed in range(half, len(cases)):
        case, source = cases[seed], sources[seed]
        extent = extent_of(case.before[None])
        overlaps.append(overlap(mask_of_map(maps[seed], extent, *best)[0], case.mask))
        mask = mask_of_map(maps[seed], extent, *EDITED)
        chain = [[case.edit.instruction]]
        everywhere.append(outcome(case, edit_source(editor, source, chain, plain, seed=seed).image[0]))
        inside.append(outcome(case, edit_source(editor, source, chain, plain, seed=seed, mask=mask).image[0]))
    say(
        f"{len(overlaps)} other renders, threshold {best[0]:g}, grown by {best[1]} px: IoU {statistics.mean(overlaps):.3f}"
    )
    report("edited everywhere", everywhere)
    report(f"edited inside the mask at {EDITED[0]:g}, grown by {EDITED[1]} px", inside)
    ratio = statistics.mean(one.outside for one in everywhere) / statistics.mean(one.outside for one in inside)
    say(f"change outside: {ratio:.2f} times less")


if __name__ == "__main__":
    main()
