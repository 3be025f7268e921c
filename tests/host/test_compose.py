"""LoRA and ControlNet of the host together with our guider, and the checks of the wiring."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from ip2p.ip2p_core.errors import BadImageSize, BadInstruction, ConfigError, ModelMismatch
from ip2p.tests import tiny
from ip2p.tests.host.test_edit import INSTRUCTION, edit
from ip2p.tests.host.test_guider import count_forwards, our_guider, relative, sample_with


@pytest.fixture
def conditioned(editor, photo):
    from ip2p.nodes import edit_steps

    return edit_steps.condition(editor.clip, editor.vae, photo[:1], INSTRUCTION)


def lora_file(path):
    """A LoRA with kohya's names: one attention matrix of rank 2, and the whole difference of the 8-channel conv_in."""
    generator = torch.Generator().manual_seed(1)
    name = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
    state = {
        f"{name}.lora_up.weight": torch.randn(32, 2, generator=generator) * 0.3,
        f"{name}.lora_down.weight": torch.randn(2, 40, generator=generator) * 0.3,
        f"{name}.alpha": torch.tensor(2.0),
        "diffusion_model.input_blocks.0.0.diff": torch.randn(32, 8, 3, 3, generator=generator) * 0.05,
    }
    save_file(state, path)
    return state


def test_a_lora_is_the_same_as_its_weights_added_to_the_model(comfy, editor, photo, caplog, tmp_path):
    from ip2p.nodes.comfy_adapter import loading

    state = lora_file(comfy.models / "loras" / "style.safetensors")
    with_lora, clip = comfy.nodes.LoraLoader().load_lora(editor.model, editor.clip, "style.safetensors", 1.0, 1.0)
    assert "NOT LOADED" not in caplog.text
    plain, _ = edit(editor, photo[:1])
    styled, _ = edit(editor._replace(model=with_lora, clip=clip), photo[:1])
    after, _ = edit(editor, photo[:1])
    assert torch.equal(plain, after)

    models = tiny.tiny_editor(tmp_path / "plain.safetensors", prediction_type="v")
    up, down, _, difference = state.values()
    models.unet.conv_in.weight.add_(difference)
    models.unet.down_blocks[1].attentions[0].transformer_blocks[0].attn2.to_k.weight.add_(up @ down)
    parts = [part.state_dict() for part in (models.unet, models.vae, models.text)]
    tiny.write_checkpoint(tmp_path / "merged.safetensors", *parts, models.config, torch.float32)
    merged, _ = edit(loading.load(tmp_path / "merged.safetensors"), photo[:1])
    torch.testing.assert_close(styled, merged, rtol=0, atol=1e-4)
    assert (styled - plain).abs().max() > 1e-2


def control_of(strength):
    import comfy.controlnet

    class Shift(comfy.controlnet.ControlBase):
        """Adds a constant to the middle block."""

        def __init__(self):
            super().__init__()
            self.calls = []

        def get_control(self, x_noisy, t, cond, batched_number, transformer_options):
            self.calls.append(batched_number)
            height, width = x_noisy.shape[-2] // 4, x_noisy.shape[-1] // 4
            shift = torch.full((x_noisy.shape[0], 64, height, width), strength)
            return {"input": [], "middle": [shift], "output": []}

        def copy(self):
            return self

        def get_models(self):
            return []

        def pre_run(self, model, percent_to_timestep_function):
            pass

        def cleanup(self):
            pass

    return Shift()


def with_control(conditioning, control, apply_to_uncond):
    return [[c[0], {**c[1], "control": control, "control_apply_to_uncond": apply_to_uncond}] for c in conditioning]


def test_a_controlnet_on_full_reaches_all_branches_in_one_forward(editor, conditioned):
    control = control_of(0.5)
    model, seen = count_forwards(editor.model)
    controlled = conditioned._replace(full=with_control(conditioned.full, control, True))
    plain = sample_with(our_guider(editor.model, conditioned, 7.5, 1.5), conditioned.latent)
    result = sample_with(our_guider(model, controlled, 7.5, 1.5), conditioned.latent)
    assert control.calls == [3] * 4
    assert seen == [3] * 4
    assert relative(result, plain) > 1e-3


def test_a_controlnet_on_one_branch_alone_works_too(editor, conditioned):
    control = control_of(0.5)
    controlled = conditioned._replace(full=with_control(conditioned.full, control, False))
    result = sample_with(our_guider(editor.model, controlled, 7.5, 1.5), conditioned.latent)
    assert control.calls == [1] * 4
    assert torch.isfinite(result).all()


def test_a_conditioning_on_the_wrong_socket_is_refused(editor, conditioned):
    with pytest.raises(ConfigError, match='The conditioning on "image" is "uncond"; "image" is needed'):
        our_guider(editor.model, conditioned._replace(image=conditioned.uncond), 7.5, 1.5)
    with pytest.raises(ConfigError, match='The conditioning on "full" is "image"'):
        our_guider(editor.model, conditioned._replace(full=conditioned.image), 7.5, 1.5)


def test_image_latents_on_uncond_are_refused_even_without_a_role(editor, conditioned):
    untagged = [[c[0], {k: v for k, v in c[1].items() if k != "ip2p_role"}] for c in conditioned.image]
    with pytest.raises(ConfigError, match='"uncond" holds image latents'):
        our_guider(editor.model, conditioned._replace(uncond=untagged), 7.5, 1.5)


def test_a_lost_role_is_a_warning(editor, conditioned, caplog):
    untagged = [[c[0], {k: v for k, v in c[1].items() if k != "ip2p_role"}] for c in conditioned.full]
    our_guider(editor.model, conditioned._replace(full=untagged), 7.5, 1.5)
    assert 'The conditioning on "full" has lost its role' in caplog.text


def test_a_conditioning_for_some_steps_is_a_warning(comfy, editor, conditioned, caplog):
    (ranged,) = comfy.nodes.ConditioningSetTimestepRange().set_range(conditioned.full, 0.0, 0.5)
    our_guider(editor.model, conditioned._replace(full=ranged), 7.5, 1.5)
    assert "limited to part of the steps" in caplog.text


def test_the_dual_model_refuses_uncond_as_negative(comfy, editor, conditioned):
    from ip2p.nodes.edit import DualCFGModel

    dual = DualCFGModel.execute(editor.model, 1.5).args[0]
    with pytest.raises(ConfigError, match='"negative of the sampler" is "uncond"; "image" is needed'):
        comfy.nodes.common_ksampler(
            dual, 0, 1, 7.5, "euler", "normal", conditioned.full, conditioned.uncond, conditioned.latent
        )


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"instruction": " \n "}, BadInstruction, "The instruction is empty"),
        ({"instruction": "a\nb"}, BadInstruction, "There are 2 lines of instruction for 3 images"),
        ({"mask": torch.ones(1, 9, 9)}, BadImageSize, "one mask, or one per image"),
        ({"sampler_name": "no such"}, ConfigError, 'The sampler "no such" is unknown'),
    ],
)
def test_a_wrong_input_gets_one_sentence(editor, photo, options, error, message):
    with pytest.raises(error, match=message) as refusal:
        edit(editor, photo, **{"instruction": INSTRUCTION, **options})
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("socket", ["clip", "vae"])
def test_a_missing_part_of_the_model_is_named(editor, photo, socket):
    with pytest.raises(ModelMismatch, match=f'on "{socket}"'):
        edit(editor._replace(**{socket: None}), photo[:1])


def test_an_interval_that_ends_before_it_starts_is_refused(editor, conditioned):
    with pytest.raises(ConfigError, match="0 <= start <= end <= 1"):
        our_guider(editor.model, conditioned, 7.5, 1.5, text_start=0.8, text_end=0.2)
