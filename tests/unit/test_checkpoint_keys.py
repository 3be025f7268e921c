from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from ip2p.ip2p_core.checkpoint_keys import (
    text_from_ldm,
    text_to_ldm,
    unet_from_ldm,
    unet_key_map,
    unet_to_ldm,
    vae_from_ldm,
    vae_key_map,
    vae_to_ldm,
    widen_conv_in,
)
from ip2p.ip2p_core.checkpoint_text_keys import text_from_open_clip, text_to_open_clip
from ip2p.ip2p_core.errors import CheckpointError
from ip2p.ip2p_core.model_config import family_config
from ip2p.tests.tiny import text_config, unet_config, vae_config

TINY_XL = unet_config(
    layers_per_block=2,
    transformer_layers_per_block=[1, 2, 3],
    attention_head_dim=[2, 4, 8],
    use_linear_projection=True,
    addition_embed_type="text_time",
    addition_time_embed_dim=8,
    projection_class_embeddings_input_dim=80,
)
UNETS = {
    "tiny": unet_config(),
    "tiny generator": unet_config(in_channels=4),
    "tiny as trained": unet_config(block_out_channels=[64, 64, 96]),
    "tiny SD1": unet_config(
        layers_per_block=2,
        block_out_channels=[32, 64, 64, 64],
        down_block_types=[*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
        up_block_types=["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
    ),
    "tiny SD2": unet_config(use_linear_projection=True, attention_head_dim=[2, 4, 4]),
    "tiny XL": TINY_XL,
    "uneven": unet_config(layers_per_block=[1, 3, 2], block_out_channels=[32, 64, 64]),
}
VAES = {"tiny": vae_config(), "factor 8": vae_config(factor=8, layers_per_block=2), "factor 2": vae_config(factor=2)}


def build(model: type, config: dict[str, Any]) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return dict(model(**config).state_dict())


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert set(one) == set(other)
    assert all(one[name].shape == value.shape and torch.equal(one[name], value) for name, value in other.items())


@pytest.mark.parametrize("config", UNETS.values(), ids=UNETS)
def test_unet_names_are_complete_and_inverse(config):
    state = build(UNet2DConditionModel, config)
    original = unet_to_ldm(state, config)
    assert len(original) == len(state)
    assert_same(unet_from_ldm(original, config), state)


@pytest.mark.parametrize("config", VAES.values(), ids=VAES)
def test_autoencoder_names_are_complete_and_inverse(config):
    state = build(AutoencoderKL, config)
    original = vae_to_ldm(state, config)
    assert original["decoder.mid.attn_1.q.weight"].ndim == 4
    assert_same(vae_from_ldm(original, config), state)


def test_an_autoencoder_keeps_old_files_with_linear_attention():
    state = build(AutoencoderKL, VAES["tiny"])
    original = vae_to_ldm(state, VAES["tiny"])
    name = "encoder.mid.attn_1.q.weight"
    assert_same(vae_from_ldm(original | {name: original[name].squeeze()}, VAES["tiny"]), state)


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_full_size_families_have_the_names_and_shapes_of_diffusers(family):
    config = family_config(family, in_channels=8)
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config.unet).state_dict()
        vae = AutoencoderKL.from_config(config.vae).state_dict()
        text = CLIPTextModel(CLIPTextConfig(**config.text_encoder)).state_dict()
    assert unet_key_map(config.unet).keys() == unet.keys()
    assert vae_key_map(config.vae).keys() == vae.keys()
    assert text_to_ldm(text, config.text_encoder).keys() == text.keys()
    again = unet_from_ldm(unet_to_ldm(unet, config.unet), config.unet)
    assert {name: value.shape for name, value in again.items()} == {name: value.shape for name, value in unet.items()}


def test_known_names_of_the_original_checkpoints():
    sd1, xl = family_config("sd1", 8).unet, family_config("sdxl", 8).unet
    names = unet_key_map(sd1)
    assert len(names) == 686
    assert names["down_blocks.0.downsamplers.0.conv.weight"] == "input_blocks.3.0.op.weight"
    assert names["down_blocks.1.attentions.0.proj_in.weight"] == "input_blocks.4.1.proj_in.weight"
    assert names["up_blocks.0.upsamplers.0.conv.weight"] == "output_blocks.2.1.conv.weight"
    assert names["up_blocks.1.upsamplers.0.conv.weight"] == "output_blocks.5.2.conv.weight"
    assert names["up_blocks.3.resnets.2.conv_shortcut.weight"] == "output_blocks.11.0.skip_connection.weight"
    assert names["mid_block.resnets.1.conv2.weight"] == "middle_block.2.out_layers.3.weight"
    names = unet_key_map(xl)
    assert len(names) == 1680
    assert names["add_embedding.linear_2.weight"] == "label_emb.0.2.weight"
    assert (
        names["mid_block.attentions.0.transformer_blocks.9.norm1.weight"]
        == "middle_block.1.transformer_blocks.9.norm1.weight"
    )
    names = vae_key_map(family_config("sd1", 8).vae)
    assert len(names) == 248
    assert names["decoder.up_blocks.0.resnets.0.conv1.weight"] == "decoder.up.3.block.0.conv1.weight"
    assert names["encoder.down_blocks.1.resnets.0.conv_shortcut.weight"] == "encoder.down.1.block.0.nin_shortcut.weight"


@pytest.mark.parametrize("has_prefix", [False, True])
def test_text_names_with_and_without_prefix_are_the_same_encoder(has_prefix):
    state = build(CLIPTextModel, {"config": CLIPTextConfig(**text_config(vocab_size=49408))})
    prefix = "text_model." if has_prefix else ""
    stored = {prefix + name: value for name, value in state.items()}
    stored[prefix + "embeddings.position_ids"] = torch.arange(77)[None]
    assert_same(text_from_ldm(text_to_ldm(stored, text_config()), text_config()), state)


@pytest.mark.parametrize("has_projection", [False, True])
def test_open_clip_names_are_complete_and_inverse(has_projection):
    config = text_config(num_hidden_layers=3)
    model = CLIPTextModelWithProjection if has_projection else CLIPTextModel
    state = {
        name.removeprefix("text_model."): value
        for name, value in build(model, {"config": CLIPTextConfig(**config)}).items()
    }
    original = text_to_open_clip(state, config)
    assert original["transformer.resblocks.0.attn.in_proj_weight"].shape == (120, 40)
    stored = original | {"logit_scale": torch.tensor(1.0)}
    assert_same(text_from_open_clip(stored, config, has_projection=has_projection), state)


def test_the_unused_last_layer_of_sd2_is_left_out():
    whole, used = text_config(num_hidden_layers=3), text_config(num_hidden_layers=2)
    state = build(CLIPTextModel, {"config": CLIPTextConfig(**whole)})
    converted = text_from_open_clip(text_to_open_clip(state, whole), used, has_projection=False)
    assert_same(converted, {name: value for name, value in state.items() if ".layers.2." not in name})


def test_a_missing_and_a_left_over_weight_are_named():
    state = build(UNet2DConditionModel, UNETS["tiny"])
    shorter = {name: value for name, value in state.items() if name != "conv_out.bias"}
    with pytest.raises(CheckpointError, match=r"U-Net lacks the weight 'conv_out\.bias' \(1 of"):
        unet_to_ldm(shorter, UNETS["tiny"])
    with pytest.raises(CheckpointError, match="U-Net has the weight 'extra'"):
        unet_to_ldm(state | {"extra": torch.zeros(1)}, UNETS["tiny"])
    with pytest.raises(CheckpointError, match=r"autoencoder lacks the weight 'quant_conv\.weight'"):
        vae_from_ldm({}, VAES["tiny"])
    with pytest.raises(CheckpointError, match=r"text encoder lacks the weight 'token_embedding\.weight'"):
        text_from_open_clip({}, text_config(), has_projection=False)


def test_an_unknown_architecture_is_refused_by_name():
    config = unet_config(down_block_types=["DownBlock2D", "AttnDownBlock2D", "DownBlock2D"])
    with pytest.raises(CheckpointError, match="blocks of type AttnDownBlock2D"):
        unet_key_map(config)


def test_projections_take_the_form_that_the_configuration_asks_for():
    state = build(UNet2DConditionModel, UNETS["tiny SD2"])
    original = unet_to_ldm(state, UNETS["tiny SD2"])
    name = "middle_block.1.proj_in.weight"
    assert_same(unet_from_ldm(original | {name: original[name][:, :, None, None]}, UNETS["tiny SD2"]), state)


def test_widened_conv_in_starts_as_the_same_network():
    config = UNETS["tiny generator"]
    state = build(UNet2DConditionModel, config)
    wide_state = dict(state)
    wide_state["conv_in.weight"], wide_state["conv_in.bias"] = widen_conv_in(
        state["conv_in.weight"], state["conv_in.bias"]
    )
    narrow, wide = UNet2DConditionModel(**config).eval(), UNet2DConditionModel(**UNETS["tiny"]).eval()
    narrow.load_state_dict(state)
    wide.load_state_dict(wide_state)
    generator = torch.Generator().manual_seed(0)
    x, image_latents = torch.randn(2, 2, 4, 16, 16, generator=generator)
    text = torch.randn(2, 77, 40, generator=generator)
    with torch.inference_mode():
        wanted = narrow(x, 500, text).sample
        got = wide(torch.cat([x, image_latents], dim=1), 500, text).sample
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="8 input channels already"):
        widen_conv_in(wide_state["conv_in.weight"], wide_state["conv_in.bias"], 4)
