from __future__ import annotations

import pytest
import torch

from ip2p.ip2p_core.conditioning import Conditioning
from ip2p.ip2p_core.objective import add_noise, edit_loss, prediction_target
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
    torch.testing.assert_close(loss, target.square().mean().float())


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
