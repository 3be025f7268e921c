"""Our edit equals diffusers' StableDiffusionXLInstructPix2PixPipeline, SDXL and CosXL, on tiny weights."""

from __future__ import annotations

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    StableDiffusionXLInstructPix2PixPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from ip2p.ip2p_core.checkpoint import ModelParts
from ip2p.ip2p_core.guidance import GuidanceScales, GuidanceSettings
from ip2p.ip2p_core.model_config import ModelConfig
from ip2p.ip2p_core.sampling import sample_euler
from ip2p.ip2p_core.schedule import make_sigmas
from ip2p.tests import tiny
from ip2p.tests.parity.conftest import reference_tokenizer, relative_error
from ip2p.trainer.diffusers_adapter import build_editor
from ip2p.trainer.edit import EditSettings, encode_source, guided_denoiser

# raised inside diffusers' schedulers with numpy 2
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
STEPS = 10
INSTRUCTIONS = ["make it black and white", "add a 🎆 to the sky"]
SCALES = GuidanceScales(text_guidance_scale=5.0, image_guidance_scale=1.6)
TEXT_2 = tiny.text_config(hidden_size=32, num_attention_heads=4, projection_dim=24, hidden_act="gelu", pad_token_id=0)
UNET = tiny.unet_config(
    cross_attention_dim=tiny.TEXT_WIDTH + 32,
    attention_head_dim=[2, 4, 4],
    transformer_layers_per_block=[1, 1, 2],
    use_linear_projection=True,
    addition_embed_type="text_time",
    addition_time_embed_dim=8,
    projection_class_embeddings_input_dim=6 * 8 + 24,
)


class Parts:
    """The networks of a tiny SDXL editor, seeded."""

    def __init__(self, is_cosxl: bool) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.unet = UNet2DConditionModel(**UNET).eval()
            self.vae = AutoencoderKL(**tiny.vae_config()).eval()
            self.text = CLIPTextModel(CLIPTextConfig(**tiny.text_config())).eval()
            self.text_2 = CLIPTextModelWithProjection(CLIPTextConfig(**TEXT_2)).eval()
        self.config = ModelConfig(
            unet=UNET,
            vae=tiny.vae_config(),
            text_encoder=tiny.text_config(),
            text_encoder_2=TEXT_2,
            prediction_type="v" if is_cosxl else "eps",
            image_latent_scale="scaled" if is_cosxl else "none",
            size_multiple=16,
        )

    def editor(self):
        states = (part.state_dict() for part in (self.unet, self.vae, self.text, self.text_2))
        return build_editor(ModelParts(*states), self.config, torch.float32, torch.device("cpu"))

    def pipeline(self, tokenizer, scheduler, is_cosxl: bool):
        pipeline = StableDiffusionXLInstructPix2PixPipeline(
            vae=self.vae,
            text_encoder=self.text,
            text_encoder_2=self.text_2,
            tokenizer=tokenizer,
            tokenizer_2=reference_tokenizer(pad_token="!"),  # noqa: S106 - a token of the vocabulary
            unet=self.unet,
            scheduler=scheduler,
            force_zeros_for_empty_prompt=False,
            add_watermarker=False,
            is_cosxl_edit=is_cosxl,
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


@torch.inference_mode()
@pytest.mark.parametrize(
    ("is_cosxl", "rescale"), [(False, 0.0), (False, 0.7), (True, 0.0)], ids=["sdxl", "rescale", "cosxl"]
)
def test_an_edit_equals_the_diffusers_pipeline(tokenizer, photo, is_cosxl, rescale):
    parts = Parts(is_cosxl)
    editor = parts.editor()
    settings = EditSettings(
        guidance=GuidanceSettings(scales=SCALES, rescale=rescale), steps=STEPS, working_resolution=64
    )
    if is_cosxl:
        scheduler = EDMEulerScheduler(
            sigma_min=0.002,
            sigma_max=120.0,
            sigma_data=1.0,
            sigma_schedule="exponential",
            prediction_type="v_prediction",
        )
    else:
        scheduler = EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="linspace"
        )
    scheduler.set_timesteps(STEPS)
    sigmas = make_sigmas("normal", editor.schedule, STEPS)
    torch.testing.assert_close(sigmas, scheduler.sigmas.float(), rtol=1e-4, atol=1e-6)
    x = torch.randn(2, 4, 12, 16, generator=torch.Generator().manual_seed(1)) * (1 + sigmas[0] ** 2) ** 0.5
    source = encode_source(editor, photo, settings)
    latents = sample_euler(guided_denoiser(editor, source.image_latents, INSTRUCTIONS, settings), x, sigmas)
    expected = parts.pipeline(tokenizer, scheduler, is_cosxl)(
        prompt=INSTRUCTIONS,
        negative_prompt=[""] * 2,
        image=photo.movedim(-1, 1),
        height=48,
        width=64,
        num_inference_steps=STEPS,
        guidance_scale=SCALES.text_guidance_scale,
        image_guidance_scale=SCALES.image_guidance_scale,
        guidance_rescale=rescale,
        latents=x / scheduler.init_noise_sigma,
        output_type="latent",
    ).images
    assert relative_error(latents, expected) <= 1e-4
