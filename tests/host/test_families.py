"""The full-size families without their memory: names, shapes and classes as the host and diffusers have them."""

from __future__ import annotations

import pytest
import torch

from ip2p.ip2p_core.errors import ModelMismatch


def meta_checkpoint(family):
    """A full-size checkpoint of a family without memory: names and shapes as diffusers makes them."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    from ip2p.ip2p_core.checkpoint import RawCheckpoint
    from ip2p.ip2p_core.checkpoint_layout import ModelParts, join_parts
    from ip2p.ip2p_core.model_config import family_config

    config = family_config(family, 8)
    with torch.device("meta"):
        unet, vae = UNet2DConditionModel(**config.unet), AutoencoderKL(**config.vae)
        text = CLIPTextModel(CLIPTextConfig(**config.text_encoder))
        second = config.text_encoder_2 and CLIPTextModelWithProjection(CLIPTextConfig(**config.text_encoder_2))
    parts = ModelParts(unet.state_dict(), vae.state_dict(), text.state_dict(), second.state_dict() if second else None)
    state = join_parts(parts, config, family)
    if family == "cosxl":
        state["edm_vpred.sigma_max"] = torch.tensor(120.0)
    return RawCheckpoint(state, config, "ldm", family)


FAMILIES = {
    "sd1": ("SD15_instructpix2pix", "EPS", 0.18215, 1.0),
    "sd2": ("SD15_instructpix2pix", "EPS", 0.18215, 1.0),
    "sdxl": ("SDXL_instructpix2pix", "EPS", 0.13025, 1.0),
    "cosxl": ("SDXL_instructpix2pix", "V_PREDICTION_EDM", 0.13025, 0.13025),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_full_size_networks_fit_their_weights(comfy, family):
    from ip2p.nodes.comfy_adapter import loading

    raw = meta_checkpoint(family)
    host_config = loading._host_config(raw)
    host_config.set_inference_dtype(torch.float16, None)
    model = loading._make_network(raw, host_config, torch.device("meta"))
    wanted = {loading.UNET_PREFIX + name: value.shape for name, value in model.diffusion_model.state_dict().items()}
    assert wanted == {name: w.shape for name, w in raw.state.items() if name.startswith(loading.UNET_PREFIX)}
    name, model_type, scale, image_scale = FAMILIES[family]
    assert (type(model).__name__, model.model_type.name) == (name, model_type)
    assert model.latent_format.scale_factor == scale
    assert float(model.process_ip2p_image_in(torch.ones(1))) == pytest.approx(image_scale)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_full_size_text_encoders_fit_their_weights(comfy, family):
    from ip2p.nodes.comfy_adapter import loading_clip

    raw = meta_checkpoint(family)
    target, names = loading_clip._target(raw)
    options = loading_clip._model_options(raw, names)
    model = target.clip(device="meta", dtype=torch.float16, model_options=options)
    held = {name: value.shape for name, value in model.state_dict().items()}
    given = {name: value.shape for name, value in loading_clip._weights(raw, names).items()}
    assert given.items() <= held.items()
    assert all(name.endswith(loading_clip.MADE_BY_HOST) for name in set(held) - set(given))


def test_an_inpainting_model_of_another_loader_does_not_edit(comfy):
    """The host's own loader opens such models; here its network without weights, which is all that is looked at."""
    import comfy.model_base
    import comfy.model_patcher

    from ip2p.nodes.comfy_adapter import loading
    from ip2p.nodes.edit import DualCFGModel

    host_config = loading._host_config(meta_checkpoint("sd1"))
    host_config.unet_config["in_channels"] = 9
    model = comfy.model_base.BaseModel(host_config, device=torch.device("meta"))
    patcher = comfy.model_patcher.ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))
    with pytest.raises(ModelMismatch, match="The model has 9 input channels; InstructPix2Pix needs 8"):
        DualCFGModel.execute(patcher, 1.5)
