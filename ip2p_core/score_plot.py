"""A picture of the four histograms of a filter, with the cut lines.

Shapes: H W height and width in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .score_report import SCORE_LABELS, Histogram

PANEL_SIZE = (380, 230)
MARGINS = (14, 44, 14, 26)  # left, top, right, bottom, in pixels
PAPER, INK, FAINT = (255, 255, 255), (30, 30, 30), (205, 205, 205)
PASSED, FAILED, CUT = (0, 114, 178), (170, 170, 170), (213, 94, 0)  # told apart by colour-blind eyes too

_Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


def draw_histograms(histograms: Sequence[Histogram]) -> Tensor:
    """Draw histograms two in a row; what passes is blue, what fails grey, the threshold a line.

    Args:
        histograms: result of `score_report.histograms`.

    Returns:
        A picture [H, W, 3] in [0, 1].
    """
    width, height = PANEL_SIZE
    num_rows = (len(histograms) + 1) // 2
    picture = Image.new("RGB", (2 * width, num_rows * height), PAPER)
    draw, font = ImageDraw.Draw(picture), load_font()
    for index, histogram in enumerate(histograms):
        _draw_panel(draw, font, histogram, (index % 2 * width, index // 2 * height))
    return torch.from_numpy(numpy.array(picture)).float() / 255.0


def load_font() -> _Font:
    """Load the font of all drawings, whatever this Pillow has."""
    try:
        return ImageFont.load_default(size=13)
    except (TypeError, ImportError, OSError):  # an old Pillow, or one without FreeType
        return ImageFont.load_default()


def _draw_panel(draw: ImageDraw.ImageDraw, font: _Font, histogram: Histogram, corner: tuple[int, int]) -> None:
    left, top = corner[0] + MARGINS[0], corner[1] + MARGINS[1]
    right, bottom = corner[0] + PANEL_SIZE[0] - MARGINS[2], corner[1] + PANEL_SIZE[1] - MARGINS[3]
    edges, counts = histogram.edges, histogram.counts
    scale = (right - left) / (edges[-1] - edges[0])
    first_passing = edges.index(histogram.threshold)

    def place(value: float) -> float:
        return left + (value - edges[0]) * scale

    for index, count in enumerate(counts):
        if count:
            height = max((bottom - top) * count / max(counts), 1.0)
            bar = (place(edges[index]), bottom - height, max(place(edges[index + 1]) - 1, place(edges[index])), bottom)
            draw.rectangle(bar, fill=PASSED if index >= first_passing else FAILED)
    cut = place(histogram.threshold)
    draw.line((left, bottom, right, bottom), fill=INK)
    draw.line((left, top, right, top), fill=FAINT)
    draw.line((cut, top - 6, cut, bottom), fill=CUT, width=2)
    passing = sum(counts[first_passing:])
    span = (left, right)
    _write(draw, font, f"{SCORE_LABELS[histogram.score]}: {passing} of {sum(counts)} pass", (left, corner[1] + 4), span)
    _write(draw, font, f">= {histogram.threshold:.4g}", (cut, corner[1] + 21), span, CUT)
    far_side = left if cut > (left + right) / 2 else right
    _write(draw, font, f"highest bar {max(counts)}", (far_side, corner[1] + 21), span, FAILED)
    for value in numpy.linspace(edges[0], edges[-1], 5):
        _write(draw, font, f"{value:.2f}", (place(value), bottom + 4), span)


def _write(
    draw: ImageDraw.ImageDraw,
    font: _Font,
    text: str,
    place: tuple[float, float],
    span: tuple[float, float],
    colour: tuple[int, int, int] = INK,
) -> None:
    """Write a line centred at `place`, moved to stay inside the panel's span."""
    width = draw.textlength(text, font=font)
    left = min(max(place[0] - width / 2, span[0]), span[1] - width)
    draw.text((left, place[1]), text, fill=colour, font=font)
