"""`ip2p train-embedded-generator`: train the embedded text-to-image model on captions and renders of shape_world.

It shares the editor's autoencoder, and starts from the editor's U-Net and text encoder, which know shapes and colours.
"""

from __future__ import annotations

import argparse
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...ip2p_core.checkpoint import ModelConfig, embedded_model_path, write_checkpoint
from ..diffusers_adapter import load_editor, new_modules, use_plain_attention
from ..shape_world.captioned_edits import captioned_edit
from ..shape_world.render import render
from . import models
from .command import averaged, encode_modes
from .editor import BATCH, Batch, EditorModules, EditorSettings, noising, train_network

logger = logging.getLogger(__name__)

UNET = {**models.UNET, "in_channels": 4}
ENCODE_BATCH, START_SHARE = 32, 0.2


@dataclass(frozen=True, kw_only=True)
class GeneratorPlan:
    """How long and on how much to train."""

    minutes: float = 30.0
    num_scenes: int = 10_000
    size: int = 128
    seed: int = 0
    threads: int = 2
    is_compiled: bool = True


SMOKE = GeneratorPlan(minutes=0.05, num_scenes=32, size=64, is_compiled=False)


def scenes_of(seed: int, count: int) -> list[tuple[Any, str]]:
    """Draw scenes and their captions, without held-out combinations."""
    drawn = [captioned_edit(random.Random(f"generator/{seed}/{i}"), "recolour") for i in range(count)]
    return [(one.edit.before, one.caption) for one in drawn]


def encode_scenes(encode: Callable[[Tensor], Tensor], scenes: Sequence[Any], size: int) -> Tensor:
    """Latents [N, 4, h, w], unscaled, float16, of rendered scenes."""
    latents = []
    for first in range(0, len(scenes), ENCODE_BATCH):
        part = list(scenes[first : first + ENCODE_BATCH])
        pictures = np.stack([render(scene, size) for scene in part])
        latents.append(encode(torch.from_numpy(pictures).permute(0, 3, 1, 2) * 2 - 1).half())
    return torch.cat(latents)


def scene_batch(latents: Tensor, captions: Sequence[str], seed: int, step: int, size: int) -> Batch:
    """Draw the batch of one step."""
    rng = np.random.default_rng((seed, 5, step))
    chosen = rng.integers(len(latents), size=size)
    targets = latents[torch.from_numpy(chosen)].float()
    return Batch(targets[:, :0], targets, [captions[i] for i in chosen], *noising(rng, targets, START_SHARE), None)


def started_from(editor_unet: Any) -> Any:
    """A 4-channel U-Net with the weights of an editor, its image channels left out."""
    unet, _, _ = new_modules(UNET, models.VAE, models.TEXT_ENCODER)
    state = dict(editor_unet.state_dict())
    state["conv_in.weight"] = state["conv_in.weight"][:, :4]
    unet.load_state_dict(state)
    return unet


def train(run: Path, out: Path, plan: GeneratorPlan, start: Path) -> None:
    """Train, or go on where an earlier run stopped, and write the model file."""
    run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(plan.seed)
    editor = load_editor(start)
    vae, text_encoder = editor.codec.vae, editor.text.encoders[0].requires_grad_(True)
    unet = started_from(editor.unet).train()
    drawn = scenes_of(plan.seed, plan.num_scenes)
    captions = [caption for _, caption in drawn]
    latents = encode_scenes(partial(encode_modes, vae), [scene for scene, _ in drawn], plan.size)
    logger.info("encoded %d scenes", len(latents))
    use_plain_attention(unet)
    if plan.is_compiled:
        unet.compile(dynamic=False)
    modules = EditorModules(unet, text_encoder)
    settings = EditorSettings(
        seed=plan.seed, minutes=plan.minutes, scaling_factor=editor.scaling_factor, threads=plan.threads
    )
    size = max(8, BATCH * 32**2 // latents.shape[-1] ** 2)
    train_network(
        modules, lambda step: scene_batch(latents, captions, plan.seed, step, size), run / "generator.pt", settings
    )
    modules = averaged(modules, run / "generator.pt")
    config: ModelConfig = replace(
        editor.config,
        kind="generator",
        in_channels=4,
        unet=UNET,
        default_text_guidance_scale=3.0,
        default_steps=20,
        default_sampler="euler_ancestral",
        working_resolution=plan.size,
        recipe="ip2p train-embedded-generator: captions and renders of shape_world, started from the embedded editor",
        base="the embedded editor",
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
    parser.add_argument("--start", type=Path, default=None, help="an editor to start from (default: the embedded one)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--smoke", action="store_true", help="a few seconds: checks wiring, not quality")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    plan = GeneratorPlan(minutes=options.minutes, seed=options.seed, threads=options.threads)
    start = options.start or embedded_model_path("editor")
    train(options.run, options.output, SMOKE if options.smoke else plan, start)
    return 0
