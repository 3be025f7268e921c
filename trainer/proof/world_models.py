"""The models that the chain starts from: the embedded autoencoder and text-to-image model, trained further on renders.

Pictures of 32 pixels have 8 x 8 latent cells, so that everything after this takes two cores minutes instead of hours. On a
GPU the same loops run there; what they draw is the same.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...ip2p_core.checkpoint import ModelConfig, embedded_model_path, read_checkpoint, write_checkpoint
from ..diffusers_adapter import choose_attention, choose_device, load_generator
from ..embedded.autoencoder import AutoencoderSettings, loss_of, train_autoencoder
from ..embedded.command import averaged, encode_modes
from ..embedded.generator import SceneLatents, encode_scenes, scene_batch
from ..embedded.generator_loop import GeneratorModules, LoopSettings, train_network
from ..shape_world.render import render
from ..shape_world.scene import BACKGROUNDS, Scene
from ..shape_world.world_edits import world_edit_at
from .config import EDIT_TYPES, ProofConfig
from .edits import captions_of
from .stages import BASE, GENERATOR, Run

SCENES = "proof-scenes"


def captioned_scenes(config: ProofConfig) -> list[tuple[Scene, str]]:
    """Draw what both learn from: scenes before and after edits with their captions, no held-out combination among them."""
    types = EDIT_TYPES + config.spatial_edits
    edits = (
        world_edit_at(SCENES, config.seed, place, config.world, types[place % len(types)])
        for place in range(config.num_scenes)
    )
    sides = (side for edit in edits for side in zip((edit.before, edit.after), captions_of(edit), strict=True))
    return list(islice(sides, config.num_scenes))


def autoencoder_stage(run: Run) -> dict[str, float]:
    """Train the embedded autoencoder further, on small renders, and measure it on renders that it never saw."""
    config = run.config
    pictures = _pictures(captioned_scenes(config), config.size)
    device = choose_device("auto")
    vae = load_generator(embedded_model_path(GENERATOR), dtype="float32").codec.vae.requires_grad_(True).to(device)
    settings = AutoencoderSettings(
        seed=config.seed,
        minutes=config.autoencoder_minutes,
        threads=torch.get_num_threads(),
        pool_size=len(pictures),
        is_compiled=False,
        batch_size=config.autoencoder_batch_size,
    )
    (run.folder / "training").mkdir(exist_ok=True)
    train_autoencoder(vae, _autoencoder_file(run), settings, (pictures * 255 + 0.5).to(torch.uint8))
    vae = averaged(vae, _autoencoder_file(run))
    others = _pictures(captioned_scenes(replace(config, seed=config.seed + 1, num_scenes=64)), config.size) * 2 - 1
    with torch.no_grad():
        error = float(loss_of(vae, others.to(device), torch.Generator().manual_seed(0))[1])
        spread = float(torch.cat([encode_modes(vae, part) for part in torch.split(pictures[:512] * 2 - 1, 32)]).std())
    return {"psnr": -10 * float(np.log10(error)), "scaling_factor": round(1 / spread, 4)}


def generator_stage(run: Run, scaling_factor: float) -> dict[str, Any]:
    """Train the embedded text-to-image model further, on small renders and their captions.

    Args:
        run: the run folder.
        scaling_factor: of the autoencoder's latents.

    Returns:
        How many weights it has.
    """
    config = run.config
    known = load_generator(embedded_model_path(GENERATOR), dtype="float32")
    device = choose_device("auto")
    vae = averaged(known.codec.vae, _autoencoder_file(run)).to(device)
    shape: ModelConfig = replace(
        known.config,
        vae={**known.config.vae, "scaling_factor": scaling_factor},
        working_resolution=config.size,
        recipe="ip2p proof: captions and renders",
        base="embedded generator",
    )
    unet = known.unet.requires_grad_(True).train()
    choose_attention(unet, device)
    if config.compile:
        unet.compile(dynamic=False)
    modules = GeneratorModules(unet, known.text.encoders[0].requires_grad_(True)).to(device)
    scenes = _scene_latents(vae, config)
    settings = LoopSettings(
        seed=config.seed,
        minutes=config.generator_minutes,
        scaling_factor=scaling_factor,
        threads=torch.get_num_threads(),
    )
    state = run.folder / "training" / "generator.pt"
    spread = 1 / scaling_factor
    size = config.generator_batch_size
    train_network(modules, lambda step: scene_batch(scenes, spread, config.seed, step, size), state, settings)
    trained, vae = averaged(modules, state).cpu(), vae.cpu()
    path = run.models / "ip2p" / f"{BASE}.safetensors"
    parts = trained.unet.state_dict(), vae.state_dict(), trained.text_encoder.state_dict()
    write_checkpoint(path, *parts, shape, torch.float32)
    return {"parameters": sum(weight.numel() for weight in read_checkpoint(path).parts().unet.values())}


def _scene_latents(vae: Any, config: ProofConfig) -> SceneLatents:
    drawn, encode = captioned_scenes(config), partial(encode_modes, vae)
    empty = encode_scenes(encode, [Scene(name, ()) for name in BACKGROUNDS], config.size)
    rows = [list(BACKGROUNDS).index(scene.background) for scene, _ in drawn]
    latents = encode_scenes(encode, [scene for scene, _ in drawn], config.size)
    return SceneLatents(latents, [caption for _, caption in drawn], empty[rows])


def _autoencoder_file(run: Run) -> Path:
    return run.folder / "training" / "autoencoder.pt"


def _pictures(scenes: list[tuple[Scene, str]], size: int) -> Tensor:
    """Renders [N, 3, H, W] in [0, 1]."""
    return torch.from_numpy(np.stack([render(scene, size) for scene, _ in scenes])).permute(0, 3, 1, 2).contiguous()
