"""`ip2p train-embedded`: train the embedded editor from nothing, in stages that each resume.

Stages: autoencoder -> pairs (latents) -> editor -> export -> tune. A run folder holds the state of each.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...ip2p_core.checkpoint import ModelConfig, write_checkpoint
from ...ip2p_core.errors import ConfigError
from ..diffusers_adapter import load_editor, new_modules, use_plain_attention
from ..photo_edits import training_wordings
from . import models
from .autoencoder import AutoencoderSettings, build_pool, train_autoencoder
from .editor import PEAK_LR, EditorModules, EditorSettings, train_editor
from .pairs import LatentPairs, build_pairs
from .tune import Search, tune

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long and on how much to train; times are minutes of wall time."""

    autoencoder_minutes: float = 35.0
    editor_minutes: float = 90.0
    decoder_minutes: float = 15.0
    """Afterwards: the decoder alone, while latents stay what they are; 0 leaves it as it is."""
    peak_lr: float = PEAK_LR
    """Of the editor; half of it suits a model that is trained further."""
    seed: int = 0
    threads: int = 2
    pool_size: int = 5000
    sets: tuple[tuple[int, int, int, float], ...] = ((128, 1500, 2600, 0.6), (256, 150, 500, 0.4))
    """(picture size, originals of global edits, scenes, share of the steps)."""
    working_resolution: int = 256
    is_compiled: bool = True
    search: Search = field(default_factory=Search)
    """How the default settings are found."""


SMOKE = Plan(
    autoencoder_minutes=0.05,
    editor_minutes=0.05,
    decoder_minutes=0.02,
    pool_size=16,
    sets=((64, 2, 2, 1.0),),
    working_resolution=64,
    is_compiled=False,
    search=Search(num_photos=1, num_scenes=1, text_scales=(1.0,), image_scales=(1.0,), samplers=(("euler", 2),)),
)
"""A few seconds of every stage: checks wiring, not quality."""


def train(run: Path, out: Path, plan: Plan, start: Path | None = None) -> None:
    """Run or resume all stages, and write the model file; with a model to start from, its encoder stays as it is."""
    run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(plan.seed)
    if start is None:
        unet, vae, text_encoder = new_modules(models.UNET, models.VAE, models.TEXT_ENCODER)
        vae = _autoencoder(vae, run / "autoencoder.pt", plan, plan.autoencoder_minutes, is_encoder_frozen=False)
        scaling_factor = measure_scaling_factor(vae, plan.seed, min(plan.pool_size, 256))
        logger.info("scaling factor %.4f", scaling_factor)
    else:
        unet, vae, text_encoder, scaling_factor = _started_from(start)
    sets = [(_pairs(vae, run, plan.seed, *one[:3]), one[3]) for one in plan.sets]
    use_plain_attention(unet)  # three times faster than the fused kernel's backward on a CPU
    if plan.is_compiled:
        unet.compile(dynamic=False)
    modules = EditorModules(unet, text_encoder)
    settings = EditorSettings(
        seed=plan.seed,
        minutes=plan.editor_minutes,
        scaling_factor=scaling_factor,
        threads=plan.threads,
        peak_lr=plan.peak_lr,
    )
    train_editor(modules, sets, training_wordings("identity"), run, settings)
    modules = averaged(modules, run / "editor.pt")
    if plan.decoder_minutes:
        vae = _autoencoder(vae, run / "decoder.pt", plan, plan.decoder_minutes, is_encoder_frozen=True)
    export(out, modules, vae, scaling_factor, plan)
    tune(out, plan.search)


def _started_from(path: Path) -> tuple[Any, Any, Any, float]:
    """U-Net, autoencoder, text encoder and scaling factor of a model of the embedded shape, to be trained further."""
    editor = load_editor(path)
    if editor.config.unet != models.UNET:
        needed, found = models.UNET, editor.config.unet
        raise ConfigError(f"{path.name} has the U-Net {found}, needed is {needed}. Start from an embedded editor.")
    parts = editor.unet, editor.codec.vae, editor.text.encoders[0]
    for part in parts:
        part.requires_grad_(requires_grad=True)
    return *parts, editor.scaling_factor


def _autoencoder(vae: Any, state_file: Path, plan: Plan, minutes: float, *, is_encoder_frozen: bool) -> Any:
    """Train the autoencoder, or its decoder alone; the result has the averaged weights."""
    settings = AutoencoderSettings(
        seed=plan.seed,
        minutes=minutes,
        threads=plan.threads,
        pool_size=plan.pool_size,
        is_compiled=plan.is_compiled,
        is_encoder_frozen=is_encoder_frozen,
    )
    train_autoencoder(vae.train(), state_file, settings)
    return averaged(vae, state_file)


def _pairs(vae: Any, run: Path, seed: int, size: int, num_originals: int, num_scenes: int) -> LatentPairs:
    name = f"pairs_{size}_{num_originals}_{num_scenes}.pt"
    return build_pairs(
        partial(encode_modes, vae),
        run / name,
        seed=seed,
        size=size,
        num_originals=num_originals,
        num_scenes=num_scenes,
    )


@torch.no_grad()
def encode_modes(vae: Any, images: Tensor) -> Tensor:
    """Posterior modes [B, 4, h, w], unscaled, of images [B, 3, H, W] in [-1, 1]."""
    with torch.autocast("cpu", torch.bfloat16):
        modes: Tensor = vae.encode(images).latent_dist.mode()
    return modes.float()


@torch.no_grad()
def measure_scaling_factor(vae: Any, seed: int, num_pictures: int) -> float:
    """One over the standard deviation of the latents, as in Rombach et al. 2022, rounded to four digits."""
    pool = build_pool(seed + 1, num_pictures).float() / 127.5 - 1
    return round(1 / float(torch.cat([encode_modes(vae, part) for part in torch.split(pool, 32)]).std()), 4)


def averaged(module: Any, state_file: Path) -> Any:
    """The module with the averaged weights of a finished stage, for inference."""
    saved = torch.load(state_file, weights_only=True)  # noqa: TID251 - our own file, weights only
    module.load_state_dict(saved["ema"])
    return module.eval()


def export(out: Path, modules: EditorModules, vae: Any, scaling_factor: float, plan: Plan) -> None:
    """Write the single file; `tune` sets its default scales, sampler and steps afterwards."""
    config = ModelConfig(
        kind="editor",
        in_channels=8,
        num_heads=models.UNET["attention_head_dim"],
        prediction_type=models.PREDICTION_TYPE,  # type: ignore[arg-type]
        unet=models.UNET,
        vae={**models.VAE, "scaling_factor": scaling_factor},
        text_encoder=models.TEXT_ENCODER,
        default_text_guidance_scale=1.5,
        default_image_guidance_scale=1.0,
        working_resolution=plan.working_resolution,
        size_multiple=models.SIZE_MULTIPLE,
        recipe="ip2p train-embedded: rendered scenes and global edits, v-prediction, 5/5/5 % dropout",
        data_hash=hashlib.sha256(repr((plan.seed, plan.sets)).encode()).hexdigest()[:16],
        licence="MIT",
    )
    states = (modules.unet.state_dict(), vae.state_dict(), modules.text_encoder.state_dict())
    write_checkpoint(out, *states, config)
    logger.info("wrote %s, %.2f MB", out, out.stat().st_size / 1e6)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of `ip2p train-embedded`."""
    parser = argparse.ArgumentParser(prog="ip2p train-embedded", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("editor.safetensors"), help="the model file")
    parser.add_argument("--run", type=Path, default=Path("runs/embedded"), help="folder of the state; resumes there")
    for name in ("autoencoder_minutes", "editor_minutes", "decoder_minutes", "peak_lr"):
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=float, default=getattr(Plan, name), help="default: %(default)g")
    parser.add_argument("--start", type=Path, default=None, help="train this model further instead of from nothing")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--smoke", action="store_true", help="a few seconds of every stage: checks wiring, not quality")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    plan = Plan(
        autoencoder_minutes=options.autoencoder_minutes,
        editor_minutes=options.editor_minutes,
        decoder_minutes=options.decoder_minutes,
        peak_lr=options.peak_lr,
        seed=options.seed,
        threads=options.threads,
    )
    train(options.run, options.output, SMOKE if options.smoke else plan, options.start)
    return 0
