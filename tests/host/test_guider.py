"""The guider against the host's own dual guidance, and under the hooks of other nodes."""

from __future__ import annotations

import pytest
import torch

INSTRUCTION = "make it black and white"


@pytest.fixture
def conditioned(editor, photo):
    from ip2p.nodes import edit_steps

    return edit_steps.condition(editor.clip, editor.vae, photo[:1], INSTRUCTION)


def sample_with(guider, latent, sampler_name="euler", steps=4, seed=11):
    """What SamplerCustomAdvanced does with RandomNoise, KSamplerSelect and BasicScheduler."""
    import comfy.sample
    import comfy.samplers

    sigmas = comfy.samplers.calculate_sigmas(guider.model_patcher.get_model_object("model_sampling"), "normal", steps)
    noise, sampler = comfy.sample.prepare_noise(latent["samples"], seed), comfy.samplers.sampler_object(sampler_name)
    return guider.sample(noise, latent["samples"], sampler, sigmas, disable_pbar=True, seed=seed)


def our_guider(model, conditioned, text_scale, image_scale, **options):
    from ip2p.nodes.edit import InstructGuider

    return InstructGuider.execute(
        model, conditioned.full, conditioned.image, conditioned.uncond, text_scale, image_scale, **options
    ).args[0]


def host_guider(model, conditioned, text_scale, image_scale):
    from comfy_extras.nodes_custom_sampler import Guider_DualCFG

    guider = Guider_DualCFG(model)
    guider.set_conds(conditioned.full, conditioned.image, conditioned.uncond)
    guider.set_cfg(text_scale, image_scale)
    return guider


def zero_latent(conditioned):
    return {"samples": torch.zeros_like(conditioned.latent["samples"])}


def relative(a, b):
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("scales", [(7.5, 1.5), (3.0, 0.5), (1.2, 2.0), (0.5, 1.7)])
def test_without_hooks_the_guider_equals_the_hosts_dual_guider_bit_for_bit(editor, conditioned, scales):
    ours = sample_with(our_guider(editor.model, conditioned, *scales), conditioned.latent)
    theirs = sample_with(host_guider(editor.model, conditioned, *scales), zero_latent(conditioned))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("scales", [(7.5, 1.0), (1.0, 1.0), (1.0, 1.5), (1.5, 1.5), (0.0, 1.5)])
def test_where_a_branch_is_left_out_the_guider_still_equals_the_hosts(editor, conditioned, scales):
    ours = sample_with(our_guider(editor.model, conditioned, *scales), conditioned.latent)
    theirs = sample_with(host_guider(editor.model, conditioned, *scales), zero_latent(conditioned))
    assert relative(ours, theirs) < 1e-5


def count_forwards(model):
    """A clone of the model that notes which branches each forward has."""
    from comfy.patcher_extension import WrappersMP

    seen = []

    def note(executor, x, t, *args, **kwargs):
        seen.append(len(kwargs.get("transformer_options", args[-1] if args else {})["cond_or_uncond"]))
        return executor(x, t, *args, **kwargs)

    counted = model.clone()
    counted.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "count", note)
    return counted, seen


@pytest.mark.parametrize(
    ("scales", "branches"), [((7.5, 1.5), 3), ((7.5, 1.0), 2), ((1.5, 1.5), 2), ((1.0, 1.0), 1), ((0.0, 1.5), 2)]
)
def test_only_the_branches_with_a_weight_are_computed(editor, conditioned, scales, branches):
    model, seen = count_forwards(editor.model)
    sample_with(our_guider(model, conditioned, *scales), conditioned.latent)
    assert seen == [branches] * 4


@pytest.mark.parametrize(("scales", "rows"), [((7.5, 1.5), 3), ((7.5, 1.0), 1), ((1.5, 1.5), 2)])
def test_two_branches_with_one_picture_go_together_up_to_the_text(editor, conditioned, scales, rows):
    entrance, seen = editor.model.model.diffusion_model.input_blocks[0][0], []
    forward = entrance.forward
    entrance.forward = lambda x: seen.append(len(x)) or forward(x)
    try:
        sample_with(our_guider(editor.model, conditioned, *scales), conditioned.latent)
    finally:
        del entrance.forward
    assert seen == [rows] * 4
    assert not entrance._forward_hooks
    assert not editor.model.model.diffusion_model._forward_pre_hooks


def test_intervals_leave_branches_out_step_by_step(editor, conditioned):
    model, seen = count_forwards(editor.model)
    guider = our_guider(model, conditioned, 7.5, 1.5, text_end=0.5, image_start=0.25, image_end=0.75)
    sample_with(guider, conditioned.latent, steps=8)
    assert seen == [2, 2, 3, 3, 3, 3, 1, 1]


@pytest.mark.parametrize(
    "scales", [(7.5, 1.5), (1.05, 2.0), (0.95, 1.5), (3.0, 1.0), (1.0, 1.5), (1.0, 1.0), (0.0, 2.0)]
)
def test_a_hook_that_changes_nothing_changes_nothing(editor, conditioned, scales):
    hooked = editor.model.clone()
    hooked.set_model_sampler_cfg_function(
        lambda args: args["uncond"] + (args["cond"] - args["uncond"]) * args["cond_scale"]
    )
    hooked.set_model_sampler_post_cfg_function(lambda args: args["denoised"])
    hooked.set_model_sampler_pre_cfg_function(lambda args: args["conds_out"])
    with_hooks = sample_with(our_guider(hooked, conditioned, *scales), conditioned.latent)
    without = sample_with(our_guider(editor.model, conditioned, *scales), conditioned.latent)
    assert relative(with_hooks, without) < 1e-5


def test_rescale_cfg_of_the_host_acts_on_both_guidances(editor, conditioned):
    """With RescaleCFG the result is rescaled as a whole; the host's own dual guider lets it see one guidance only."""
    from comfy_extras.nodes_model_advanced import RescaleCFG

    (rescaled,) = RescaleCFG().patch(editor.model, 1.0)
    strong = (9.0, 3.0)
    plain = sample_with(our_guider(editor.model, conditioned, *strong), conditioned.latent)
    ours = sample_with(our_guider(rescaled, conditioned, *strong), conditioned.latent)
    theirs = sample_with(host_guider(rescaled, conditioned, *strong), zero_latent(conditioned))
    assert ours.std() < 0.95 * plain.std()
    assert torch.isfinite(ours).all()
    assert relative(ours, theirs) > 1e-3


def test_a_post_cfg_hook_sees_the_guided_prediction(editor, conditioned):
    seen = []
    hooked = editor.model.clone()
    hooked.set_model_sampler_post_cfg_function(lambda args: seen.append(args) or args["denoised"])
    sample_with(our_guider(hooked, conditioned, 7.5, 1.5), conditioned.latent, steps=1)
    args = seen[0]
    rebuilt = args["uncond_denoised"] + 7.5 * (args["cond_denoised"] - args["uncond_denoised"])
    assert args["cond_scale"] == 7.5
    torch.testing.assert_close(rebuilt, args["denoised"], rtol=1e-5, atol=1e-5)


def test_a_cfg_plus_plus_sampler_runs(editor, conditioned):
    result = sample_with(our_guider(editor.model, conditioned, 1.5, 1.2), conditioned.latent, "euler_cfg_pp")
    assert torch.isfinite(result).all()


def test_a_guider_can_be_used_twice(editor, conditioned):
    guider = our_guider(editor.model, conditioned, 7.5, 1.5, apg=True, apg_momentum=-0.5, rescale=0.3)
    assert torch.equal(sample_with(guider, conditioned.latent), sample_with(guider, conditioned.latent))


def test_apg_that_keeps_everything_is_plain_guidance(editor, conditioned):
    plain = sample_with(our_guider(editor.model, conditioned, 5.0, 1.5), conditioned.latent)
    apg = sample_with(our_guider(editor.model, conditioned, 5.0, 1.5, apg=True, apg_eta=1.0), conditioned.latent)
    assert relative(apg, plain) < 1e-5


def test_a_negative_scale_takes_the_models_own(editor, conditioned):
    guider = our_guider(editor.model, conditioned, -1.0, -1.0)
    assert guider.settings.scales.text_guidance_scale == 4.0
    assert guider.settings.scales.image_guidance_scale == 1.5


def test_the_models_own_values_survive_a_clone(editor):
    from ip2p.nodes.comfy_adapter import settings

    assert settings.attached(editor.model.clone().clone()).default_steps == 4
    assert settings.attached(editor.clip.clone()).working_resolution == 64


@pytest.mark.parametrize("scales", [(7.5, 1.5), (1.0, 1.5), (7.5, 1.0), (2.0, 2.0), (1.0, 1.0)])
def test_a_plain_ksampler_gets_the_same_guidance_from_the_dual_model(comfy, editor, conditioned, scales):
    from ip2p.nodes.edit import DualCFGModel

    dual = DualCFGModel.execute(editor.model, scales[1]).args[0]
    plain = comfy.nodes.common_ksampler(
        dual, 11, 4, scales[0], "euler", "normal", conditioned.full, conditioned.image, conditioned.latent
    )[0]["samples"]
    ours = sample_with(our_guider(editor.model, conditioned, *scales), conditioned.latent)
    assert relative(plain, ours) < 1e-5


def test_the_dual_model_leaves_the_given_model_alone(editor):
    from ip2p.nodes.edit import DualCFGModel

    before = {kind: dict(keys) for kind, keys in editor.model.wrappers.items()}
    DualCFGModel.execute(editor.model, 1.5)
    assert {kind: dict(keys) for kind, keys in editor.model.wrappers.items()} == before
