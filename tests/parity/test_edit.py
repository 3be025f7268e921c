"""The headless edit: one encode however long the chain, a batch equals its single edits, layouts agree, all is loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler, StableDiffusionInstructPix2PixPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from ip2p.ip2p_core.errors import BadInstruction, CheckpointError, ConfigError
from ip2p.ip2p_core.guidance import GuidanceScales, GuidanceSettings
from ip2p.tests import tiny
from ip2p.trainer.diffusers_adapter import choose_device, choose_dtype, load_editor
from ip2p.trainer.edit import default_settings, edit_images, edit_source, encode_source

# raised inside diffusers' schedulers with numpy 2
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
INSTRUCTIONS = ["make it night", "add snow"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny editor with random weights."""
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    tiny.tiny_editor(path, prediction_type="v")
    return path


@pytest.fixture(scope="module")
def editor(path: Path):
    return load_editor(path, device="cpu")


@pytest.fixture
def calls(editor):
    """How many images and rows went through each network."""
    counted = {"encoder": 0, "decoder": 0, "unet": []}

    def count(name: str):
        def hook(_module, arguments, *_rest):
            if name == "unet":
                counted["unet"].append(len(arguments[0]))
            else:
                counted[name] += 1

        return hook

    networks = {"encoder": editor.codec.vae.encoder, "decoder": editor.codec.vae.decoder, "unet": editor.unet}
    handles = [network.register_forward_pre_hook(count(name)) for name, network in networks.items()]
    yield counted
    for handle in handles:
        handle.remove()


def test_a_chain_encodes_once_and_decodes_once(editor, photo, calls):
    settings = default_settings(editor.config)
    source = encode_source(editor, photo, settings)
    edit_source(editor, source, [["make it night"] * 2, ["add snow"] * 2, ["make it red"] * 2], settings)
    assert (calls["encoder"], calls["decoder"]) == (1, 1)
    assert calls["unet"] == [6] * (3 * settings.steps)


@pytest.mark.parametrize(("s_T", "s_I", "num_branches"), [(4, 1.5, 3), (4, 1, 2), (4, 4, 2), (0, 1.5, 2), (1, 1, 1)])
def test_a_step_runs_only_the_branches_it_needs_in_one_forward(editor, photo, calls, s_T, s_I, num_branches):
    scales = GuidanceScales(text_guidance_scale=s_T, image_guidance_scale=s_I)
    settings = replace(default_settings(editor.config), guidance=GuidanceSettings(scales=scales))
    edit_images(editor, photo, INSTRUCTIONS, settings)
    assert calls["unet"] == [2 * num_branches] * settings.steps


def test_an_image_of_a_batch_equals_the_same_image_alone_with_its_own_seed(editor, photo):
    batch = edit_images(editor, photo, INSTRUCTIONS, seed=11).image
    alone = edit_images(editor, photo[1:], INSTRUCTIONS[1:], seed=12).image
    torch.testing.assert_close(batch[1:], alone, atol=1e-5, rtol=0)
    other = edit_images(editor, photo[1:], INSTRUCTIONS[1:], seed=11).image
    assert (other - alone).abs().max() > 0.01


def test_each_image_needs_an_instruction(editor, photo):
    with pytest.raises(BadInstruction, match="3 instructions for 2 images"):
        edit_images(editor, photo, [*INSTRUCTIONS, "and more"])


def test_a_diffusers_folder_and_our_file_of_the_same_weights_give_the_same_picture(tmp_path, photo):
    models = tiny.tiny_editor(tmp_path / "ours.safetensors")
    StableDiffusionInstructPix2PixPipeline(
        vae=models.vae,
        text_encoder=models.text,
        tokenizer=CLIPTokenizer(),
        unet=models.unet,
        scheduler=EulerAncestralDiscreteScheduler(prediction_type="epsilon"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(tmp_path / "folder")
    old = tmp_path / "folder" / "text_encoder" / "model.safetensors"
    ours, folder = (load_editor(tmp_path / name, device="cpu") for name in ("ours.safetensors", "folder"))
    settings = default_settings(ours.config)
    expected = edit_images(ours, photo, INSTRUCTIONS, settings).image
    assert torch.equal(edit_images(folder, photo, INSTRUCTIONS, settings).image, expected)
    prefixed = {f"text_model.{name.removeprefix('text_model.')}": value for name, value in load_file(old).items()}
    save_file(prefixed, old)  # as transformers before version 5 wrote it
    folder = load_editor(tmp_path / "folder", device="cpu")
    assert torch.equal(edit_images(folder, photo, INSTRUCTIONS, settings).image, expected)


def test_every_weight_of_the_networks_comes_from_the_file(path, editor):
    again = load_editor(path, device="cpu")
    for ours, theirs in ((editor.unet, again.unet), (editor.codec.vae, again.codec.vae)):
        for (name, value), other in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
            assert torch.equal(value, other), name
    assert not any(value.is_meta for value in editor.text.encoders[0].state_dict().values())


def test_weights_that_do_not_fit_their_configuration_are_refused(path, tmp_path):
    state = load_file(path)
    state["model.diffusion_model.input_blocks.0.0.bias"] = torch.zeros(7)
    with safe_open(path, "pt") as opened:
        save_file(state, tmp_path / "bad.safetensors", opened.metadata())
    with pytest.raises(CheckpointError, match="do not fit its configuration"):
        load_editor(tmp_path / "bad.safetensors", device="cpu")


def test_unknown_devices_and_number_formats_are_refused():
    with pytest.raises(ConfigError, match="The device 'abacus' is not there"):
        choose_device("abacus")
    with pytest.raises(ConfigError, match="The dtype 'int3' is unknown"):
        choose_dtype("int3", torch.device("cpu"))
