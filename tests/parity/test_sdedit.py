"""Our SDEdit equals diffusers' img2img on the same weights, latents, noise and noise levels.

The number of steps divides 999, so that diffusers' evenly spaced time steps are whole numbers.
"""

from __future__ import annotations

import pytest
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionImg2ImgPipeline

from ip2p.ip2p_core.checkpoint import ModelParts
from ip2p.tests import tiny
from ip2p.tests.parity.conftest import relative_error
from ip2p.trainer.baselines.sdedit import SDEditSettings, sdedit
from ip2p.trainer.diffusers_adapter import build_editor

# raised inside diffusers' schedulers with numpy 2
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
CAPTION, SCALE, SEED = "a red star on the sea", 5.0, 7
PREDICTION_TYPES = {"eps": "epsilon", "v": "v_prediction"}


def build(prediction_type: str):
    models = tiny.tiny_models(in_channels=4, prediction_type=prediction_type)
    parts = ModelParts(models.unet.state_dict(), models.vae.state_dict(), models.text.state_dict())
    return models, build_editor(parts, models.config, torch.float32, torch.device("cpu"))


@torch.inference_mode()
@pytest.mark.parametrize("prediction_type", ["eps", "v"])
@pytest.mark.parametrize(("full_steps", "strength"), [(10, 0.5), (10, 0.8), (28, 0.25)])
def test_sdedit_equals_img2img_of_diffusers(tokenizer, photo, prediction_type, full_steps, strength):
    """Diffusers counts the steps of the whole run, we, as the host, those that are sampled."""
    models, model = build(prediction_type)
    photo = photo[:1]
    settings = SDEditSettings(
        strength=strength,
        text_guidance_scale=SCALE,
        steps=int(full_steps * strength),
        sampler="euler",
        working_resolution=64,
    )
    found = sdedit(model, photo, [CAPTION], settings, seed=SEED)
    pipeline = StableDiffusionImg2ImgPipeline(
        vae=models.vae,
        text_encoder=models.text,
        tokenizer=tokenizer,
        unet=models.unet,
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            timestep_spacing="linspace",
            steps_offset=1,  # without effect, but diffusers asks for it
            prediction_type=PREDICTION_TYPES[prediction_type],
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        prompt=CAPTION,
        image=model.codec.encode(photo) * model.scaling_factor,  # latents are taken as they are
        strength=strength,
        num_inference_steps=full_steps,
        guidance_scale=SCALE,
        generator=torch.Generator().manual_seed(SEED),
        output_type="pt",
    ).images
    assert relative_error(found, expected.movedim(1, -1)) <= 1e-4
    assert expected.std() > 0.01
    assert (found - photo).abs().max() > 0.05, "the case shows nothing"


@torch.inference_mode()
def test_less_strength_keeps_more_and_a_picture_alone_is_the_one_of_the_batch(photo):
    _, model = build("v")
    base = {"text_guidance_scale": SCALE, "steps": 5, "working_resolution": 64}
    distances = []
    for strength in (0.1, 0.5, 1.0):
        settings = SDEditSettings(strength=strength, **base)
        both = sdedit(model, photo, [CAPTION] * 2, settings, seed=SEED)
        alone = sdedit(model, photo[1:], [CAPTION], settings, seed=SEED + 1)
        torch.testing.assert_close(both[1:], alone, atol=2e-5, rtol=0)
        kept = model.codec.decode(model.codec.encode(photo) * model.scaling_factor)
        distances.append(float((both - kept).abs().mean()))
    assert distances == sorted(distances)
