from __future__ import annotations

import pytest
import torch

from ip2p.ip2p_core.pair_record import PairScores
from ip2p.ip2p_core.score_plot import CUT, PANEL_SIZE, PASSED, draw_histograms
from ip2p.ip2p_core.score_report import histograms
from ip2p.ip2p_core.similarity import Thresholds


def spread(low: float, high: float, count: int = 60) -> list[PairScores]:
    values = torch.linspace(low, high, count, dtype=torch.float64).tolist()
    return [PairScores(value, value, value, value) for value in values]


def count_pixels(picture: torch.Tensor, colour: tuple[int, int, int]) -> int:
    return int(((picture * 255).round() == torch.tensor(colour)).all(dim=-1).sum())


def test_the_picture_has_two_panels_in_each_of_two_rows():
    picture = draw_histograms(histograms(spread(0.0, 0.9), Thresholds()))
    assert picture.shape == (2 * PANEL_SIZE[1], 2 * PANEL_SIZE[0], 3)


def test_the_paper_is_white_and_no_pixel_is_outside_0_and_1():
    picture = draw_histograms(histograms(spread(0.0, 0.9), Thresholds()))
    assert (float(picture.max()), float(picture.min()) >= 0.0) == (1.0, True)
    assert float(picture[0, 0].min()) == 1.0


def test_pairs_that_fail_have_no_bar_in_the_colour_of_those_that_pass():
    assert count_pixels(draw_histograms(histograms(spread(0.0, 0.1), Thresholds())), PASSED) == 0


def test_pairs_that_pass_have_bars_in_their_own_colour():
    assert count_pixels(draw_histograms(histograms(spread(0.8, 0.9), Thresholds())), PASSED) > 1000


@pytest.mark.parametrize("threshold", [-1.0, 0.2, 1.0])
def test_every_panel_shows_its_cut_line(threshold):
    thresholds = Thresholds(image=threshold, caption=threshold, directional=threshold)
    picture = draw_histograms(histograms(spread(0.0, 0.5), thresholds))
    width, height = PANEL_SIZE
    panels = [picture[y : y + height, x : x + width] for y in (0, height) for x in (0, width)]
    assert all(count_pixels(panel, CUT) >= 2 * 150 for panel in panels)


def test_no_scores_give_empty_panels():
    assert count_pixels(draw_histograms(histograms([], Thresholds())), PASSED) == 0
