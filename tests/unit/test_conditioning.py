from __future__ import annotations

import pytest
import torch

from ip2p.ip2p_core.conditioning import Conditioning, drop_conditioning


def batch(num: int) -> tuple[Conditioning, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    image_latents = torch.rand(num, 4, 2, 2, generator=generator) + 1.0
    text_embeds = torch.rand(num, 3, 5, generator=generator) + 1.0
    return Conditioning(image_latents, text_embeds), torch.full((1, 3, 5), -1.0)


@pytest.mark.parametrize(
    ("u", "is_text_dropped", "is_image_dropped"),
    [
        (0.0, True, False),
        (0.049, True, False),
        (0.051, True, True),
        (0.099, True, True),
        (0.101, False, True),
        (0.149, False, True),
        (0.151, False, False),
        (0.999, False, False),
    ],
)
def test_each_draw_has_its_case(u, is_text_dropped, is_image_dropped):
    given, null = batch(1)
    kept = drop_conditioning(given, null, torch.tensor([u]))
    assert torch.equal(kept.text_embeds, null if is_text_dropped else given.text_embeds)
    assert torch.equal(
        kept.image_latents, torch.zeros_like(given.image_latents) if is_image_dropped else given.image_latents
    )


def test_the_three_cases_have_five_percent_each_exactly():
    num = 2000
    given, null = batch(num)
    kept = drop_conditioning(given, null, (torch.arange(num) + 0.5) / num)
    no_text = (kept.text_embeds == -1).all(dim=(1, 2))
    no_image = (kept.image_latents == 0).all(dim=(1, 2, 3))
    counts = [int(one.sum()) for one in (no_text & ~no_image, no_text & no_image, ~no_text & no_image)]
    assert counts == [100, 100, 100]


def test_the_same_rule_as_the_original_training_code():
    # ddpm_edit.py: prompt_mask = random < 2 p; input_mask = 1 - (random >= p) * (random < 3 p)
    given, null = batch(500)
    u = torch.rand(500, generator=torch.Generator().manual_seed(1))
    kept = drop_conditioning(given, null, u, p=0.2)
    prompt_mask = (u < 2 * 0.2)[:, None, None]
    input_mask = 1 - (u >= 0.2).float() * (u < 3 * 0.2).float()
    assert torch.equal(kept.text_embeds, torch.where(prompt_mask, null, given.text_embeds))
    assert torch.equal(kept.image_latents, input_mask[:, None, None, None] * given.image_latents)


def test_probabilities_that_do_not_fit_are_refused():
    given, null = batch(1)
    with pytest.raises(ValueError, match=r"p is 0\.5"):
        drop_conditioning(given, null, torch.tensor([0.5]), p=0.5)
