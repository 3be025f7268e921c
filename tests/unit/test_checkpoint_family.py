"""Full-size models on torch's meta device: names and shapes without weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from ip2p.ip2p_core import checkpoint
from ip2p.ip2p_core.checkpoint import ModelParts, RawCheckpoint, join_parts, read_checkpoint
from ip2p.ip2p_core.checkpoint_layout import family_of
from ip2p.ip2p_core.errors import CheckpointError, ModelMismatch
from ip2p.ip2p_core.model_config import family_config
from ip2p.tests.tiny import text_config, tiny_editor, tiny_models

V_PROBE = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"


def shapes(state):
    return {name.removeprefix("text_model."): value.shape for name, value in state.items()}


def full_size_parts(config) -> ModelParts:
    with torch.device("meta"):
        text_2 = None
        if config.text_encoder_2:
            text_2 = CLIPTextModelWithProjection(CLIPTextConfig(**config.text_encoder_2)).state_dict()
        return ModelParts(
            UNet2DConditionModel.from_config(config.unet).state_dict(),
            AutoencoderKL.from_config(config.vae).state_dict(),
            CLIPTextModel(CLIPTextConfig(**config.text_encoder)).state_dict(),
            text_2,
        )


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl", "cosxl"])
@pytest.mark.parametrize("in_channels", [4, 8])
def test_a_single_file_without_description_is_recognised_by_its_shapes(family, in_channels):
    config = family_config(family, in_channels)
    parts = full_size_parts(config)
    state = join_parts(parts, config, family)
    if family == "sd2":
        state[V_PROBE] = torch.zeros(320)
    if family == "cosxl":
        state["edm_vpred.sigma_max"] = torch.tensor(120.0)
    raw = checkpoint._recognise(Path("model.safetensors"), state)
    assert (raw.family, raw.layout, raw.config) == (family, "ldm", config)
    assert raw.config.kind == ("editor" if in_channels == 8 else "generator")
    again = raw.parts()
    assert all(shapes(one or {}) == shapes(other or {}) for one, other in zip(again, parts, strict=True))
    assert family_of(config) == family


def test_an_sd2_model_that_predicts_v_is_told_by_the_hosts_rule():
    config = family_config("sd2", 8)
    state = join_parts(full_size_parts(config), config, "sd2")
    state[V_PROBE] = torch.linspace(-1, 1, 320)
    assert checkpoint._recognise(Path("model.safetensors"), state).config.prediction_type == "v"


def test_a_known_family_with_a_missing_weight_is_refused():
    config = family_config("sd1", 8)
    state = join_parts(full_size_parts(config), config, "sd1")
    del state["cond_stage_model.transformer.text_model.final_layer_norm.bias"]
    with pytest.raises(CheckpointError, match=r"text encoder lacks the weight 'final_layer_norm\.bias'"):
        RawCheckpoint(state, config, "ldm", "sd1").parts()


def test_a_tiny_model_with_two_text_encoders_keeps_both():
    models = tiny_models()
    second_config = text_config(num_hidden_layers=3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        second = CLIPTextModelWithProjection(CLIPTextConfig(**second_config)).state_dict()
    config = replace(models.config, text_encoder_2=second_config)
    given = ModelParts(models.unet.state_dict(), models.vae.state_dict(), models.text.state_dict(), second)
    parts = RawCheckpoint(join_parts(given, config, "tiny"), config, "ip2p", "tiny").parts()
    wanted = {name.removeprefix("text_model."): value for name, value in second.items()}
    assert parts.text_2.keys() == wanted.keys()
    assert all(torch.equal(parts.text_2[name], value) for name, value in wanted.items())


def test_an_inpainting_model_is_refused_with_its_channels(tmp_path):
    tiny_editor(tmp_path / "inpaint.safetensors", in_channels=9)
    with pytest.raises(ModelMismatch, match=r"inpaint\.safetensors has 9 input channels; editors .* have 8"):
        read_checkpoint(tmp_path / "inpaint.safetensors")
