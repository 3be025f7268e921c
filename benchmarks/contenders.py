"""The same edit by our headless path and by diffusers' pipeline, on the same networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..ip2p_core.checkpoint import embedded_model_path, write_checkpoint
from ..ip2p_core.errors import CheckpointError
from ..ip2p_core.guidance import GuidanceScales, GuidanceSettings
from ..ip2p_core.model_config import ModelConfig
from ..trainer.diffusers_adapter import load_editor, new_modules
from ..trainer.edit import EditSettings, edit_images
from ..trainer.edit_backend import Editor
from ..trainer.embedded import models

INSTRUCTION = "make it black and white"
EXACT = GuidanceScales(text_guidance_scale=7.5, image_guidance_scale=1.5)
DROPPED = GuidanceScales(text_guidance_scale=7.5, image_guidance_scale=1.0)
Run = Callable[[], object]


def bench_model(folder: Path) -> Path:
    """Return the embedded editor, or where there is none one of its shape with random weights."""
    try:
        return embedded_model_path("editor")
    except CheckpointError:
        path = folder / "editor.safetensors"
        torch.manual_seed(0)
        networks = new_modules(models.UNET, models.VAE, models.TEXT_ENCODER)
        config = ModelConfig(
            num_heads=models.UNET["attention_head_dim"],
            prediction_type="v",
            unet=models.UNET,
            vae={**models.VAE, "scaling_factor": 0.5},
            text_encoder=models.TEXT_ENCODER,
            size_multiple=models.SIZE_MULTIPLE,
        )
        write_checkpoint(path, *(network.state_dict() for network in networks), config)
        return path


def picture(size: int, num_images: int = 1) -> Tensor:
    """Smooth pictures [B, size, size, 3] in [0, 1]."""
    coarse = torch.rand(num_images, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear").movedim(1, -1)


def ours(editor: Editor, image: Tensor, scales: GuidanceScales, steps: int) -> Run:
    """One whole edit: encode, sample with Euler ancestral, decode."""
    settings = EditSettings(guidance=GuidanceSettings(scales=scales), steps=steps, working_resolution=image.shape[1])
    return lambda: edit_images(editor, image, [INSTRUCTION], settings)


def diffusers_pipeline(editor: Editor, image: Tensor, scales: GuidanceScales, steps: int) -> Run:
    """The same edit by StableDiffusionInstructPix2PixPipeline on the very same networks."""
    from diffusers import EulerAncestralDiscreteScheduler, StableDiffusionInstructPix2PixPipeline

    scheduler = EulerAncestralDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="linspace",
        prediction_type={"eps": "epsilon", "v": "v_prediction"}[editor.config.prediction_type],
    )
    pipeline: Any = StableDiffusionInstructPix2PixPipeline(
        vae=editor.codec.vae,
        text_encoder=editor.text.encoders[0],
        tokenizer=None,
        unet=editor.unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    pixels = image.movedim(-1, 1).to(editor.device, editor.codec.vae.dtype)

    def run() -> object:
        with torch.inference_mode():
            embeds = editor.text.encode([INSTRUCTION, ""]).embeds.to(editor.dtype)
        return pipeline(
            image=pixels,
            prompt_embeds=embeds[:1].expand(len(image), -1, -1),
            negative_prompt_embeds=embeds[1:].expand(len(image), -1, -1),
            num_inference_steps=steps,
            guidance_scale=scales.text_guidance_scale,
            image_guidance_scale=scales.image_guidance_scale,
            output_type="pt",
        )

    return run


def headless(model: Path, size: int, steps: int) -> dict[str, Run]:
    """The CPU contenders, by name."""
    editor = load_editor(model, device="cpu", dtype="float32")
    editor.config = replace(editor.config, working_resolution=size)
    image = picture(size)
    return {
        "diffusers": diffusers_pipeline(editor, image, EXACT, steps),
        "ours": ours(editor, image, EXACT, steps),
        "ours, s_I = 1 (two branches)": ours(editor, image, DROPPED, steps),
    }
