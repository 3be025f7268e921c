"""`ip2p train-embedded`: train the embedded editor from nothing, in stages that each resume.

Stages: autoencoder -> for each picture size: pairs, and `ip2p train` with the preset "embedded", each going on with the model
of the one before -> decoder -> settings. A run folder holds the state of each. Small pictures come first: most of what
there is to learn does not depend on the size, and a step at 64 px costs a sixteenth of one at 256 px.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...ip2p_core.checkpoint import ModelConfig, read_checkpoint, write_checkpoint
from ...ip2p_core.errors import ConfigError
from ...ip2p_core.pair_store.durable_files import write_durably
from .. import train_command
from ..diffusers_adapter import load_editor, new_modules
from . import models
from .autoencoder import AutoencoderSettings, build_pool, train_autoencoder
from .pairs import generated_records, write_pairs
from .plan import SMOKE, Plan, Stage
from .state import device_of, half_precision
from .tune import tune

logger = logging.getLogger(__name__)

MODELS, BASE = "models", "base"
OBJECTS_SHARE = 0.4
"""Of the loss of a scene's pair, for all its objects alike; weighing what changes alone, others change with it (docs/adr/0017)."""


def train(
    run: Path,
    out: Path,
    plan: Plan,
    *,
    start: Path | None = None,
    autoencoder: Path | None = None,
    generated: Path | None = None,
) -> None:
    """Run or resume all stages, and write the model file.

    Args:
        run: folder of the state of every stage.
        out: the model file.
        plan: how long and on how much.
        start: an embedded editor to be trained further, or an embedded generator to be made one, instead of random weights.
        autoencoder: a model whose autoencoder is taken, instead of training one.
        generated: a dataset of generated pairs to learn from too.

    Raises:
        ConfigError: if `start` has another shape, `generated` no pair that is large enough, or a stage was stopped.
        PairStoreError: if `generated` is no dataset.
    """
    smallest = min(stage.size for stage in plan.stages)
    if generated is not None and next(generated_records(generated, smallest), None) is None:
        raise ConfigError(
            f"{generated} has no pair for training of at least {smallest} pixels a side. Use a larger one."
        )
    base = run / MODELS / "ip2p" / f"{BASE}.safetensors"
    base.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(plan.seed)
    torch.set_num_threads(plan.threads)
    if not base.exists():
        if start is None:
            _write_base(base, run, plan, autoencoder)
        else:
            _write_start(base, start, plan)
    newest = base
    for stage in plan.stages:
        newest = _train_stage(run, stage, newest.stem, plan, generated)
    write_durably(out, partial(shutil.copyfile, newest))
    if plan.decoder_minutes:
        _train_decoder(out, run, plan)
    tune(out, plan.search)


def _write_start(path: Path, start: Path, plan: Plan) -> None:
    """Write the model to start from, with the settings of an editor that has yet to be tuned."""
    raw = read_checkpoint(start)
    shape = {**raw.config.unet, "in_channels": 8}
    if shape not in (models.UNET, {**models.GENERATOR_UNET, "in_channels": 8}):
        raise ConfigError(
            f"{start.name} has the U-Net {raw.config.unet}, needed is {models.UNET}. Start from an embedded editor or generator."
        )
    parts = raw.parts()
    config = replace(raw.config, **_untuned(plan))
    write_checkpoint(path, parts.unet, parts.vae, parts.text, config, torch.float32)


def _untuned(plan: Plan) -> dict[str, Any]:
    """The settings of an editor before the search for better ones."""
    return {
        "default_text_guidance_scale": 1.0,
        "default_image_guidance_scale": 1.0,
        "default_steps": 2,
        "default_sampler": "euler",
        "working_resolution": plan.working_resolution,
        "size_multiple": models.SIZE_MULTIPLE,
        "licence": "MIT",
    }


def _write_base(path: Path, run: Path, plan: Plan, autoencoder: Path | None) -> None:
    """Write a model with fresh weights, but for the autoencoder."""
    unet, vae, text_encoder = new_modules(models.UNET, models.VAE, models.TEXT_ENCODER)
    if autoencoder is None:
        vae = _autoencoder(vae, run / "autoencoder.pt", plan, plan.autoencoder_minutes, is_encoder_frozen=False)
        scaling_factor = measure_scaling_factor(vae, plan.seed, min(plan.pool_size, 256))
    else:
        editor = load_editor(autoencoder, dtype="float32")
        vae, scaling_factor = editor.codec.vae, editor.scaling_factor
    logger.info("scaling factor %.4f", scaling_factor)
    config = ModelConfig(
        kind="editor",
        in_channels=8,
        num_heads=models.UNET["attention_head_dim"],
        prediction_type=models.PREDICTION_TYPE,  # type: ignore[arg-type]
        unet=models.UNET,
        vae={**models.VAE, "scaling_factor": scaling_factor},
        text_encoder=models.TEXT_ENCODER,
        **_untuned(plan),
    )
    write_checkpoint(path, unet.state_dict(), vae.state_dict(), text_encoder.state_dict(), config, torch.float32)


def _train_stage(run: Path, stage: Stage, base: str, plan: Plan, generated: Path | None) -> Path:
    """Make the pairs of a stage and run `ip2p train` on them; a stage that is done stays as it is."""
    path = run / MODELS / "ip2p" / f"{stage.name}.safetensors"
    if path.exists():
        return path
    dataset = run / f"pairs_{stage.size}"
    made = {"size": stage.size, "num_originals": stage.num_originals, "num_scenes": stage.num_scenes}
    wordings = write_pairs(dataset, seed=plan.seed, generated=generated, **made)
    config = stage_settings(run, stage, base, plan) | {"dataset": str(dataset), "wordings": str(wordings)}
    settings = run / f"{stage.name}.json"
    settings.write_text(json.dumps(config, indent=1))
    if train_command.main([str(settings)]):
        raise ConfigError(f"The stage {stage.name} was stopped; the same command goes on from there.")
    return path


def stage_settings(run: Path, stage: Stage, base: str, plan: Plan) -> dict[str, Any]:
    """The settings of `ip2p train` for a stage, but for its data."""
    return {
        "preset": "embedded",
        "base": base,
        "output": str(run / stage.name),
        "name": stage.name,
        "models": str(run / MODELS),
        "seed": plan.seed,
        "steps": stage.steps,
        "batch_size": stage.batch_size,
        "micro_batch_size": stage.batch_size,
        "learning_rate": stage.learning_rate,
        "resolution": stage.size,
        "change_share": 0.0,
        "mask_share": OBJECTS_SHARE,
        "validation_steps": min(1000, stage.steps),
        "validation_pairs": 8,
        "compile": stage.is_compiled,
        "cuda_graphs": not stage.is_compiled,
        "precision": plan.precision,
        "export_precision": "fp16" if stage == plan.stages[-1] else "fp32",
    }


def _train_decoder(path: Path, run: Path, plan: Plan) -> None:
    vae = load_editor(path, dtype="float32").codec.vae.requires_grad_(requires_grad=True)
    vae = _autoencoder(vae, run / "decoder.pt", plan, plan.decoder_minutes, is_encoder_frozen=True)
    raw = read_checkpoint(path)
    parts = raw.parts()
    write_checkpoint(path, parts.unet, vae.state_dict(), parts.text, raw.config)


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


@torch.no_grad()
def encode_modes(vae: Any, images: Tensor) -> Tensor:
    """Posterior modes [B, 4, h, w], unscaled, in memory, of images [B, 3, H, W] in [-1, 1]."""
    device = device_of(vae)
    with half_precision(device):
        modes: Tensor = vae.encode(images.to(device)).latent_dist.mode()
    return modes.float().cpu()


@torch.no_grad()
def measure_scaling_factor(vae: Any, seed: int, num_pictures: int) -> float:
    """One over the standard deviation of the latents, as in Rombach et al. 2022, rounded to four digits."""
    pool = build_pool(seed + 1, num_pictures).float() / 127.5 - 1
    return round(1 / float(torch.cat([encode_modes(vae, part) for part in torch.split(pool, 32)]).std()), 4)


def averaged(module: Any, state_file: Path) -> Any:
    """The module with the averaged weights of a finished stage, for inference."""
    saved = torch.load(state_file, "cpu", weights_only=True)  # noqa: TID251 - our own file, weights only
    module.load_state_dict(saved["ema"])
    return module.eval()


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of `ip2p train-embedded`."""
    parser = argparse.ArgumentParser(
        prog="ip2p train-embedded", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("editor.safetensors"), help="the model file")
    parser.add_argument("--run", type=Path, default=Path("runs/embedded"), help="folder of the state; resumes there")
    for name in ("autoencoder_minutes", "decoder_minutes"):
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=float, default=getattr(Plan, name), help="default: %(default)g")
    parser.add_argument("--start", type=Path, default=None, help="train this model further instead of from nothing")
    parser.add_argument("--autoencoder", type=Path, default=None, help="take the autoencoder of this model")
    parser.add_argument("--pairs", type=Path, default=None, help="a dataset of generated pairs to learn from too")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="default: %(default)s")
    sizes = [stage.size for stage in Plan.stages]
    parser.add_argument(
        "--sizes", type=int, nargs="+", choices=sizes, default=sizes, help="stages to run; default: all"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--smoke", action="store_true", help="a few seconds of every stage: checks wiring, not quality")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    plan = SMOKE
    if not options.smoke:
        plan = Plan(
            autoencoder_minutes=options.autoencoder_minutes,
            decoder_minutes=options.decoder_minutes,
            stages=tuple(stage for stage in Plan.stages if stage.size in options.sizes),
            seed=options.seed,
            threads=options.threads,
            precision=options.precision,
        )
    sources = {"start": options.start, "autoencoder": options.autoencoder, "generated": options.pairs}
    train(options.run, options.output, plan, **sources)
    return 0
