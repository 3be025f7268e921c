from __future__ import annotations

import pytest
import torch

from ip2p.ip2p_core.errors import ConfigError, NonFiniteLatents
from ip2p.ip2p_core.sampling import (
    SAMPLERS,
    ancestral_step,
    require_finite,
    sample,
    sample_dpmpp_2m,
    sample_euler,
    sample_euler_ancestral,
    start_sample,
)
from ip2p.ip2p_core.schedule import make_scaled_linear, make_sigmas

SPREAD = 0.5  # of the data in the exact example below


def exact_denoiser(x, sigma, step):
    """The best denoiser of data that is normal with mean 0: its sampling has a closed form."""
    return x * SPREAD**2 / (SPREAD**2 + sigma**2)


def exact_end(x, levels):
    return x * ((SPREAD**2 + levels[-1] ** 2) / (SPREAD**2 + levels[0] ** 2)) ** 0.5


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 14.6


def sigmas(steps: int) -> torch.Tensor:
    return make_sigmas("karras", make_scaled_linear(), steps).double()


def no_noise(sigma, sigma_next):
    raise AssertionError("this sampler draws no noise")


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_lands_on_a_constant_prediction(x, name):
    target = torch.full_like(x, 0.3)
    end = sample(name, lambda x, sigma, step: target, x, sigmas(7), noise_sampler=lambda *_: torch.ones_like(x))
    torch.testing.assert_close(end, target)


@pytest.mark.parametrize(("sampler", "order"), [(sample_euler, 1), (sample_dpmpp_2m, 2)])
def test_doubling_the_steps_shrinks_the_error_by_the_order_of_the_sampler(x, sampler, order):
    errors = []
    for steps in (50, 100):
        levels = sigmas(steps)[:-1]  # the last step, to 0, is of first order in every sampler
        errors.append((sampler(exact_denoiser, x, levels) - exact_end(x, levels)).abs().max())
    assert errors[0] / errors[1] > 2**order * 0.85
    assert errors[1] < 0.05 * exact_end(x, sigmas(50)).abs().max()


def test_ancestral_sampling_without_fresh_noise_is_euler(x):
    euler = sample_euler(exact_denoiser, x, sigmas(9))
    torch.testing.assert_close(
        sample_euler_ancestral(exact_denoiser, x, sigmas(9), noise_sampler=no_noise, eta=0.0), euler
    )


def test_the_parts_of_an_ancestral_step_add_up_to_the_next_level():
    for sigma, sigma_next in zip(sigmas(9)[:-1], sigmas(9)[1:], strict=True):
        down, up = ancestral_step(sigma, sigma_next)
        torch.testing.assert_close(down**2 + up**2, sigma_next**2)


def test_the_noise_of_an_ancestral_step_comes_from_the_argument_alone(x):
    calls = []

    def noise_sampler(sigma, sigma_next):
        calls.append((float(sigma), float(sigma_next)))
        return torch.zeros_like(x)

    sample_euler_ancestral(exact_denoiser, x, sigmas(3), noise_sampler=noise_sampler)
    levels = sigmas(3).tolist()
    assert calls == [(levels[0], levels[1]), (levels[1], levels[2])]


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_step_is_reported_once_with_its_denoised_estimate(x, name):
    seen = []
    sample(
        name,
        lambda x, sigma, step: torch.full_like(x, step),
        x,
        sigmas(4),
        noise_sampler=lambda *_: torch.zeros_like(x),
        callback=lambda step, denoised: seen.append((step, float(denoised.mean()))),
    )
    assert seen == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 3.0)]


def test_a_full_run_starts_from_unit_variance_noise_and_a_partial_one_from_the_image(x):
    noise, latents, sigma = x / 14.6, torch.ones_like(x), torch.tensor(3.0, dtype=torch.float64)
    full = start_sample(noise, sigma, is_full_denoise=True, latents=latents)
    torch.testing.assert_close(full / (1 + sigma**2) ** 0.5, noise)
    partial = start_sample(noise, sigma, is_full_denoise=False, latents=latents)
    torch.testing.assert_close(partial - sigma * noise, latents)
    with pytest.raises(ValueError, match="needs the latents"):
        start_sample(noise, sigma, is_full_denoise=False)


def test_latents_that_are_no_numbers_are_named(x):
    with pytest.raises(NonFiniteLatents, match=r"sampler 'euler' contain NaN or infinity \(512 of 512 values\)"):
        sample("euler", lambda x, sigma, step: x * float("nan"), x, sigmas(3), noise_sampler=no_noise)
    assert require_finite(x, "the test") is x


def test_an_unknown_sampler_is_refused_with_the_known_ones(x):
    with pytest.raises(ConfigError, match=r"'heun' is unknown; choose one of euler, euler_ancestral, dpmpp_2m"):
        sample("heun", exact_denoiser, x, sigmas(3), noise_sampler=no_noise)
