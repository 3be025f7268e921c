from __future__ import annotations

import itertools

import pytest
import torch

from ip2p.ip2p_core.errors import ConfigError
from ip2p.ip2p_core.guidance import (
    Branches,
    GuidanceScales,
    GuidanceSettings,
    Predictions,
    guide,
    needed_branches,
)


def scales(s_T: float, s_I: float) -> GuidanceScales:
    return GuidanceScales(text_guidance_scale=s_T, image_guidance_scale=s_I)


def keep(predictions: Predictions, branches: Branches) -> Predictions:
    return Predictions(*(one if is_kept else None for one, is_kept in zip(predictions, branches, strict=True)))


@pytest.fixture
def predictions() -> Predictions:
    generator = torch.Generator().manual_seed(0)
    return Predictions(*torch.randn(3, 2, 4, 8, 8, generator=generator, dtype=torch.float64))


@pytest.mark.parametrize(("s_T", "s_I", "branch"), [(1, 1, "full"), (0, 1, "image"), (0, 0, "uncond")])
def test_unit_scales_select_one_branch(predictions, s_T, s_I, branch):
    torch.testing.assert_close(guide(predictions, scales(s_T, s_I)), getattr(predictions, branch))


def test_guiding_eps_or_denoised_gives_the_same_image(predictions):
    generator = torch.Generator().manual_seed(1)
    x, sigma = torch.randn(2, 4, 8, 8, generator=generator, dtype=torch.float64), 3.7
    denoised = Predictions(*(x - sigma * eps for eps in predictions))
    torch.testing.assert_close(guide(denoised, GuidanceScales()), x - sigma * guide(predictions, GuidanceScales()))


@pytest.mark.parametrize("s_T", [0.0, 0.5, 1.0, 1.5, 7.5])
@pytest.mark.parametrize("s_I", [0.0, 0.5, 1.0, 1.5, 7.5])
def test_leaving_out_the_branches_of_weight_zero_changes_nothing(predictions, s_T, s_I):
    wanted = guide(predictions, scales(s_T, s_I))
    needed = needed_branches(scales(s_T, s_I))
    torch.testing.assert_close(guide(keep(predictions, needed), scales(s_T, s_I)), wanted)


@pytest.mark.parametrize(
    ("s_T", "s_I", "branches"),
    [
        (7.5, 1.5, (True, True, True)),
        (7.5, 1.0, (True, True, False)),
        (1.5, 1.5, (True, False, True)),
        (1.0, 1.0, (True, False, False)),
        (0.0, 1.5, (False, True, True)),
        (0.0, 1.0, (False, True, False)),
        (0.0, 0.0, (False, False, True)),
        (7.5, 0.5, (True, True, True)),
    ],
)
def test_a_branch_is_needed_exactly_where_its_weight_is_not_zero(s_T, s_I, branches):
    assert needed_branches(scales(s_T, s_I)) == Branches(*branches)


def test_every_needed_branch_is_demanded_by_name(predictions):
    for s_T, s_I in itertools.product((0.0, 1.0, 1.5, 7.5), repeat=2):
        needed = needed_branches(scales(s_T, s_I))
        for name in (name for name in Branches._fields if getattr(needed, name)):
            with pytest.raises(ValueError, match=f"prediction '{name}'"):
                guide(keep(predictions, needed)._replace(**{name: None}), scales(s_T, s_I))


def test_more_image_guidance_moves_away_from_the_unconditional_prediction(predictions):
    weak, strong = (guide(predictions, scales(1.0, s_I)) for s_I in (1.0, 2.0))
    torch.testing.assert_close(strong - weak, predictions.image - predictions.uncond)


def test_scales_that_are_no_numbers_are_refused():
    with pytest.raises(ConfigError, match="text_guidance_scale is nan"):
        scales(float("nan"), 1.5)


def test_outside_its_interval_a_scale_is_one():
    settings = GuidanceSettings(text_interval=(0.0, 0.5), image_interval=(0.25, 0.75))
    seen = [settings.scales_at(step, 8) for step in range(8)]
    assert [one.text_guidance_scale for one in seen] == [7.5] * 4 + [1.0] * 4
    assert [one.image_guidance_scale for one in seen] == [1.0] * 2 + [1.5] * 4 + [1.0] * 2


def test_an_interval_that_ends_at_one_includes_the_last_step():
    settings = GuidanceSettings(text_interval=(0.9, 1.0))
    assert [settings.scales_at(step, 10).text_guidance_scale for step in range(10)] == [1.0] * 9 + [7.5]


@pytest.mark.parametrize("num_steps", [3, 7, 10, 20, 49, 100])
def test_interval_bounds_on_whole_steps_are_hit_exactly(num_steps):
    for start in range(num_steps):
        settings = GuidanceSettings(text_interval=(start / num_steps, (start + 1) / num_steps))
        active = [step for step in range(num_steps) if settings.scales_at(step, num_steps).text_guidance_scale == 7.5]
        assert active == [start]


def test_intervals_save_the_branches_they_switch_off():
    settings = GuidanceSettings(text_interval=(0.0, 0.5), image_interval=(0.25, 0.75))
    counts = [sum(settings.needed_branches(step, 8)) for step in range(8)]
    assert counts == [2, 2, 3, 3, 3, 3, 1, 1]


def test_all_wrong_settings_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        GuidanceSettings(text_interval=(0.6, 0.4), image_interval=(-0.1, 1.0), rescale=1.5)
    assert len(caught.value.mistakes) == 3
    assert all(
        word in str(caught.value) for word in ("text_interval is 0.6 to 0.4", "image_interval", "rescale is 1.5")
    )
