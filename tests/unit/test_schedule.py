from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ip2p.ip2p_core.errors import ConfigError
from ip2p.ip2p_core.schedule import (
    SCHEDULERS,
    denoised_to_eps,
    denoised_to_v,
    eps_to_denoised,
    is_full_denoise,
    make_scaled_linear,
    make_sigmas,
    output_to_denoised,
    scale_model_input,
    v_to_denoised,
)

COMFY = json.loads((Path(__file__).parent / "data" / "comfy_sigmas.json").read_text())
SCHEDULE = make_scaled_linear()


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("steps", [1, 2, 7, 20, 100])
def test_noise_levels_equal_comfyui_up_to_the_last_bit_that_processors_round_differently(name, steps):
    wanted = torch.tensor(COMFY[name][str(steps)])
    torch.testing.assert_close(make_sigmas(name, SCHEDULE, steps), wanted, rtol=3e-7, atol=0)


def test_quantized_t_is_the_step_that_comfyui_feeds():
    for sigma, t in COMFY["timestep"].items():
        assert int(SCHEDULE.sigma_to_t(torch.tensor(float(sigma)), is_quantized=True)) == t


@pytest.mark.parametrize("name", SCHEDULERS)
def test_noise_levels_decrease_to_zero(name):
    sigmas = make_sigmas(name, SCHEDULE, 20)
    assert sigmas.shape == (21,)
    assert (sigmas.diff() < 0).all()
    assert sigmas[-1] == 0


def test_a_partial_run_is_the_end_of_a_longer_one():
    partial = make_sigmas("normal", SCHEDULE, 10, denoise=0.5)
    assert torch.equal(partial, make_sigmas("normal", SCHEDULE, 20)[-11:])
    assert not is_full_denoise(float(partial[0]), SCHEDULE)
    assert is_full_denoise(float(make_sigmas("normal", SCHEDULE, 20)[0]), SCHEDULE)


def test_t_and_sigma_are_inverse_between_the_whole_steps_too():
    t = torch.tensor([0.0, 0.25, 17.5, 500.0, 998.75, 999.0])
    torch.testing.assert_close(SCHEDULE.sigma_to_t(SCHEDULE.t_to_sigma(t)), t, atol=2e-3, rtol=0)


def test_sigma_is_the_noise_to_signal_ratio_of_training():
    alphas = SCHEDULE.alphas_cumprod
    torch.testing.assert_close(SCHEDULE.sigmas.double() ** 2, (1 - alphas) / alphas, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("there", "back"), [(eps_to_denoised, denoised_to_eps), (v_to_denoised, denoised_to_v)])
def test_predictions_turn_into_denoised_and_back(there, back):
    generator = torch.Generator().manual_seed(0)
    prediction, x = torch.randn(2, 1, 4, 8, 8, generator=generator, dtype=torch.float64)
    for sigma in torch.tensor([0.03, 1.0, 14.6], dtype=torch.float64):
        torch.testing.assert_close(back(there(prediction, x, sigma), x, sigma), prediction)


@pytest.mark.parametrize("prediction_type", ["eps", "v"])
def test_a_perfect_network_gives_the_clean_latents(prediction_type):
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 1, 4, 8, 8, generator=generator, dtype=torch.float64)
    sigma = torch.tensor(2.5, dtype=torch.float64)
    signal, spread = 1 / (1 + sigma**2) ** 0.5, sigma / (1 + sigma**2) ** 0.5
    output = noise if prediction_type == "eps" else signal * noise - spread * latents
    x = latents + sigma * noise
    torch.testing.assert_close(output_to_denoised(output, x, sigma, prediction_type), latents)
    torch.testing.assert_close(scale_model_input(x, sigma), signal * latents + spread * noise)


def test_all_wrong_settings_are_named_at_once():
    with pytest.raises(ConfigError, match=r"'fancy'.*normal.*steps is 0.*denoise is 0"):
        make_sigmas("fancy", SCHEDULE, 0, denoise=0.0)
