from __future__ import annotations

import logging

import pytest
import torch

from ip2p.ip2p_core.errors import BadImageSize
from ip2p.ip2p_core.guidance import Predictions
from ip2p.ip2p_core.relevance import RelevanceMeter, feather_inside, paste_back


@pytest.fixture
def predictions() -> Predictions:
    generator = torch.Generator().manual_seed(0)
    return Predictions(*torch.randn(3, 2, 4, 16, 16, generator=generator, dtype=torch.float64))


def test_the_map_lies_where_the_instruction_changes_the_prediction(predictions):
    full = predictions.image.clone()
    full[0, :, 2:6, 3:9] += 1.0
    full[1, :, 10:, :] -= 2.0
    meter = RelevanceMeter()
    meter.add(predictions._replace(full=full), sigma=2.0)
    relevance = meter.map()
    wanted = torch.zeros(2, 16, 16)
    wanted[0, 2:6, 3:9] = 1.0
    wanted[1, 10:, :] = 1.0
    torch.testing.assert_close(relevance, wanted)


def test_the_map_is_the_mean_of_the_eps_differences(predictions):
    meter = RelevanceMeter(robust_share=1.0)
    total = torch.zeros(2, 16, 16, dtype=torch.float64)
    for sigma in (10.0, 1.0, 0.1):
        x = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(int(sigma)), dtype=torch.float64)
        denoised = Predictions(*(x - sigma * eps for eps in predictions))
        meter.add(denoised, torch.full((2,), sigma, dtype=torch.float64))
        total += (predictions.full - predictions.image).abs().mean(dim=1)
    wanted = total / total.amax(dim=(1, 2), keepdim=True)
    torch.testing.assert_close(meter.map(), wanted.float())


def test_the_uncond_branch_plays_no_part(predictions):
    with_it, without = RelevanceMeter(), RelevanceMeter()
    with_it.add(predictions, 1.0)
    without.add(predictions._replace(uncond=None), 1.0)
    assert torch.equal(with_it.map(), without.map())


def test_a_run_that_never_had_both_branches_reports_zeros_and_says_so(predictions, caplog):
    meter = RelevanceMeter()
    meter.add(predictions._replace(image=None), 1.0)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(meter.map(), torch.zeros(2, 16, 16))
    assert "No relevance map" in caplog.text


def test_steps_without_both_branches_are_left_out_of_the_mean(predictions):
    some, one = RelevanceMeter(), RelevanceMeter()
    for meter in (some, one):
        meter.add(predictions, 1.0)
    some.add(predictions._replace(image=None), 1.0)
    assert torch.equal(some.map(), one.map())


def test_asking_before_any_step_is_misuse():
    with pytest.raises(ValueError, match="before any step"):
        RelevanceMeter().map()


@pytest.fixture
def pictures() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    original, edited = torch.rand(2, 2, 40, 50, 3, generator=generator)
    mask = torch.zeros(2, 40, 50)
    mask[0, 10:30, 10:40] = 1.0
    mask[1, 20:23, :] = 1.0
    return original, edited, mask


@pytest.mark.parametrize("feather", [0, 1, 6, 50])
def test_outside_the_mask_every_bit_is_the_original(pictures, feather):
    original, edited, mask = pictures
    pasted = paste_back(original, edited, mask, feather)
    assert torch.equal(pasted[mask == 0], original[mask == 0])
    assert (pasted[mask == 1] != original[mask == 1]).any()


def test_without_feather_the_edit_fills_the_mask_exactly(pictures):
    original, edited, mask = pictures
    pasted = paste_back(original, edited, mask)
    torch.testing.assert_close(pasted[mask == 1], edited[mask == 1], atol=1e-6, rtol=0)


def test_the_rim_rises_inwards_over_the_feather_and_not_along_the_picture_edge():
    mask = torch.zeros(1, 20, 30)
    mask[:, :, 10:] = 1.0
    weight = feather_inside(mask, 4)
    torch.testing.assert_close(weight[0, 8, 8:16], torch.tensor([0.0, 0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.0]))
    assert torch.equal(weight[0, :, -1], torch.ones(20))
    assert torch.equal(weight[0, 0], weight[0, 10])


def test_a_thin_mask_does_not_vanish_under_a_wide_feather(pictures):
    weight = feather_inside(pictures[2], 10)
    assert (weight[1][pictures[2][1] == 1] > 0).all()


def test_a_soft_mask_mixes_in_proportion(pictures):
    original, edited, _ = pictures
    mask = torch.full((2, 40, 50), 0.25)
    torch.testing.assert_close(paste_back(original, edited, mask), 0.75 * original + 0.25 * edited)


def test_one_mask_serves_the_whole_batch(pictures):
    original, edited, mask = pictures
    assert torch.equal(paste_back(original, edited, mask[:1]), paste_back(original, edited, mask[:1].expand(2, -1, -1)))


def test_sizes_that_differ_are_refused_with_all_three(pictures):
    original, edited, mask = pictures
    with pytest.raises(BadImageSize, match=r"\(40, 50\), the edit \(40, 50\) and the mask \(8, 8\)"):
        paste_back(original, edited, mask[:, :8, :8])
