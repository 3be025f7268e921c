from __future__ import annotations

import pytest
import torch
from torch import nn

from ip2p.ip2p_core.lora_keys import lora_to_kohya
from ip2p.ip2p_core.train_job import make_train_config
from ip2p.trainer.accelerate_adapter import divide
from ip2p.trainer.training.average import WeightAverage
from ip2p.trainer.training.optimizer import learning_rate

NEEDED = {"dataset": "pairs", "base": "sd", "output": "run", "steps": 100, "learning_rate": 0.5}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_average_follows_its_formula_in_double_precision(dtype):
    weight = nn.Parameter(torch.ones(5, dtype=dtype))
    average, reference = WeightAverage([("w", weight)], 0.99), torch.ones(5, dtype=torch.float64)
    random = torch.Generator().manual_seed(0)
    for step in range(1, 301):
        with torch.no_grad():
            weight.copy_(torch.randn(5, generator=random))
        decay = min(0.99, (1 + step) / (10 + step))
        reference = reference + (1 - decay) * (weight.detach().double() - reference)
        average.update(step)
    assert average.values["w"].dtype == torch.float32
    torch.testing.assert_close(average.values["w"].double(), reference, atol=1e-6, rtol=1e-5)


def test_at_the_decay_of_the_paper_the_average_moves_even_for_weights_in_half_precision():
    weight = nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
    average = WeightAverage([("w", weight)], 0.9999)
    with torch.no_grad():
        weight.fill_(1.0)
    for step in range(100_000, 101_000):
        average.update(step)
    assert float(average.values["w"]) == pytest.approx(1 - 0.9999**1000, rel=1e-3)


def test_without_a_decay_there_is_no_average():
    average = WeightAverage([("w", nn.Parameter(torch.ones(1)))], 0.0)
    average.update(1)
    assert average.values == {}


@pytest.mark.parametrize(
    ("changes", "rates"),
    [
        ({}, {0: 0.5, 50: 0.5, 99: 0.5}),
        ({"lr_warmup_steps": 10}, {0: 0.05, 9: 0.5, 10: 0.5, 99: 0.5}),
        ({"lr_schedule": "linear"}, {0: 0.5, 50: 0.255, 100: 0.01}),
        ({"lr_schedule": "cosine", "lr_warmup_steps": 20}, {19: 0.5, 20: 0.5, 60: 0.255, 100: 0.01}),
    ],
)
def test_the_learning_rate_warms_up_and_falls_as_it_is_set(changes, rates):
    config = make_train_config({**NEEDED, **changes})
    for step, rate in rates.items():
        assert learning_rate(step, config) == pytest.approx(rate)


def test_adapters_are_named_as_lora_loaders_expect():
    adapters = {
        "mid_block.attentions.0.proj_in.lora_A": torch.ones(4, 8),
        "mid_block.attentions.0.proj_in.lora_B": torch.ones(8, 4),
        "conv_in.weight": torch.full((2, 8, 3, 3), 3.0),
        "conv_in.bias": torch.full((2,), 2.0),
    }
    base = {"conv_in.weight": torch.ones(2, 8, 3, 3), "conv_in.bias": torch.ones(2)}
    named = lora_to_kohya(adapters, base, alpha=4)
    stem = "lora_unet_mid_block_attentions_0_proj_in"
    ours = {f"{stem}.lora_down.weight", f"{stem}.lora_up.weight", f"{stem}.alpha"}
    assert set(named) == ours | {"lora_unet_conv_in.diff", "lora_unet_conv_in.diff_b"}
    assert float(named[f"{stem}.alpha"]) == 4
    assert bool((named["lora_unet_conv_in.diff"] == 2).all())
    assert bool((named["lora_unet_conv_in.diff_b"] == 1).all())


def test_a_restored_moment_lies_in_memory_as_its_weight_does():
    """The fused optimizer walks both side by side in memory."""
    weight = nn.Parameter(torch.randn(4, 8, 3, 3).to(memory_format=torch.channels_last))
    moment = torch.randn(4, 8, 3, 3)
    restored = divide(moment, weight)
    assert restored.stride() == weight.stride()
    assert torch.equal(restored, moment)
