"""Our edit equals diffusers' StableDiffusionInstructPix2PixPipeline on the same weights, noise and noise levels.

The number of steps divides 999, so that diffusers' evenly spaced time steps are whole numbers; both start from one x.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler, EulerDiscreteScheduler, StableDiffusionInstructPix2PixPipeline

from ip2p.ip2p_core.checkpoint import ModelParts
from ip2p.ip2p_core.guidance import GuidanceScales, GuidanceSettings
from ip2p.ip2p_core.sampling import sample_euler, sample_euler_ancestral
from ip2p.ip2p_core.schedule import make_sigmas
from ip2p.tests import tiny
from ip2p.tests.parity.conftest import relative_error
from ip2p.trainer.diffusers_adapter import build_editor
from ip2p.trainer.edit import EditSettings, encode_source, finish_edit, guided_denoiser

# raised inside diffusers' schedulers with numpy 2
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
STEPS = 10
NOISE_SEED = 5
INSTRUCTIONS = ["make it black and white", "add a 🎆 to the sky"]
SETTINGS = EditSettings(
    guidance=GuidanceSettings(scales=GuidanceScales(text_guidance_scale=5.0, image_guidance_scale=1.6)),
    steps=STEPS,
    working_resolution=64,
)
PREDICTION_TYPES = {"eps": "epsilon", "v": "v_prediction"}


def build(prediction_type: str) -> tuple[tiny.TinyModels, object]:
    models = tiny.tiny_models(prediction_type=prediction_type)
    parts = ModelParts(models.unet.state_dict(), models.vae.state_dict(), models.text.state_dict())
    return models, build_editor(parts, models.config, torch.float32, torch.device("cpu"))


def noises() -> Iterator[torch.Tensor]:
    """The draws of diffusers' ancestral scheduler with this generator."""
    generator = torch.Generator().manual_seed(NOISE_SEED)
    while True:
        yield torch.randn(2, 4, 12, 16, generator=generator)


def reference(models, tokenizer, scheduler, photo, x, **options):
    pipeline = StableDiffusionInstructPix2PixPipeline(
        vae=models.vae,
        text_encoder=models.text,
        tokenizer=tokenizer,
        unet=models.unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    scheduler.set_timesteps(STEPS)
    result = pipeline(
        prompt=INSTRUCTIONS,
        image=photo.movedim(-1, 1),
        num_inference_steps=STEPS,
        guidance_scale=SETTINGS.guidance.scales.text_guidance_scale,
        image_guidance_scale=SETTINGS.guidance.scales.image_guidance_scale,
        latents=x / scheduler.init_noise_sigma,
        generator=torch.Generator().manual_seed(NOISE_SEED),
        **options,
    )
    return result.images


def scheduler_of(kind: type, prediction_type: str):
    return kind(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="linspace",
        prediction_type=PREDICTION_TYPES[prediction_type],
    )


@torch.inference_mode()
@pytest.mark.parametrize("prediction_type", ["eps", "v"])
@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral"])
def test_an_edit_equals_the_diffusers_pipeline(tokenizer, photo, sampler, prediction_type):
    models, editor = build(prediction_type)
    sigmas = make_sigmas("normal", editor.schedule, STEPS)
    x = torch.randn(2, 4, 12, 16, generator=torch.Generator().manual_seed(1)) * (1 + sigmas[0] ** 2) ** 0.5
    source = encode_source(editor, photo, SETTINGS)
    denoise = guided_denoiser(editor, source.image_latents, INSTRUCTIONS, SETTINGS)
    if sampler == "euler":
        latents = sample_euler(denoise, x, sigmas)
    else:
        draws = noises()
        latents = sample_euler_ancestral(denoise, x, sigmas, noise_sampler=lambda *_: next(draws))
    kind = EulerDiscreteScheduler if sampler == "euler" else EulerAncestralDiscreteScheduler
    scheduler = scheduler_of(kind, prediction_type)
    expected = reference(models, tokenizer, scheduler, photo, x, output_type="latent")
    assert relative_error(latents, expected) <= 1e-4
    pictures = finish_edit(editor, source, latents, SETTINGS).image
    scheduler = scheduler_of(kind, prediction_type)
    expected_pictures = reference(models, tokenizer, scheduler, photo, x, output_type="pt")
    assert relative_error(pictures, expected_pictures.movedim(1, -1)) <= 1e-4
    assert expected_pictures.std() > 0.01
