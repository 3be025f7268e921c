from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from ip2p.ip2p_core.randomness import StepNoise, generator, hash64, start_noise

SHAPE = (4, 8, 6)


def test_the_hash_never_changes():
    # written down once: datasets and sidecars depend on it
    assert hash64(0) == 12068483300135759374
    assert hash64(7, "ancestral", 3) == 8094386577524049366
    assert hash64("né", b"\x00", 0.5) == 13276459582290722851


def test_the_hash_is_the_same_in_another_process():
    code = "from ip2p.ip2p_core.randomness import hash64; print(hash64('noise', 1, 2.5, b'x'))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(other.stdout) == hash64("noise", 1, 2.5, b"x")


@pytest.mark.parametrize(
    ("one", "other"),
    [(("ab", "c"), ("a", "bc")), ((1, 2), (2, 1)), ((1,), ("1",)), ((1,), (1.0,)), ((1, 2), (12,)), (("a",), (b"a",))],
)
def test_type_order_and_boundaries_of_the_parts_count(one, other):
    assert hash64(*one) != hash64(*other)


def test_the_hash_fills_64_bits():
    values = [hash64(i) for i in range(2000)]
    assert len(set(values)) == 2000
    for bit in range(64):
        assert 800 < sum(value >> bit & 1 for value in values) < 1200


def test_purposes_are_independent():
    drawn = [torch.randn(1000, generator=generator(1, purpose)) for purpose in ("noise", "crop")]
    assert abs(torch.corrcoef(torch.stack(drawn))[0, 1]) < 0.1


def test_item_i_has_the_noise_of_seed_plus_i():
    batch = start_noise(5, 3, SHAPE)
    for i in range(3):
        assert torch.equal(batch[i : i + 1], start_noise(5 + i, 1, SHAPE))


def test_the_first_item_has_the_noise_that_the_host_draws():
    # comfy.sample.prepare_noise: generator = torch.manual_seed(seed); torch.randn([1, C, H, W], generator=generator)
    host = torch.randn((1, *SHAPE), generator=torch.Generator("cpu").manual_seed(11))
    assert torch.equal(start_noise(11, 1, SHAPE), host)


@pytest.mark.parametrize("seed", [0, 2**63, 2**64 - 1])
def test_the_whole_range_of_seeds_works(seed):
    noise = start_noise(seed, 2, SHAPE)
    assert torch.isfinite(noise).all()
    assert torch.equal(noise[1:], start_noise((seed + 1) % 2**64, 1, SHAPE))
    assert torch.equal(StepNoise(seed, 2, SHAPE)(1, 0)[1:], StepNoise((seed + 1) % 2**64, 1, SHAPE)(1, 0))


def test_fresh_noise_of_an_item_depends_on_its_seed_and_step_alone():
    batch, alone = StepNoise(5, 3, SHAPE), StepNoise(7, 1, SHAPE)
    for step in range(3):
        assert torch.equal(batch(10.0 - step, 9.0 - step)[2:], alone(1.0, 0.5)), step


def test_fresh_noise_differs_between_steps_items_and_the_start():
    noise = StepNoise(5, 2, SHAPE)
    first, second = noise(2, 1), noise(1, 0)
    drawn = [*first, *second, *start_noise(5, 2, SHAPE)]
    assert all(not torch.equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])


def test_drawing_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    start_noise(5, 2, SHAPE)
    StepNoise(5, 2, SHAPE)(2, 1)
    assert torch.equal(torch.get_rng_state(), before)
