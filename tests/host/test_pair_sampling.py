"""Pairs sampled in the host: against the headless sampler, and what members of a pair share."""

from __future__ import annotations

import pytest
import torch

from ip2p.ip2p_core.errors import ModelMismatch
from ip2p.ip2p_core.local_blend import LocalBlendSettings
from ip2p.ip2p_core.pair_generation import PairSettings, PaperTextSettings, draw_samples
from ip2p.ip2p_core.triplet import Triplet
from ip2p.tests import tiny

TRIPLET = Triplet("a red circle on a white background", "make it blue", "a blue circle on a white background")
SAME = Triplet(TRIPLET.caption, "do nothing", TRIPLET.caption)
SIZE = 64
MODES = {
    "published_code": PairSettings(num_samples=3),
    "shared_original": PairSettings(num_samples=3, edits_per_source=3),
    "replace": PairSettings(num_samples=3, mode="paper_text", paper_text=PaperTextSettings(kind="replace")),
    "refine": PairSettings(
        num_samples=3,
        mode="paper_text",
        paper_text=PaperTextSettings(word_weights=(("blue", 2.5),), max_self_tokens=None),
    ),
    "local_blend": PairSettings(
        num_samples=3,
        mode="paper_text",
        paper_text=PaperTextSettings(
            kind="replace",
            blend_words=(("circle",), ("circle",)),
            blend=LocalBlendSettings(threshold=0.9, map_factor=2),
        ),
    ),
}


@pytest.fixture(scope="module")
def generator_path(comfy):
    path = comfy.models / "ip2p" / "tiny_generator.safetensors"
    tiny.tiny_editor(path, in_channels=4)
    return path


@pytest.fixture(scope="module")
def generator(generator_path):
    from ip2p.nodes.comfy_adapter import loading

    with torch.inference_mode():
        return loading.load(generator_path)


def sample(loaded, settings, triplet=TRIPLET, indices=None, steps=4, sampler_name="euler_ancestral", model=None):
    from ip2p.nodes.comfy_adapter import pair_sampling, sampling

    model = loaded.model if model is None else model
    draws = draw_samples(TRIPLET, settings, 7, indices)
    sigmas = sampling.make_sigmas(model, sampler_name, "normal", steps, 1.0)
    shape = pair_sampling.latent_shape(loaded.vae, SIZE, SIZE)
    return pair_sampling.sample_pairs(
        model, loaded.clip, loaded.vae, draws, triplet, settings, sampler_name=sampler_name, sigmas=sigmas, shape=shape
    )


@pytest.mark.parametrize("mode", MODES)
def test_host_and_headless_make_the_same_pairs(generator, generator_path, mode):
    from ip2p.trainer.diffusers_adapter import load_generator
    from ip2p.trainer.pair_sampler import PairSampling, sample_pairs

    settings = MODES[mode]
    model = load_generator(generator_path, device="cpu", dtype="float32")
    plan = PairSampling(width=SIZE, height=SIZE, steps=4)
    headless = sample_pairs(model, draw_samples(TRIPLET, settings, 7), [TRIPLET] * 3, settings, plan)
    hosted = sample(generator, settings)
    assert (hosted - headless).abs().max() <= 2 / 255
    assert (hosted[0] - hosted[1]).abs().max() > 0.02, "the members of a pair are not told apart"


@pytest.mark.parametrize("mode", MODES)
def test_a_batch_gives_what_its_pairs_give_alone(generator, mode):
    together = sample(generator, MODES[mode])
    alone = torch.cat([sample(generator, MODES[mode], indices=[index]) for index in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)


def test_every_sampler_of_the_host_keeps_the_noise_of_a_pair_equal(generator):
    from ip2p.nodes.comfy_adapter import sampling

    settings = PairSettings(num_samples=1)
    unequal = {}
    for name in sampling.sampler_names():
        pictures = sample(generator, settings, triplet=SAME, sampler_name=name, steps=2)
        difference = float((pictures[::2] - pictures[1::2]).abs().max())
        if difference > 1e-4:
            unequal[name] = difference
    assert unequal == {}


def test_at_p_0_a_pair_is_two_plain_samples_of_one_noise(generator):
    settings = PairSettings(num_samples=2, p2p_range=(0.0, 0.0))
    paired = sample(generator, settings)
    edited_alone = Triplet(TRIPLET.edited_caption, "", TRIPLET.edited_caption)
    torch.testing.assert_close(paired[1::2], sample(generator, settings, triplet=edited_alone)[::2], atol=1e-4, rtol=0)
    shared = sample(generator, PairSettings(num_samples=2, p2p_range=(0.9, 0.9)))
    assert not torch.allclose(paired[1::2], shared[1::2], atol=1e-3)
    torch.testing.assert_close(paired[::2], sample(generator, settings, triplet=SAME)[::2], atol=1e-4, rtol=0)


def test_calls_that_the_host_splits_make_the_same_pairs(generator, monkeypatch):
    import comfy.samplers

    whole = sample(generator, MODES["published_code"])
    monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda *args, **kwargs: 1)
    torch.testing.assert_close(sample(generator, MODES["published_code"]), whole, atol=1e-4, rtol=0)


def test_a_hook_that_changes_nothing_changes_nothing(generator):
    hooked = generator.model.clone()
    hooked.set_model_sampler_post_cfg_function(lambda args: args["denoised"])
    with_hook = sample(generator, MODES["published_code"], model=hooked)
    torch.testing.assert_close(with_hook, sample(generator, MODES["published_code"]), atol=1e-4, rtol=0)


def test_an_editor_is_refused(editor, generator):
    from ip2p.nodes.comfy_adapter.pair_sampling import require_generator

    require_generator(generator.model)
    with pytest.raises(ModelMismatch, match="8 input channels; that is an editor"):
        require_generator(editor.model)
