"""`ip2p train-embedded-generator`: train the embedded text-to-image model on captions and renders of shape_world.

It has the embedded editor's autoencoder, and its text encoder starts from the editor's, which knows shapes and colours. Single
shapes are drawn large, so that few cells of the latents do not have to tell a star from a heart.
"""

from __future__ import annotations

import argparse
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...ip2p_core.checkpoint import ModelConfig, embedded_model_path, write_checkpoint
from ..diffusers_adapter import choose_attention, load_editor, load_generator, new_modules
from ..shape_world.captioned_edits import CAPTIONS
from ..shape_world.render import render
from ..shape_world.scene import BACKGROUNDS, Scene, random_scene
from . import models
from .command import averaged, encode_modes
from .generator_loop import Batch, GeneratorModules, LoopSettings, change_weights, noising, train_network
from .state import device_of

logger = logging.getLogger(__name__)

BATCH, ENCODE_BATCH = 32, 32
NUM_OBJECTS, OBJECT_SHARES = (0, 1, 2), (4, 76, 20)
RADIUS = (0.2, 0.33)
"""Of a single object, as a fraction of the picture's side."""


@dataclass(frozen=True, kw_only=True)
class GeneratorPlan:
    """How long and on how much to train."""

    minutes: float = 90.0
    num_scenes: int = 6_000
    size: int = 96
    seed: int = 0
    threads: int = 2
    is_compiled: bool = True


SMOKE = GeneratorPlan(minutes=0.05, num_scenes=32, size=64, is_compiled=False)


class SceneLatents(NamedTuple):
    """What the generator learns from."""

    latents: Tensor
    """[N, 4, h, w], unscaled, float16."""
    captions: list[str]
    empty: Tensor
    """[N, 4, h, w]: the same scenes without their objects."""


def enlarged(rng: random.Random, scene: Scene) -> Scene:
    """Draw a single object large, somewhere inside the picture."""
    if len(scene.objects) != 1:
        return scene
    radius = rng.uniform(*RADIUS)
    x, y = (rng.uniform(radius + 0.02, 0.98 - radius) for _ in range(2))
    return replace(scene, objects=(replace(scene.objects[0], x=x, y=y, radius=radius),))


def scenes_of(seed: int, count: int) -> list[tuple[Scene, str]]:
    """Draw scenes and their captions, without held-out combinations."""
    drawn = []
    for i in range(count):
        rng = random.Random(f"generator/{seed}/{i}")
        scene = enlarged(rng, random_scene(rng, rng.choices(NUM_OBJECTS, OBJECT_SHARES)[0]))
        drawn.append((scene, rng.choice(CAPTIONS).format(scene.caption())))
    return drawn


def encode_scenes(encode: Callable[[Tensor], Tensor], scenes: Sequence[Scene], size: int) -> Tensor:
    """Latents [N, 4, h, w], unscaled, float16, of rendered scenes."""
    latents = []
    for first in range(0, len(scenes), ENCODE_BATCH):
        part = list(scenes[first : first + ENCODE_BATCH])
        pictures = np.stack([render(scene, size) for scene in part])
        latents.append(encode(torch.from_numpy(pictures).permute(0, 3, 1, 2) * 2 - 1).half())
    return torch.cat(latents)


def prepare(encode: Callable[[Tensor], Tensor], plan: GeneratorPlan) -> SceneLatents:
    """Draw, render and encode all scenes."""
    drawn = scenes_of(plan.seed, plan.num_scenes)
    latents = encode_scenes(encode, [scene for scene, _ in drawn], plan.size)
    empty = encode_scenes(encode, [Scene(name, ()) for name in BACKGROUNDS], plan.size)
    rows = [list(BACKGROUNDS).index(scene.background) for scene, _ in drawn]
    return SceneLatents(latents, [caption for _, caption in drawn], empty[rows])


def scene_batch(scenes: SceneLatents, spread: float, seed: int, step: int, size: int) -> Batch:
    """Draw the batch of one step; a part of the loss goes to the objects, however small they are."""
    rng = np.random.default_rng((seed, 5, step))
    chosen = rng.integers(len(scenes.latents), size=size)
    rows = torch.from_numpy(chosen)
    targets = scenes.latents[rows].float()
    weights = change_weights(scenes.empty[rows].float(), targets, spread)
    texts = [scenes.captions[i] for i in chosen]
    return Batch(targets, texts, *noising(rng, targets), weights)


def train(run: Path, out: Path, plan: GeneratorPlan, start: Path | None = None) -> None:
    """Train, or go on where an earlier run stopped, and write the model file."""
    run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(plan.seed)
    if start is None:
        base = load_editor(embedded_model_path("editor"), dtype="float32")
        unet = new_modules(models.GENERATOR_UNET, models.VAE, models.TEXT_ENCODER)[0]
        shape = replace(
            base.config,
            kind="generator",
            in_channels=4,
            unet=models.GENERATOR_UNET,
            num_heads=models.GENERATOR_UNET["attention_head_dim"],
        )
    else:
        base = load_generator(start, dtype="float32")
        unet, shape = base.unet.requires_grad_(True), base.config
    unet.train()
    vae, text_encoder = base.codec.vae, base.text.encoders[0].requires_grad_(True)
    scenes = prepare(partial(encode_modes, vae), plan)
    logger.info("encoded %d scenes", len(scenes.latents))
    device = device_of(vae)
    choose_attention(unet, device)
    if plan.is_compiled:
        unet.compile(dynamic=False)
    modules = GeneratorModules(unet, text_encoder).to(device)
    settings = LoopSettings(
        seed=plan.seed, minutes=plan.minutes, scaling_factor=base.scaling_factor, threads=plan.threads
    )
    spread = 1 / base.scaling_factor
    train_network(
        modules, lambda step: scene_batch(scenes, spread, plan.seed, step, BATCH), run / "generator.pt", settings
    )
    modules = averaged(modules, run / "generator.pt")
    config: ModelConfig = replace(
        shape,
        default_text_guidance_scale=3.0,
        default_steps=20,
        default_sampler="euler_ancestral",
        working_resolution=plan.size,
        recipe="ip2p train-embedded-generator: captions and renders of shape_world; text encoder started from the embedded editor's",
        base="autoencoder and text encoder of the embedded editor",
        data_hash="",
    )
    write_checkpoint(out, modules.unet.state_dict(), vae.state_dict(), modules.text_encoder.state_dict(), config)
    logger.info("wrote %s, %.2f MB", out, out.stat().st_size / 1e6)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of `ip2p train-embedded-generator`."""
    parser = argparse.ArgumentParser(prog="ip2p train-embedded-generator", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("generator.safetensors"), help="the model file")
    parser.add_argument("--run", type=Path, default=Path("runs/embedded_generator"), help="folder of the state")
    parser.add_argument(
        "--minutes", type=float, default=GeneratorPlan.minutes, help="of training (default: %(default)g)"
    )
    parser.add_argument("--start", type=Path, default=None, help="a generator to go on from (default: from nothing)")
    parser.add_argument("--size", type=int, default=GeneratorPlan.size, help="side in pixels (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--smoke", action="store_true", help="a few seconds: checks wiring, not quality")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    plan = GeneratorPlan(minutes=options.minutes, size=options.size, seed=options.seed, threads=options.threads)
    train(options.run, options.output, SMOKE if options.smoke else plan, options.start)
    return 0
