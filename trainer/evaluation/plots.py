"""Pictures of an evaluation: the trade-off of Figure 8, the grids of Figure 4, the side-by-side of Figure 9.

Shapes: H W height and width in pixels.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from ...ip2p_core.guidance_grid import Point, draw_grid, draw_tradeoff
from ...ip2p_core.image_tensor import load_image, to_pil
from .config import Setting
from .run import Row
from .summary import Summary

LABELS = {
    "text_scale": "text",
    "image_scale": "image",
    "strength": "strength",
    "steps": "steps",
}
UNCHANGED = 0.99999
INNERMOST = ("image_scale", "strength", "text_scale", "steps")
"""Along which of these a curve runs, the first that varies."""
EFFECTS = {
    "directional": "directional similarity",
    "instruction_match": "likeness of result and instruction",
}
TARGET = "target_l1"
REASONS = {
    "target": "each system at the setting that comes nearest to the right results (target_l1)",
    "product": "each system at the setting with the largest product of the two axes of the plot",
    "first": "each system at its first setting",
}
_CELL, _WRAP = 180, 13


class Axes(NamedTuple):
    """What the trade-off plot shows."""

    x: str
    y: str = "image"


def choose_axes(summaries: Sequence[Summary]) -> Axes | None:
    """Directional similarity where there are captions, else likeness to the instruction; None where nothing can be plotted."""
    for axes in map(Axes, EFFECTS):
        points = [one for curve in tradeoff_curves(summaries, axes).values() for one in curve]
        if any(math.isfinite(one.x) and math.isfinite(one.y) for one in points):
            return axes
    return None


def describe(setting: Setting) -> str:
    """Write a setting for people."""
    return ", ".join(f"{LABELS[name]} {value:g}" for name, value in setting.named().items())


def varying(summaries: Sequence[Summary]) -> list[str]:
    """What of the settings of one system differs."""
    return [name for name in Setting._fields if len({getattr(one.setting, name) for one in summaries}) > 1]


def tradeoff_curves(summaries: Sequence[Summary], axes: Axes) -> dict[str, list[Point]]:
    """Make the curves of the plot; a picture that nothing was done to has no place there, and is left out.

    Args:
        summaries: of all systems.
        axes: what is plotted.

    Returns:
        Name -> points; every system has one curve, or several where more than one thing was swept.
    """
    curves: dict[str, list[Point]] = {}
    for system in dict.fromkeys(one.system for one in summaries):
        own = [one for one in summaries if one.system == system and axes.x in one.means and axes.y in one.means]
        if all(one.means["image"].value > UNCHANGED for one in own):
            continue
        swept = varying(own)
        inner = next((name for name in INNERMOST if name in swept), "")
        for one in own:
            outer = ", ".join(f"{LABELS[name]} {getattr(one.setting, name):g}" for name in swept if name != inner)
            name = f"{system}, {outer}" if outer else system
            label = f"{getattr(one.setting, inner):g}" if inner else ""
            curves.setdefault(name, []).append(Point(one.means[axes.x].value, one.means[axes.y].value, label))
    return curves


def draw_curves(summaries: Sequence[Summary], axes: Axes) -> Image.Image:
    """Draw the trade-off of Figure 8."""
    return to_pil(draw_tradeoff(tradeoff_curves(summaries, axes), EFFECTS[axes.x], "CLIP image similarity"))


def best_settings(summaries: Sequence[Summary], axes: Axes | None) -> dict[str, Setting]:
    """Choose a setting for every system, the first of the best; see `REASONS` for what is best."""
    chosen: dict[str, tuple[float, Setting]] = {}
    reason = reason_of(summaries, axes)
    for one in summaries:
        value = 0.0
        if reason == "target" and TARGET in one.means:
            value = -one.means[TARGET].value
        elif axes is not None and axes.x in one.means and axes.y in one.means:
            value = one.means[axes.x].value * one.means[axes.y].value
        if one.system not in chosen or value > chosen[one.system][0]:
            chosen[one.system] = value, one.setting
    return {system: setting for system, (_, setting) in chosen.items()}


def reason_of(summaries: Sequence[Summary], axes: Axes | None) -> str:
    """Say by what the shown settings are chosen, a key of `REASONS`."""
    if any(TARGET in one.means and one.means[TARGET].num_examples for one in summaries):
        return "target"
    return "first" if axes is None else "product"


def draw_side_by_side(rows: Sequence[Row], chosen: Mapping[str, Setting], folder: Path, shown: int) -> Image.Image:
    """Draw original, target where there is one, and the edit of every system, one example a row (Figure 9).

    Args:
        rows: of the run.
        chosen: the setting of every system.
        folder: of the run.
        shown: examples.

    Returns:
        The picture.
    """
    examples = list({row.example.key: row.example for row in rows}.values())[:shown]
    seed = rows[0].seed
    has_target = any(one.target is not None for one in examples)
    found = {(row.system, row.setting, row.seed, row.example.key): row.picture for row in rows}
    pictures: list[Tensor] = []
    for one in examples:
        original = one.image.tensor()
        pictures.append(original)
        if has_target:
            pictures.append(torch.ones_like(original) if one.target is None else one.target.tensor())
        for system, setting in chosen.items():
            path = found.get((system, setting, seed, one.key))
            pictures.append(torch.ones_like(original) if path is None else load_image(folder / path).pixels)
    names = ["original", *(["target"] if has_target else []), *chosen]
    return to_pil(draw_grid(pictures, [wrap(one.instruction) for one in examples], names, cell=_CELL))


def draw_scale_grids(rows: Sequence[Row], folder: Path, shown: int) -> list[Image.Image]:
    """Draw edits over both scales for systems that were swept over both (Figure 4).

    Args:
        rows: of the run.
        folder: of the run.
        shown: examples of every system.

    Returns:
        The pictures, each with its title.
    """
    grids = []
    for system in dict.fromkeys(row.system for row in rows):
        own = [row for row in rows if row.system == system and row.seed == rows[0].seed]
        texts, images = (list(dict.fromkeys(getattr(row.setting, name) for row in own)) for name in Setting._fields[:2])
        if len(texts) < 2 or len(images) < 2:
            continue
        for key in list(dict.fromkeys(row.example.key for row in own))[:shown]:
            cells = {row.setting[:2]: row for row in own if row.example.key == key}
            pictures = [load_image(folder / cells[text, image].picture).pixels for image in images for text in texts]
            title = f"{system}: {next(iter(cells.values())).example.instruction}"
            grid = draw_grid(
                pictures, [f"image {one:g}" for one in images], [f"text {one:g}" for one in texts], title, _CELL
            )
            grids.append(to_pil(grid))
    return grids


def wrap(text: str) -> str:
    """Break a text for the margin of a grid."""
    return "\n".join(textwrap.wrap(text, _WRAP)[:9])
