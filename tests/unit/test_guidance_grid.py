from __future__ import annotations

import math

import pytest
import torch

from ip2p.ip2p_core.errors import ConfigError
from ip2p.ip2p_core.guidance_grid import CELL, GAP, LEFT, LINE, TOP, Point, draw_grid, draw_tradeoff, parse_numbers
from ip2p.ip2p_core.image_size import Extent
from ip2p.ip2p_core.relevance import mask_of_map


@pytest.mark.parametrize(
    ("text", "numbers"), [("3, 5,7.5", [3, 5, 7.5]), (" 1\n2 ", [1, 2]), ("2,2,1", [2, 1]), ("-1 1e1", [-1, 10])]
)
def test_numbers_are_read_in_order_and_once(text, numbers):
    assert parse_numbers(text, "scales") == numbers


@pytest.mark.parametrize("text", ["", " , ", "one", "1;2", "nan", "inf, 1"])
def test_what_is_no_number_is_named(text):
    with pytest.raises(ConfigError, match=r"^scales is"):
        parse_numbers(text, "scales")


def test_each_picture_of_a_grid_stands_in_its_row_and_column():
    colours = torch.rand(6, 3, generator=torch.Generator().manual_seed(0))
    pictures = [colour.expand(CELL, CELL, 3) for colour in colours]
    grid = draw_grid(pictures, ["a", "b"], ["x", "y", "z"], "make it blue")
    top = TOP + LINE
    assert grid.shape == (top + 2 * (CELL + GAP), LEFT + 3 * (CELL + GAP), 3)
    for place, colour in enumerate(colours):
        row, column = divmod(place, 3)
        middle = grid[top + row * (CELL + GAP) + CELL // 2, LEFT + column * (CELL + GAP) + CELL // 2]
        torch.testing.assert_close(middle, colour, atol=1 / 255, rtol=0)
    with pytest.raises(ValueError, match="6 pictures for 2 rows and 2 columns"):
        draw_grid(pictures, ["a", "b"], ["x", "y"])


def test_a_plot_shows_every_curve_and_leaves_out_what_is_no_number():
    curves = {"one": [Point(0.1, 0.9), Point(0.2, 0.8), Point(math.nan, 0.5)], "two": [Point(0.15, 0.7, "s")]}
    picture = draw_tradeoff(curves)
    assert picture.shape[::2] == (480, 3)
    assert draw_tradeoff({"a name that has to be read whole": [Point(0.1, 0.9)]}).shape[1] > picture.shape[1] + 50
    for colour in ((0, 114, 178), (213, 94, 0)):
        assert ((picture * 255).round() == torch.tensor(colour)).all(-1).sum() > 20
    with pytest.raises(ConfigError, match="no score is a number"):
        draw_tradeoff({"one": [Point(math.nan, 1.0)]})


def test_a_mask_covers_what_is_relevant_and_grows():
    relevance = torch.zeros(2, 8, 8)
    relevance[0, 2:4, 3:5] = 1.0
    relevance[1] = 1.0
    mask = mask_of_map(relevance, Extent(width=32, height=16), 0.5)
    assert mask.shape == (2, 16, 32)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert mask[1].all()
    assert mask[0, 5:7, 12:20].all()  # corners are rounded
    assert mask[0].mean() < 0.15
    grown = mask_of_map(relevance, Extent(width=32, height=16), 0.5, grow=2)
    assert grown[0].sum() > mask[0].sum()
    assert (grown >= mask).all()
    with pytest.raises(ConfigError, match="relevance map is empty"):
        mask_of_map(torch.zeros(1, 8, 8), Extent(width=8, height=8))
