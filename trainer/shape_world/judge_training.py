"""Train the judge of attributes on renders, made like pictures that a small generator paints, and measure it."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..embedded.state import TrainingState, half_precision, learning_rate
from .attribute_judge import CELLS, RADIUS_UNIT, SPREAD, AttributeJudge, JudgeNetwork, Reading, Seen
from .edit_verdicts import ATTRIBUTES, facts_of, is_fact_right
from .render import render
from .scene import BACKGROUNDS, MATERIALS, MEDIA, PALETTE, SHAPES, WEATHERS, Scene
from .world_edits import world_edit_at
from .world_settings import FULL, WorldSettings

logger = logging.getLogger(__name__)

PEAK_LR = 3e-3
NEAR = 0.5
"""Cells whose mark is at least so high learn what the object is."""
MARK_WEIGHT = 100.0
MOST_BENT = 1.2
"""Standard deviation in pixels by which outlines are bent at most."""
SCALES = (0.85, 1.7)
"""Range by which what a scene shows is scaled."""


@dataclass(frozen=True, kw_only=True)
class JudgePlan:
    """How to train a judge.

    Attributes:
        settings: of the world whose edits are drawn, both sides of each.
        seconds: of training, by the clock.
        max_steps: of training; it ends with these or the seconds, whichever comes first.
        edits_per_batch: half as many as pictures in a batch.
        width: of the network.
        depth: of the network.
        seed: of all draws.
        save_every: steps between two saves of the state.
    """

    settings: WorldSettings = FULL
    seconds: float = 600.0
    max_steps: int | None = None
    edits_per_batch: int = 16
    width: int = 48
    depth: int = 3
    seed: int = 0
    save_every: int = 200


class Targets(NamedTuple):
    """What the network should say."""

    marks: Tensor
    """In [0, 1], [B, S, G, G]."""
    colours: Tensor
    """[B, G, G], of meaning near centres alone, like the next two."""
    materials: Tensor
    radii: Tensor
    looks: Tensor
    """Background, weather and medium [B, 3]."""


def targets_of(scenes: Sequence[Scene]) -> Targets:
    """What the network should say of pictures of scenes."""
    marks = np.zeros((len(scenes), len(SHAPES), CELLS, CELLS), np.float32)
    named = np.zeros((2, len(scenes), CELLS, CELLS), np.int64)
    radii = np.zeros((len(scenes), CELLS, CELLS), np.float32)
    looks = np.zeros((len(scenes), 3), np.int64)
    middles, colours = np.arange(CELLS) + 0.5, list(PALETTE)
    for row, scene in enumerate(scenes):
        names = (scene.background, list(BACKGROUNDS)), (scene.weather, WEATHERS), (scene.medium, MEDIA)
        looks[row] = [known.index(name) for name, known in names]
        for one in scene.objects:
            away = np.square(middles[:, None] - one.y * CELLS) + np.square(middles[None] - one.x * CELLS)
            mark = np.exp(-away / (2 * SPREAD**2)).astype(np.float32)
            own = marks[row, SHAPES.index(one.shape)]
            np.maximum(own, mark, out=own)
            near = away < 4
            named[0, row][near] = colours.index(one.colour)
            named[1, row][near] = MATERIALS.index(one.material)
            radii[row][near] = np.log(one.radius / RADIUS_UNIT)
    arrays = marks, named[0], named[1], radii, looks
    return Targets(*(torch.from_numpy(array) for array in arrays))


def loss_of(reading: Reading, targets: Targets) -> Tensor:
    """How far a reading is from its targets, a scalar."""
    marks, colours, materials, radii, looks = targets
    misses = functional.binary_cross_entropy_with_logits(reading.marks, marks, reduction="none")
    floor = functional.binary_cross_entropy(marks, marks, reduction="none")
    loss = MARK_WEIGHT * (misses - floor).mean((0, 2, 3)).sum()
    near = marks.amax(1) > NEAR
    if near.any():
        loss = loss + functional.cross_entropy(reading.colours.movedim(1, -1)[near], colours[near])
        loss = loss + functional.cross_entropy(reading.materials.movedim(1, -1)[near], materials[near])
        loss = loss + 4 * (reading.radii[near] - radii[near]).abs().mean()
    for logits, look in zip(reading.looks, looks.T, strict=True):
        loss = loss + functional.cross_entropy(logits, look)
    return loss


def worsen(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Make renders like pictures of an autoencoder and a small generator; a third stays as it is.

    Args:
        pictures: [B, 3, H, W] in [0, 1].
        generator: source of all draws.

    Returns:
        Pictures with uneven outlines, softer or oversharp, of slightly other lights and colours, with fine and coarse
        noise.
    """

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    batch, _, height, width = pictures.shape
    factor = 0.45 + 0.55 * float(draw(1))
    worse = _bent(pictures, MOST_BENT * draw(batch, 1, 1, 1), generator)
    small = functional.interpolate(worse, scale_factor=factor, mode="bilinear", antialias=True)
    soft = functional.interpolate(small, size=(height, width), mode="bilinear")
    worse = worse + (soft - worse) * (1.5 * draw(batch, 1, 1, 1) - 0.5)
    gain, shift = 0.9 + 0.2 * draw(batch, 3, 1, 1), 0.08 * (draw(batch, 3, 1, 1) - 0.5)
    noise = torch.randn(pictures.shape, generator=generator) * 0.04 * draw(batch, 1, 1, 1)
    coarse = torch.randn((batch, 3, height // 8, width // 8), generator=generator) * 0.03 * draw(batch, 1, 1, 1)
    worse = worse * gain + shift + noise + functional.interpolate(coarse, size=(height, width), mode="bilinear")
    is_kept = draw(batch, 1, 1, 1) < 0.35
    return torch.where(is_kept, pictures, worse.clamp(0, 1))


def _bent(pictures: Tensor, amount: Tensor, generator: torch.Generator) -> Tensor:
    """Shift the parts of pictures [B, 3, H, W] by a few pixels, neighbours alike; `amount` [B, 1, 1, 1] in pixels."""
    batch, _, height, width = pictures.shape
    coarse = torch.randn((batch, 2, height // 6, width // 6), generator=generator) * amount * 2 / width
    shifts = functional.interpolate(coarse, size=(height, width), mode="bicubic").movedim(1, -1)
    straight = functional.affine_grid(
        torch.eye(2, 3).expand(batch, 2, 3), [batch, 1, height, width], align_corners=False
    )
    return functional.grid_sample(pictures, straight + shifts, padding_mode="border", align_corners=False)


def render_batch(scenes: Iterable[Scene], side: int = 64) -> Tensor:
    """Pictures [B, 3, side, side] of scenes."""
    return torch.from_numpy(np.stack([render(scene, side) for scene in scenes])).movedim(-1, 1)


def scenes_at(purpose: str, seed: int, places: Iterable[int], settings: WorldSettings) -> list[Scene]:
    """Both sides of edits, each a pure function of (purpose, seed, place); held-out combinations are among them."""
    edits = [world_edit_at(purpose, seed, place, settings, allow_held_out=True) for place in places]
    return [scene for edit in edits for scene in (edit.before, edit.after)]


def rescaled(rng: random.Random, scene: Scene) -> Scene:
    """Another size and place of all objects together, since generators paint them larger and smaller than the world has them.

    Args:
        rng: source of all draws.
        scene: any.

    Returns:
        The scene with what it shows scaled and shifted; half of the scenes, and those without room, stay as they are.
    """
    factor = rng.uniform(*SCALES)
    if rng.random() < 0.5 or not scene.objects:
        return scene
    moved = [replace(one, x=one.x * factor, y=one.y * factor, radius=one.radius * factor) for one in scene.objects]
    shifts = []
    for places in ([(one.x, one.radius) for one in moved], [(one.y, one.radius) for one in moved]):
        low, high = min(at - radius for at, radius in places), max(at + radius for at, radius in places)
        if high - low > 0.98:
            return scene
        shifts.append(rng.uniform(0.01 - low, 0.99 - high))
    return replace(scene, objects=tuple(replace(one, x=one.x + shifts[0], y=one.y + shifts[1]) for one in moved))


def train_judge(path: Path, plan: JudgePlan) -> AttributeJudge:
    """Train a judge and write it; a run that was stopped goes on from its state beside the file.

    The judge learns held-out combinations too: it is a measure, not a model under test.

    Args:
        path: the safetensors file of the judge; `<name>.state.pt` beside it holds the state until the training is done.
        plan: how to train it.

    Returns:
        The judge.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(plan.seed)
    network = JudgeNetwork(plan.width, plan.depth).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    parameters = list(network.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=PEAK_LR, weight_decay=0.02)
    state = TrainingState(path.with_suffix(".state.pt"), network, optimizer, ema_decay=0.995)
    state.resume()
    network.train()
    last = time.monotonic()
    while (progress := _progress(state, plan)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(progress, PEAK_LR)
        places = range(state.step * plan.edits_per_batch, (state.step + 1) * plan.edits_per_batch)
        rng = random.Random(f"judge-scale/{plan.seed}/{state.step}")
        scenes = [rescaled(rng, scene) for scene in scenes_at("judge", plan.seed, places, plan.settings)]
        pictures = worsen(render_batch(scenes), torch.Generator().manual_seed(state.step))
        with half_precision():
            reading = network(pictures.contiguous(memory_format=torch.channels_last))
        loss = loss_of(_in_full(reading), targets_of(scenes))
        state.update(loss, parameters)
        now = time.monotonic()
        state.seconds, last = state.seconds + now - last, now
        if state.step % plan.save_every == 0:
            logger.info("judge step %d, %.0f s, loss %.3f", state.step, state.seconds, float(loss.detach()))
            state.save()
    state.save()
    network.load_state_dict(state.ema)
    recipe = {**asdict(plan), "steps": state.step}
    AttributeJudge(network).save(path, f"train_judge with {recipe}")
    state.path.unlink(missing_ok=True)
    return AttributeJudge.from_file(path)


def _progress(state: TrainingState, plan: JudgePlan) -> float:
    return max(state.seconds / plan.seconds, state.step / plan.max_steps if plan.max_steps else 0.0)


def _in_full(reading: Reading) -> Reading:
    looks = reading.looks[0].float(), reading.looks[1].float(), reading.looks[2].float()
    cells = reading.marks.float(), reading.colours.float(), reading.materials.float(), reading.radii.float()
    return Reading(*cells, looks)


def measure_judge(
    judge: AttributeJudge, settings: WorldSettings, *, num_edits: int = 500, seed: int = 1, is_worsened: bool = False
) -> dict[str, float]:
    """Measure on renders that training never saw.

    Args:
        judge: trained.
        settings: of the world whose edits are drawn.
        num_edits: half as many as pictures.
        seed: of the draws; other scenes than those of training in any case.
        is_worsened: measure on pictures that were made worse as in training.

    Returns:
        Per attribute the share of facts that are right; "number" is of the shapes that are there or are thought to be,
        the attributes of shapes are of those that are there.
    """
    scenes = scenes_at("judge-test", seed, range(num_edits), settings)
    pictures = render_batch(scenes)
    if is_worsened:
        pictures = worsen(pictures, torch.Generator().manual_seed(seed))
    seen = judge.judge(list(pictures.movedim(1, -1).numpy()))
    rights: dict[str, list[bool]] = {name: [] for name in ATTRIBUTES}
    for scene, one in zip(scenes, seen, strict=True):
        for fact, value in facts_of(scene).items():
            if fact.attribute != "number" or _is_of_interest(fact.shape, scene, one):
                rights[fact.attribute].append(is_fact_right(fact, value, one))
    return {name: float(np.mean(values)) for name, values in rights.items() if values}


def _is_of_interest(shape: str, scene: Scene, seen: Seen) -> bool:
    return shape in seen.shapes or any(one.shape == shape for one in scene.objects)
