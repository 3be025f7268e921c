"""One picture edited at many pairs of scales, as a labelled grid, and what each pair trades (Figures 4 and 8 of the paper).

Shapes: H W height and width in pixels.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy
import torch
from PIL import Image, ImageDraw, ImageOps
from torch import Tensor

from .errors import ConfigError
from .image_tensor import to_pil
from .score_plot import FAINT, INK, PAPER, load_font

CELL, GAP, LEFT, TOP, LINE = 256, 6, 96, 22, 17
PLOT_AREA, PLOT_MARGINS = (560, 400), (64, 34, 30, 46)  # left, top, right (the names come there too), bottom
COLOURS = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233), (90, 90, 90))
"""Told apart by colour-blind eyes too (Okabe and Ito)."""


def parse_numbers(text: str, name: str) -> list[float]:
    """Read a list of numbers.

    Args:
        text: numbers, parted by commas, blanks or lines.
        name: of the setting, for the message.

    Returns:
        The numbers in order, each once.

    Raises:
        ConfigError: if there is none, or something is no number.
    """
    parts = text.replace(",", " ").split()
    try:
        numbers = list(dict.fromkeys(float(part) for part in parts))
    except ValueError:
        raise ConfigError(f"{name} is {text!r}; write numbers with commas between them, as 3, 5, 7.5.") from None
    if not numbers or not all(numpy.isfinite(numbers)):
        raise ConfigError(f"{name} is {text!r}; write at least one number, as 3, 5, 7.5.")
    return numbers


def draw_grid(
    pictures: Sequence[Tensor], rows: Sequence[str], columns: Sequence[str], title: str = "", cell: int = CELL
) -> Tensor:
    """Draw pictures in rows and columns with their names.

    Args:
        pictures: [H, W, 3] in [0, 1] each, row by row.
        rows: name of each row.
        columns: name of each column.
        title: above everything.
        cell: longest side of a shown picture in pixels.

    Returns:
        A picture [H, W, 3] in [0, 1].
    """
    if len(pictures) != len(rows) * len(columns):
        raise ValueError(f"{len(pictures)} pictures for {len(rows)} rows and {len(columns)} columns")
    shown = [ImageOps.contain(to_pil(one), (cell, cell), Image.Resampling.LANCZOS) for one in pictures]
    width, height = max(one.width for one in shown), max(one.height for one in shown)
    lines = textwrap.wrap(title, 90)
    top = TOP + LINE * len(lines)
    size = (LEFT + len(columns) * (width + GAP), top + len(rows) * (height + GAP))
    picture = Image.new("RGB", size, PAPER)
    draw, font = ImageDraw.Draw(picture), load_font()
    for number, line in enumerate(lines):
        draw.text((GAP, 3 + number * LINE), line, fill=INK, font=font)
    for place, name in enumerate(columns):
        draw.text((LEFT + place * (width + GAP) + 2, top - LINE), name, fill=INK, font=font)
    for place, name in enumerate(rows):
        for number, line in enumerate(name.split("\n")):
            draw.text((GAP, top + place * (height + GAP) + 4 + number * LINE), line, fill=INK, font=font)
    for place, one in enumerate(shown):
        row, column = divmod(place, len(columns))
        picture.paste(one, (LEFT + column * (width + GAP), top + row * (height + GAP)))
    return torch.from_numpy(numpy.array(picture)).float() / 255.0


class Point(NamedTuple):
    """One system at one setting."""

    x: float
    y: float
    label: str = ""


def draw_tradeoff(
    curves: Mapping[str, Sequence[Point]], x_label: str = "directional similarity", y_label: str = "image similarity"
) -> Tensor:
    """Draw curves of what an edit does against what it keeps; up and to the right is better (Figure 8 of the paper).

    Args:
        curves: name -> points, which are joined in order.
        x_label: of the edit.
        y_label: of what is kept.

    Returns:
        A picture [H, W, 3] in [0, 1].

    Raises:
        ConfigError: if there is no finite point.
    """
    finite = {
        name: [one for one in points if numpy.isfinite(one.x) and numpy.isfinite(one.y)]
        for name, points in curves.items()
    }
    points = [one for some in finite.values() for one in some]
    if not points:
        raise ConfigError("There is nothing to plot: no score is a number. Check captions and scorer.")
    font = load_font()
    left, top, right, bottom = PLOT_MARGINS
    right += round(max(font.getlength(name) for name in finite))
    width, height = left + PLOT_AREA[0] + right, top + PLOT_AREA[1] + bottom
    picture = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(picture)
    x_low, x_high = _range([one.x for one in points])
    y_low, y_high = _range([one.y for one in points])

    def place(x: float, y: float) -> tuple[float, float]:
        across = left + (x - x_low) / (x_high - x_low) * (width - left - right)
        return across, height - bottom - (y - y_low) / (y_high - y_low) * (height - top - bottom)

    for share in numpy.linspace(0, 1, 5):
        x, y = x_low + share * (x_high - x_low), y_low + share * (y_high - y_low)
        draw.line((*place(x, y_low), *place(x, y_high)), fill=FAINT)
        draw.line((*place(x_low, y), *place(x_high, y)), fill=FAINT)
        draw.text((place(x, y_low)[0] - 14, height - bottom + 4), f"{x:.2f}", fill=INK, font=font)
        draw.text((left - 42, place(x_low, y)[1] - 8), f"{y:.2f}", fill=INK, font=font)
    draw.text((left, height - LINE - 4), f"{x_label} (what the edit does) >", fill=INK, font=font)
    draw.text((6, 6), f"^ {y_label} (what is kept)", fill=INK, font=font)
    for number, (name, some) in enumerate(finite.items()):
        colour = COLOURS[number % len(COLOURS)]
        spots = [place(one.x, one.y) for one in some]
        if len(spots) > 1:
            draw.line(spots, fill=colour, width=2)
        for one, (x, y) in zip(some, spots, strict=True):
            draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=colour)
            draw.text((x + 6, y - 14), one.label, fill=colour, font=font)
        draw.text((width - right + 10, top + number * LINE), name, fill=colour, font=font)
    return torch.from_numpy(numpy.array(picture)).float() / 255.0


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = max(0.05 * (high - low), 0.005)
    return low - margin, high + margin
