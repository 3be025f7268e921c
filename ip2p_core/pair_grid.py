"""A picture of pairs: original, edited, instruction and scores of each.

Shapes: H W height and width in pixels.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy
import torch
from PIL import Image, ImageDraw, ImageOps
from torch import Tensor

from .pair_record import PairRecord
from .score_plot import INK, PAPER, load_font

SIDE, GAP, LINE = 200, 8, 17
MAX_LINES = 2


def draw_pairs(pairs: Sequence[PairRecord], num_columns: int = 2) -> Tensor:
    """Draw pairs in a grid, each as original and edited picture above its instruction and its scores.

    Args:
        pairs: at least one; scores that are there are shown.
        num_columns: pairs in a row.

    Returns:
        A picture [H, W, 3] in [0, 1].
    """
    width, height = 2 * SIDE + 2 * GAP, SIDE + (MAX_LINES + 1) * LINE + 2 * GAP
    num_columns = min(num_columns, len(pairs))
    num_rows = (len(pairs) + num_columns - 1) // num_columns
    picture = Image.new("RGB", (num_columns * width, num_rows * height), PAPER)
    draw, font = ImageDraw.Draw(picture), load_font()
    for index, pair in enumerate(pairs):
        left, top = index % num_columns * width + GAP // 2, index // num_columns * height + GAP // 2
        for place, handle in enumerate((pair.original, pair.edited)):
            shown = ImageOps.contain(handle.picture().convert("RGB"), (SIDE, SIDE), Image.Resampling.BICUBIC)
            picture.paste(shown, (left + place * (SIDE + GAP), top))
        lines = textwrap.wrap(pair.triplet.instruction, 56)[:MAX_LINES]
        if pair.scores is not None:
            one = pair.scores
            lines.append(
                f"directional {one.directional:.2f}  image {one.image:.2f}  captions {one.caption_0:.2f} {one.caption_1:.2f}"
            )
        for number, line in enumerate(lines):
            draw.text((left, top + SIDE + 4 + number * LINE), line, fill=INK, font=font)
    return torch.from_numpy(numpy.array(picture)).float() / 255.0
