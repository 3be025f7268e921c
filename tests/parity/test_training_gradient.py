"""The gradient of one training step, against the lines of diffusers' train_instruct_pix2pix.py for the same draws.

Transcribed from its training loop (0.42): encode both, add noise, drop, concatenate, predict, compare. Its conv_in keeps a
random bias where ours keeps the base's; both networks here are one, so that does not show.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from ip2p.ip2p_core.sample_order import Crop, SampleOrder, draw_visit
from ip2p.ip2p_core.train_job import make_train_config
from ip2p.tests import tiny
from ip2p.tests.e2e import train_cases
from ip2p.trainer.diffusers_adapter import load_base
from ip2p.trainer.training.batches import BatchSettings, MicroBatches
from ip2p.trainer.training.latents import CropSettings
from ip2p.trainer.training.network import make_network, trained_parameters
from ip2p.trainer.training.objective_step import EditObjective
from ip2p.trainer.training.pictures import EditPairs

SIDE, BATCH, SEED = 32, 8, 4


@pytest.fixture(scope="module", params=["eps", "v"])
def parts(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gradient")
    tiny.tiny_editor(folder / "base.safetensors", in_channels=8, prediction_type=request.param)
    dataset = train_cases.make_dataset(folder / "data", BATCH, num_val=0, side=SIDE)
    return load_base(folder / "base.safetensors", device="cpu"), EditPairs.open(dataset, "train"), request.param


def gradients(network):
    return {name: weight.grad for name, weight in trained_parameters(network)}


def reference_loss(editor, pairs, prediction_type, visits, random_p):
    """What the script computes, with its names, for given draws."""
    crop = Crop(SIDE, 0.0, 0.0, is_flipped=False)
    loaded = [pairs.load(visit.row, crop, (SIDE, SIDE)) for visit in visits]
    draws = [draw_visit(SEED, visit, (4, 8, 8)) for visit in visits]
    vae, unet, text_encoder = editor.codec.vae, editor.unet, editor.text
    noise_scheduler = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000,
        prediction_type={"eps": "epsilon", "v": "v_prediction"}[prediction_type],
    )  # fmt: skip
    with torch.no_grad():
        posterior = vae.encode(torch.stack([one.edited for one in loaded])).latent_dist
        latents = (
            posterior.mean + posterior.std * torch.stack([one.posterior for one in draws])
        ) * editor.scaling_factor
        encoder_hidden_states = text_encoder.encode(
            [pairs.records[visit.row].triplet.instruction for visit in visits]
        ).embeds
        null_conditioning = text_encoder.encode([""]).embeds
        original_image_embeds = vae.encode(torch.stack([one.original for one in loaded])).latent_dist.mode()
    noise = torch.stack([one.noise for one in draws])
    timesteps = torch.stack([one.t for one in draws])
    noisy_latents = noise_scheduler.add_noise(latents, noise, timesteps)
    conditioning_dropout_prob = 0.05
    prompt_mask = (random_p < 2 * conditioning_dropout_prob).reshape(BATCH, 1, 1)
    encoder_hidden_states = torch.where(prompt_mask, null_conditioning, encoder_hidden_states)
    image_mask = 1 - (
        (random_p >= conditioning_dropout_prob).to(latents.dtype)
        * (random_p < 3 * conditioning_dropout_prob).to(latents.dtype)
    )
    original_image_embeds = image_mask.reshape(BATCH, 1, 1, 1) * original_image_embeds
    concatenated = torch.cat([noisy_latents, original_image_embeds], dim=1)
    target = noise if prediction_type == "eps" else noise_scheduler.get_velocity(latents, noise, timesteps)
    model_pred = unet(concatenated, timesteps, encoder_hidden_states, return_dict=False)[0]
    return torch.nn.functional.mse_loss(model_pred.float(), target.float(), reduction="mean")


def test_loss_and_gradient_of_one_step_equal_those_of_the_script_of_diffusers(parts):
    editor, pairs, prediction_type = parts
    config = make_train_config({"dataset": "", "base": "", "output": "", "resolution": SIDE, "resize_range": 1.0})
    network = make_network(editor, config)
    order = SampleOrder(SEED, (np.arange(BATCH),), BATCH)
    crops = CropSettings(resize=(SIDE, SIDE), flip=0.0, is_skipping=False, is_with_mask=False)
    batch_settings = BatchSettings(seed=SEED, factor=4, channels=4, num_t=1000, start_share=0.0, crops=crops)
    batch = MicroBatches(pairs, order, [(SIDE, SIDE)], batch_settings, None)[0]
    # so that all three kinds of dropout occur in eight pairs
    u = torch.tensor([0.01, 0.07, 0.12, 0.5, 0.6, 0.7, 0.8, 0.9], dtype=torch.float64)
    objective = EditObjective(editor, config, pairs.instructions, torch.float32)

    network.zero_grad()
    loss = objective.loss(network, batch._replace(u=u))
    loss.backward()
    ours = gradients(network)

    network.zero_grad()
    reference = reference_loss(editor, pairs, prediction_type, batch.visits, u)
    reference.backward()
    torch.testing.assert_close(loss, reference, atol=1e-6, rtol=1e-5)
    for name, gradient in gradients(network).items():
        torch.testing.assert_close(
            ours[name], gradient, atol=1e-5, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )
