from __future__ import annotations

import pytest
import torch

from ip2p.ip2p_core.conditioning import Conditioning
from ip2p.ip2p_core.objective import (
    add_noise,
    changed_region,
    edit_loss,
    min_snr_weights,
    prediction_target,
    region_weights,
)
from ip2p.ip2p_core.schedule import make_scaled_linear, output_to_denoised

SCHEDULE = make_scaled_linear()


@pytest.fixture
def drawn() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 3, 4, 8, 8, generator=generator, dtype=torch.float64)
    return latents, noise, torch.tensor([0, 499, 999])


def test_noising_keeps_unit_variance():
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 3, 4, 64, 64, generator=generator)
    noisy = add_noise(latents, noise, torch.tensor([0, 499, 999]), SCHEDULE)
    torch.testing.assert_close(noisy.std(dim=(1, 2, 3)), torch.ones(3), atol=0.03, rtol=0)


@pytest.mark.parametrize("prediction_type", ["eps", "v"])
def test_training_target_and_sampling_are_inverse(drawn, prediction_type):
    latents, noise, t = drawn
    target = prediction_target(latents, noise, t, SCHEDULE, prediction_type)
    sigma = ((1 - SCHEDULE.alphas_cumprod[t]) / SCHEDULE.alphas_cumprod[t]).sqrt().reshape(-1, 1, 1, 1)
    x = add_noise(latents, noise, t, SCHEDULE) * (1 + sigma**2) ** 0.5
    torch.testing.assert_close(output_to_denoised(target, x, sigma, prediction_type), latents)


@pytest.mark.parametrize("prediction_type", ["eps", "v"])
def test_a_perfect_network_has_no_loss_and_a_constant_error_has_its_square(drawn, prediction_type):
    latents, noise, t = drawn
    conditioning = Conditioning(torch.ones_like(latents), torch.zeros(3, 2, 5))
    target = prediction_target(latents, noise, t, SCHEDULE, prediction_type)
    options = {"schedule": SCHEDULE, "prediction_type": prediction_type}
    assert edit_loss(lambda *_: target, latents, conditioning, t, noise, **options) < 1e-12
    loss = edit_loss(lambda *_: target + 0.5, latents, conditioning, t, noise, **options)
    torch.testing.assert_close(loss, torch.tensor(0.25, dtype=torch.float64), atol=1e-6, rtol=0)


def test_the_network_sees_noisy_latents_first_and_the_image_second(drawn):
    latents, noise, t = drawn
    conditioning = Conditioning(torch.full_like(latents, 7.0), torch.full((3, 2, 5), 9.0, dtype=torch.float64))
    seen = []
    edit_loss(lambda *given: seen.append(given) or latents, latents, conditioning, t, noise, schedule=SCHEDULE)
    x, seen_t, embeds = seen[0]
    assert torch.equal(x[:, :4], add_noise(latents, noise, t, SCHEDULE))
    assert torch.equal(x[:, 4:], conditioning.image_latents)
    assert torch.equal(seen_t, t)
    assert torch.equal(embeds, conditioning.text_embeds)


def test_an_item_marked_as_a_start_shows_the_network_nothing_of_its_latents_but_is_judged_by_them(drawn):
    latents, noise, t = drawn
    conditioning = Conditioning(torch.zeros_like(latents), torch.zeros(3, 2, 5))
    starts, seen = torch.tensor([False, False, True]), []
    loss = edit_loss(
        lambda x, *_: seen.append(x) or torch.zeros_like(latents),
        latents,
        conditioning,
        t,
        noise,
        schedule=SCHEDULE,
        prediction_type="v",
        starts=starts,
    )
    assert torch.equal(seen[0][:2, :4], add_noise(latents, noise, t, SCHEDULE)[:2])
    torch.testing.assert_close(seen[0][2, :4], (1 - SCHEDULE.alphas_cumprod[999]).sqrt().to(noise.dtype) * noise[2])
    target = prediction_target(latents, noise, t, SCHEDULE, "v")
    torch.testing.assert_close(loss, target.square().mean())


def test_weights_of_one_leave_the_loss_as_it_is_and_weights_count_places():
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 2, 4, 8, 8, generator=generator)
    conditioning = Conditioning(torch.zeros_like(latents), torch.zeros(2, 1, 1))
    t = torch.tensor([100, 900])

    def loss(weights):
        unet = lambda x, t, text: torch.zeros_like(noise)  # noqa: E731
        return edit_loss(unet, latents, conditioning, t, noise, schedule=SCHEDULE, weights=weights)

    torch.testing.assert_close(loss(torch.ones(2, 1, 8, 8)), loss(None))
    left = torch.zeros(2, 1, 8, 8)
    left[..., :4] = 2
    torch.testing.assert_close(loss(left), noise[..., :4].square().mean())


def test_min_snr_weighs_eps_and_v_as_the_same_loss_of_the_clean_latents():
    """An error of the clean latents costs min(SNR, gamma) of its square, whatever the network predicts."""
    t = torch.tensor([0, 300, 999])
    snr = SCHEDULE.alphas_cumprod[t] / (1 - SCHEDULE.alphas_cumprod[t])
    of_eps, of_v = (min_snr_weights(t, 5.0, SCHEDULE, kind).flatten() for kind in ("eps", "v"))
    torch.testing.assert_close(of_eps * snr, snr.clamp(max=5))
    torch.testing.assert_close(of_v * (snr + 1), snr.clamp(max=5))


def test_a_region_gets_its_share_of_the_loss_however_small_it_is():
    region = torch.zeros(2, 1, 10, 10)
    region[0, :, :2, :5], region[1, :, :8] = 1, 1
    weights = region_weights(region, 0.25)
    torch.testing.assert_close(weights.mean((1, 2, 3)), torch.ones(2))
    inside = (weights * region).sum((1, 2, 3)) / weights.sum((1, 2, 3))
    torch.testing.assert_close(inside, 0.25 + 0.75 * region.mean((1, 2, 3)))


def test_a_cell_has_changed_where_its_latents_differ_clearly():
    original = torch.zeros(1, 4, 2, 2)
    edited = original.clone()
    edited[..., 0, 0], edited[..., 1, 1] = 1.0, 0.1
    assert changed_region(original, edited, spread=2.0).flatten().tolist() == [1, 0, 0, 0]
