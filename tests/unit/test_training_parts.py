from __future__ import annotations

from collections import Counter

import pytest
import torch
from diffusers import AutoencoderKL
from torch import nn

from ip2p.ip2p_core.errors import ConfigError
from ip2p.ip2p_core.lora_keys import lora_to_kohya
from ip2p.ip2p_core.pair_record import ImageBytes, PairRecord
from ip2p.ip2p_core.sample_order import Visit
from ip2p.ip2p_core.train_job import make_train_config
from ip2p.ip2p_core.triplet import Triplet
from ip2p.trainer.accelerate_adapter import divide
from ip2p.trainer.edit_backend import DiffusersCodec
from ip2p.trainer.training.average import WeightAverage
from ip2p.trainer.training.latents import encode_pairs
from ip2p.trainer.training.optimizer import learning_rate
from ip2p.trainer.training.pictures import CroppedPair, EditPairs, read_wordings

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


def pairs_of(*instructions, wordings):
    handle = ImageBytes(b"")
    records = [
        PairRecord(f"p{i}", 0, Triplet("a", text, "b"), 0, None, None, "rendered", None, handle, handle)
        for i, text in enumerate(instructions)
    ]
    return EditPairs(records, "hash", wordings=wordings)


def test_a_visit_draws_its_instruction_or_another_wording_all_equally_often_whatever_the_other_pairs_are():
    wordings = {"make it red": ["turn it red", "red, please"], "unused": ["never"]}
    pairs = pairs_of("make it red", "leave it", "make it red", wordings=wordings)
    assert pairs.instructions == ["", "make it red", "leave it", "turn it red", "red, please"]
    drawn = Counter(pairs.instructions[pairs.instruction_number(7, Visit(epoch, 2))] for epoch in range(3000))
    assert drawn.keys() == {"make it red", "turn it red", "red, please"}
    assert min(drawn.values()) > 900
    assert {pairs.instruction_number(7, Visit(epoch, 1)) for epoch in range(20)} == {2}
    alone = pairs_of("make it red", wordings=wordings)
    first = [alone.instructions[alone.instruction_number(7, Visit(epoch, 0))] for epoch in range(50)]
    assert first == [pairs.instructions[pairs.instruction_number(7, Visit(epoch, 0))] for epoch in range(50)]


def test_without_other_wordings_every_visit_has_the_instruction_of_its_pair():
    pairs = pairs_of("make it red", "leave it", wordings={})
    assert [pairs.instruction_number(0, Visit(epoch, row)) for epoch in (0, 1) for row in (0, 1)] == [1, 2, 1, 2]


@pytest.mark.parametrize("text", ["", "[]", '{"make it red": "turn it red"}', '{"make it red": [1]}'])
def test_a_file_of_wordings_that_is_none_is_refused_with_its_name(tmp_path, text):
    path = tmp_path / "wordings.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"wordings\.json"):
        read_wordings(path)


def test_equal_pictures_are_encoded_once_and_every_pair_gets_its_own_latents():
    torch.manual_seed(0)
    codec = DiffusersCodec(AutoencoderKL(block_out_channels=(32,), norm_num_groups=8).eval(), 1.0, 1)
    sizes = []
    codec.vae.encoder.register_forward_pre_hook(lambda _module, inputs: sizes.append(len(inputs[0])))
    one, two, three = torch.rand(3, 3, 16, 16) * 2 - 1
    pairs = [CroppedPair(one, two, None), CroppedPair(one, three, None), CroppedPair(three.clone(), one, None), None]
    found = encode_pairs(codec, pairs, (16, 16))
    assert sizes == [4]  # the black one of the pair that could not be read included
    for i, pair in enumerate(pairs[:3]):
        alone = encode_pairs(codec, [pair], (16, 16))
        for name in ("original", "edited_mean", "edited_std"):
            torch.testing.assert_close(getattr(found, name)[i], getattr(alone, name)[0], atol=1e-6, rtol=1e-5)
    assert found.is_usable.tolist() == [True, True, True, False]
    assert not found.original[3].any()
