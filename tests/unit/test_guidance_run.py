from __future__ import annotations

import pytest
import torch

from ip2p.ip2p_core.guidance import (
    ApgSettings,
    DualGuidance,
    GuidanceScales,
    GuidanceSettings,
    Predictions,
    guide,
    project,
)

SIGMA = 3.7


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture
def denoised() -> Predictions:
    generator = torch.Generator().manual_seed(0)
    return Predictions(*torch.randn(3, 2, 4, 8, 8, generator=generator, dtype=torch.float64))


def test_without_extras_a_run_is_equation_3(denoised, x):
    run = DualGuidance(GuidanceSettings(), num_steps=4)
    assert torch.equal(run.combine(denoised, x, SIGMA, 0), guide(denoised, GuidanceScales()))


def test_full_rescale_gives_eps_the_deviation_of_the_full_prediction(denoised, x):
    guided = DualGuidance(GuidanceSettings(rescale=1.0), 4).combine(denoised, x, SIGMA, 0)
    dims = (1, 2, 3)
    wanted = ((x - denoised.full) / SIGMA).std(dim=dims)
    torch.testing.assert_close(((x - guided) / SIGMA).std(dim=dims), wanted)


def test_rescale_interpolates_between_plain_and_full(denoised, x):
    plain, half, full = (
        DualGuidance(GuidanceSettings(rescale=share), 4).combine(denoised, x, SIGMA, 0) for share in (0.0, 0.5, 1.0)
    )
    torch.testing.assert_close(half, (plain + full) / 2)


def test_rescale_takes_one_sigma_per_item(denoised, x):
    run = DualGuidance(GuidanceSettings(rescale=0.7), 4)
    per_item = run.combine(denoised, x, torch.tensor([SIGMA, SIGMA], dtype=torch.float64), 0)
    torch.testing.assert_close(per_item, run.combine(denoised, x, SIGMA, 0))


def test_apg_that_keeps_everything_is_equation_3(denoised, x):
    guided = DualGuidance(GuidanceSettings(apg=ApgSettings(eta=1.0)), 4).combine(denoised, x, SIGMA, 0)
    torch.testing.assert_close(guided, guide(denoised, GuidanceScales()))


def test_apg_without_the_parallel_part_adds_nothing_along_the_prediction(denoised, x):
    guided = DualGuidance(GuidanceSettings(apg=ApgSettings(eta=0.0)), 4).combine(denoised, x, SIGMA, 0)
    added = guided - denoised.full
    along = (added * denoised.full).sum(dim=(1, 2, 3))
    torch.testing.assert_close(along, torch.zeros_like(along), atol=1e-9, rtol=0)
    assert added.abs().max() > 0.1


def test_the_norm_limit_shortens_long_directions_and_leaves_short_ones(denoised):
    direction = denoised.image
    length = torch.linalg.vector_norm(direction, dim=(1, 2, 3))
    short = project(direction, denoised.full, ApgSettings(eta=1.0, norm_threshold=2.0))
    torch.testing.assert_close(torch.linalg.vector_norm(short, dim=(1, 2, 3)), torch.full_like(length, 2.0))
    loose = ApgSettings(eta=1.0, norm_threshold=float(length.max()) + 1.0)
    torch.testing.assert_close(project(direction, denoised.full, loose), direction)


def test_momentum_sums_the_directions_of_earlier_steps(denoised, x):
    apg = ApgSettings(eta=1.0, momentum=-0.5)
    run = DualGuidance(
        GuidanceSettings(apg=apg, scales=GuidanceScales(text_guidance_scale=3, image_guidance_scale=1)), 4
    )
    first = run.combine(denoised, x, SIGMA, 0) - denoised.full
    second = run.combine(denoised, x, SIGMA, 1) - denoised.full
    torch.testing.assert_close(second, 0.5 * first)


def test_a_new_run_starts_without_momentum(denoised, x):
    settings = GuidanceSettings(apg=ApgSettings(momentum=0.5))
    run = DualGuidance(settings, 4)
    first = run.combine(denoised, x, SIGMA, 0)
    assert not torch.equal(run.combine(denoised, x, SIGMA, 1), first)
    assert torch.equal(DualGuidance(settings, 4).combine(denoised, x, SIGMA, 0), first)


@pytest.mark.parametrize("settings", [GuidanceSettings(rescale=0.5), GuidanceSettings(apg=ApgSettings())])
def test_a_step_runs_on_exactly_the_branches_it_asks_for(denoised, x, settings):
    for s_T, s_I in ((7.5, 1.5), (7.5, 1.0), (1.5, 1.5), (1.0, 1.0), (0.0, 1.5)):
        own = GuidanceSettings(
            scales=GuidanceScales(text_guidance_scale=s_T, image_guidance_scale=s_I),
            rescale=settings.rescale,
            apg=settings.apg,
        )
        needed = own.needed_branches(0, 4)
        given = Predictions(*(one if is_kept else None for one, is_kept in zip(denoised, needed, strict=True)))
        wanted = DualGuidance(own, 4).combine(denoised, x, SIGMA, 0)
        torch.testing.assert_close(DualGuidance(own, 4).combine(given, x, SIGMA, 0), wanted)


def test_a_missing_branch_is_named(denoised, x):
    run = DualGuidance(GuidanceSettings(apg=ApgSettings()), 4)
    with pytest.raises(ValueError, match="'uncond'"):
        run.combine(denoised._replace(uncond=None), x, SIGMA, 0)
