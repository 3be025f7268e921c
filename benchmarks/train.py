"""`python -m ip2p.benchmarks.train`: steps of `ip2p train` against those of diffusers' train_instruct_pix2pix.py.

Both train the same reduced SD1.5 (quarter width, random weights) on the same rendered pairs, one step each in turn. The
script's step is transcribed from diffusers 0.42: it encodes both pictures and the instruction at every step, updates the
weights by AdamW as it calls it, and its average one tensor at a time.
"""

from __future__ import annotations

import argparse
import itertools
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import EMAModel
from torch.nn import functional

from ..ip2p_core.checkpoint import write_checkpoint
from ..ip2p_core.model_config import ModelConfig
from ..ip2p_core.pair_record import ImageBytes, PairRecord
from ..ip2p_core.pair_store import PairWriter, SaveLimits
from ..ip2p_core.train_job import TrainConfig, make_train_config
from ..ip2p_core.triplet import Triplet, prompt_id
from ..trainer.accelerate_adapter import Processes
from ..trainer.diffusers_adapter import choose_device, load_base, new_modules
from ..trainer.shape_world.edits import random_edit
from ..trainer.shape_world.render import render
from ..trainer.shape_world.scene import random_scene
from ..trainer.train_command import make_loop
from ..trainer.training.batches import MicroBatch, load_ahead
from ..trainer.training.loop import TrainingLoop, Window
from ..trainer.training.pictures import EditPairs
from ..trainer.training.run_log import RunLog
from .timing import measure, report, say

NUM_PAIRS, BATCH = 64, 8
GOALS = {"ours, cached": 1 / 1.9}
LEVELS = 4
UNET = {
    "sample_size": 32, "in_channels": 8, "out_channels": 4, "layers_per_block": 2,
    "block_out_channels": [80, 160, 320, 320], "cross_attention_dim": 192, "attention_head_dim": 4, "norm_num_groups": 16,
    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
}  # fmt: skip
VAE = {
    "block_out_channels": [32, 64, 128, 128], "layers_per_block": 2, "latent_channels": 4, "norm_num_groups": 16,
    "down_block_types": ["DownEncoderBlock2D"] * LEVELS, "up_block_types": ["UpDecoderBlock2D"] * LEVELS,
    "scaling_factor": 0.18215,
}  # fmt: skip
TEXT = {
    "vocab_size": 49408, "hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 12, "num_attention_heads": 4,
    "max_position_embeddings": 77, "hidden_act": "quick_gelu", "bos_token_id": 49406, "eos_token_id": 49407,
    "pad_token_id": 49407,
}  # fmt: skip
Step = Callable[[], None]


def main() -> None:
    """Measure at one or several sizes."""
    parser = argparse.ArgumentParser(prog="python -m ip2p.benchmarks.train", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="timed steps of each contender")
    parser.add_argument("--size", type=int, nargs="+", default=[64, 128], help="sides of the pictures in pixels")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder) / "base.safetensors")
        for size in options.size:
            _compare(Path(folder), size, options.rounds)


def _compare(folder: Path, size: int, rounds: int) -> None:
    dataset = write_pairs(folder / f"pairs_{size}", size)
    config = make_train_config(
        {"dataset": str(dataset), "base": "base", "models": str(folder), "output": str(folder / f"run_{size}"),
         "resolution": size, "batch_size": BATCH, "micro_batch_size": BATCH, "device": "cpu", "cache_views": 1,
         "cache_text": True, "steps": 100_000}
    )  # fmt: skip
    ours, batch = {}, f"{BATCH} pairs of {size} px, float32, CPU"
    for name, changes in (("ours, encoding on the way", {"cache": "none", "cache_text": False}), ("ours, cached", {})):
        run = replace(config, output=f"{config.output}_{len(ours)}", **changes)
        ours[name] = our_step(run)
    contenders = {"diffusers' script": script_step(folder / "base.safetensors", dataset), **ours}
    seconds = measure(contenders, rounds)
    report(f"One training step ({batch})", seconds, "diffusers' script", GOALS)
    for name, values in seconds.items():
        say(f"  {name:34} {BATCH / sorted(values)[len(values) // 2]:.2f} samples/s")


def write_model(path: Path) -> None:
    """Write the reduced model."""
    torch.manual_seed(0)
    unet, vae, text = new_modules(UNET, VAE, TEXT)
    config = ModelConfig(
        num_heads=4,
        unet=UNET,
        vae=VAE,
        text_encoder=TEXT,
        base="random weights",
        working_resolution=256,
        size_multiple=64,
    )
    write_checkpoint(path, unet.state_dict(), vae.state_dict(), text.state_dict(), config, torch.float32)


def write_pairs(folder: Path, size: int) -> Path:
    """Write rendered pairs, all of the split that is trained on."""
    with PairWriter(folder, None, SaveLimits(seconds=1e9)) as writer:
        for number in range(NUM_PAIRS):
            rng = random.Random(f"bench/{number}")
            edit = random_edit(rng, random_scene(rng, 1), "recolour")
            triplet = Triplet(edit.before.caption(), edit.instruction, edit.after.caption(), "rendered")
            pictures = (
                ImageBytes.from_tensor(torch.from_numpy(render(scene, size))) for scene in (edit.before, edit.after)
            )
            writer.add_record(
                PairRecord(prompt_id(triplet), number, triplet, 0, None, None, "rendered", None, *pictures)
            )
    return folder


def our_loop(config: TrainConfig) -> tuple[TrainingLoop, Iterator[MicroBatch]]:
    """Make the loop of `ip2p train`, and its data."""
    processes = Processes(config.precision, is_cpu=choose_device(config.device).type == "cpu", strategy="ddp")
    log = RunLog(Path(config.output), config, is_main=True)
    loop = make_loop(config, processes, log)[2]
    numbers = range(config.steps * loop.per_step)
    return loop, load_ahead(loop.batches, numbers, config.workers, is_pinned=processes.device.type == "cuda")


def our_step(config: TrainConfig) -> Step:
    """One step of `ip2p train`, data included."""
    loop, data = our_loop(config)

    def step() -> None:
        window = Window()
        loop.one_step(data, window)
        float(window.losses[0])

    return step


def script_step(model: Path, dataset: Path) -> Step:
    """One step of the script, its data loading included."""
    editor = load_base(model, device="cpu")
    unet, vae, text_encoder = editor.unet.train().requires_grad_(True), editor.codec.vae, editor.text
    for network in (unet, vae):  # the script leaves the order of numbers in memory as it is
        network.to(memory_format=torch.contiguous_format)
    ema_unet = EMAModel(unet.parameters(), decay=0.9999)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-4, betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-8)
    noise_scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    pairs = EditPairs.open(dataset, "train")
    rows = itertools.cycle(range(len(pairs)))

    def step() -> None:
        batch = [pairs.records[next(rows)] for _ in range(BATCH)]
        original, edited = (
            torch.stack([getattr(one, name).tensor().permute(2, 0, 1) * 2 - 1 for one in batch])
            for name in ("original", "edited")
        )
        with torch.no_grad():
            latents = vae.encode(edited).latent_dist.sample() * editor.scaling_factor
            encoder_hidden_states = text_encoder.encode([one.triplet.instruction for one in batch]).embeds
            null_conditioning = text_encoder.encode([""]).embeds
            original_image_embeds = vae.encode(original).latent_dist.mode()
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, 1000, (BATCH,)).long()
        noisy_latents = noise_scheduler.add_noise(latents, noise, timesteps)
        random_p = torch.rand(BATCH)
        prompt_mask = (random_p < 0.1).reshape(BATCH, 1, 1)
        encoder_hidden_states = torch.where(prompt_mask, null_conditioning, encoder_hidden_states)
        image_mask = 1 - ((random_p >= 0.05) & (random_p < 0.15)).float().reshape(BATCH, 1, 1, 1)
        concatenated = torch.cat([noisy_latents, image_mask * original_image_embeds], dim=1)
        model_pred = unet(concatenated, timesteps, encoder_hidden_states, return_dict=False)[0]
        loss = functional.mse_loss(model_pred.float(), noise.float(), reduction="mean")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        ema_unet.step(unet.parameters())
        loss.item()

    return step


if __name__ == "__main__":
    main()
