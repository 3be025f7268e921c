"""`ip2p train-embedded-clip`: train the embedded CLIP on captions and renders of shape_world, and say how well it ranks.

Contrastive training (Radford et al. 2021, arXiv:2103.00020) on batches that hold both sides of every edit, so that captions
which differ in one word have to be told apart; equal captions of a batch are no negatives.
"""

from __future__ import annotations

import argparse
import logging
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ...ip2p_core.clip_checkpoint import ScorerConfig, write_scorer
from ...ip2p_core.clip_scorer import CLIPScorer
from ...ip2p_core.open_clip_adapter import build_clip, tokenize_for_clip
from ..shape_world.captioned_edits import CaptionedEdit, captioned_edit
from ..shape_world.edits import EDIT_TYPES, random_edit
from ..shape_world.render import render
from ..shape_world.scene import BACKGROUNDS
from .state import TrainingState, half_precision, learning_rate

logger = logging.getLogger(__name__)

MODEL_CFG: dict[str, Any] = {
    "embed_dim": 64,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 64, "layers": 4, "width": 96, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 2},
}
SIZE, EDITS_PER_BATCH, PEAK_LR, TOKEN_STD = 64, 64, 2e-3, 0.5


@dataclass(frozen=True, kw_only=True)
class ClipPlan:
    """How long and on how much to train."""

    minutes: float = 12.0
    num_edits: int = 12_000
    num_tests: int = 500
    seed: int = 0
    threads: int = 2


SMOKE = ClipPlan(minutes=0.03, num_edits=80, num_tests=10)


def edits_of(purpose: str, count: int, *, allow_held_out: bool) -> list[CaptionedEdit]:
    """Draw edits, each a pure function of (purpose, index)."""
    return [captioned_edit(random.Random(f"{purpose}/{i}"), allow_held_out=allow_held_out) for i in range(count)]


def render_edits(edits: Sequence[CaptionedEdit]) -> Tensor:
    """Both sides of every edit [N, 2, SIZE, SIZE, 3], uint8."""
    pictures = [[render(scene, SIZE) for scene in (one.edit.before, one.edit.after)] for one in edits]
    return torch.from_numpy((np.array(pictures) * 255 + 0.5).astype(np.uint8))


def _soften(images: Tensor, generator: torch.Generator) -> Tensor:
    """Make renders [B, H, W, 3] in [0, 1] like decoded pictures: softer, other lights, a little noise."""
    pixels = images.movedim(-1, 1)
    factor = float(torch.empty(()).uniform_(0.4, 1.0, generator=generator))
    small = functional.interpolate(pixels, scale_factor=factor, mode="bilinear", antialias=True)
    pixels = functional.interpolate(small, size=images.shape[1:3], mode="bilinear")
    gain = torch.empty(len(pixels), 3, 1, 1).uniform_(0.85, 1.15, generator=generator)
    noise = torch.randn(pixels.shape, generator=generator) * 0.03
    return (pixels * gain + noise).clamp(0, 1).movedim(1, -1)


def contrastive_loss(images: Tensor, texts: Tensor, scale: Tensor, captions: Sequence[str]) -> Tensor:
    """Cross-entropy both ways; places off the diagonal whose captions are equal count for nothing.

    Args:
        images: features [B, D] of length 1.
        texts: features [B, D] of length 1.
        scale: of the cosines.
        captions: of every row.

    Returns:
        The loss, a scalar.
    """
    known = {caption: number for number, caption in enumerate(dict.fromkeys(captions))}
    numbers = torch.tensor([known[caption] for caption in captions])
    is_double = (numbers[:, None] == numbers[None]) & ~torch.eye(len(captions), dtype=torch.bool)
    logits = (scale * images @ texts.T).masked_fill(is_double, float("-inf"))
    rows = torch.arange(len(captions))
    return (functional.cross_entropy(logits, rows) + functional.cross_entropy(logits.T, rows)) / 2


def train_clip(model: Any, state_file: Path, plan: ClipPlan) -> None:
    """Train for a number of minutes of wall time, or go on where an earlier run stopped."""
    torch.set_num_threads(plan.threads)
    edits = edits_of(f"clip/{plan.seed}", plan.num_edits, allow_held_out=False)
    pictures = render_edits(edits)
    texts = [(one.caption, one.edited_caption) for one in edits]
    unique = list(dict.fromkeys(text for pair in texts for text in pair))
    ids = dict(zip(unique, tokenize_for_clip(unique, 77), strict=True))
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=PEAK_LR, weight_decay=0.05, betas=(0.9, 0.98), fused=True)
    state = TrainingState(state_file, model, optimizer, ema_decay=0.998)
    state.resume()
    last, losses = time.monotonic(), []
    while state.seconds < plan.minutes * 60:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(state.seconds / (plan.minutes * 60), PEAK_LR)
        generator = torch.Generator().manual_seed(state.step)
        chosen = torch.randint(0, len(edits), (min(EDITS_PER_BATCH, len(edits)),), generator=generator)
        captions = [text for row in chosen.tolist() for text in texts[row]]
        images = _soften(pictures[chosen].flatten(0, 1).float() / 255, generator)
        with half_precision():
            seen = model.encode_image(_normalise(images), normalize=True)
            read = model.encode_text(torch.stack([ids[text] for text in captions]), normalize=True)
        loss = contrastive_loss(seen.float(), read.float(), model.logit_scale.exp().clamp(max=50), captions)
        state.update(loss, parameters)
        losses.append(float(loss.detach()))
        now = time.monotonic()
        state.seconds, last = state.seconds + now - last, now
        if state.step % 200 == 0:
            logger.info("clip step %d, %.1f min, loss %.4f", state.step, state.seconds / 60, np.mean(losses))
            losses.clear()
            state.save()
    state.save()


def _normalise(images: Tensor) -> Tensor:
    return images.movedim(-1, 1) * 2 - 1


PREPROCESS = {"mean": [0.5] * 3, "std": [0.5] * 3}


def measure(scorer: CLIPScorer, num_tests: int) -> dict[str, float]:
    """Say how often the right one of two is ranked first, on edits and combinations that training never saw.

    Args:
        scorer: the model.
        num_tests: edits of each type.

    Returns:
        Per edit type: the share of edits whose result has a higher directional similarity than another edit of the same
        scene; and "caption", the share of scenes nearer to their own caption than to the edited one.
    """
    shares, nearer = {}, []
    for edit_type in EDIT_TYPES:
        rights = []
        rngs = [random.Random(f"clip-test/{edit_type}/{i}") for i in range(num_tests)]
        edits = [captioned_edit(rng, edit_type, allow_held_out=True) for rng in rngs]
        pictures = render_edits(edits).float() / 255
        wrong = torch.stack([_other_edit(one, rng) for one, rng in zip(edits, rngs, strict=True)])
        captions, edited = [one.caption for one in edits], [one.edited_caption for one in edits]
        good = scorer.score(pictures[:, 0], pictures[:, 1], captions, edited)
        bad = scorer.score(pictures[:, 0], wrong, captions, edited)
        rights = [a.directional > b.directional for a, b in zip(good, bad, strict=True)]
        swapped = scorer.score(pictures[:, 0], pictures[:, 1], edited, captions)
        nearer += [a.caption_0 > b.caption_0 for a, b in zip(good, swapped, strict=True)]
        shares[edit_type] = float(np.mean(rights))
    return {**shares, "caption": float(np.mean(nearer))}


def _other_edit(one: CaptionedEdit, rng: random.Random) -> Tensor:
    """A render of another edit of the same scene."""
    before, other = one.edit.before, one.edit.after
    while other == one.edit.after:
        if before.objects:
            other = random_edit(rng, before, rng.choice(("recolour", "replace", "remove", "background"))).after
        else:
            other = replace(before, background=rng.choice(list(BACKGROUNDS)))
    return torch.from_numpy(render(other, SIZE))


def train(run: Path, out: Path, plan: ClipPlan) -> dict[str, float]:
    """Train, write the model file, and measure it."""
    run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(plan.seed)
    model = build_clip(MODEL_CFG, "the embedded CLIP")
    nn.init.normal_(model.token_embedding.weight, std=TOKEN_STD)  # docs/adr/0007
    state_file = run / "clip.pt"
    train_clip(model, state_file, plan)
    saved = torch.load(state_file, weights_only=True)  # noqa: TID251 - our own file, weights only
    recipe = "ip2p train-embedded-clip: captions and renders of shape_world, both sides of every edit in a batch"
    config = ScorerConfig(model_cfg=MODEL_CFG, preprocess_cfg=PREPROCESS, recipe=recipe, licence="MIT")
    state = {name: value.half() if value.is_floating_point() else value for name, value in saved["ema"].items()}
    write_scorer(out, state, config)
    logger.info("wrote %s, %.2f MB", out, out.stat().st_size / 1e6)
    return measure(CLIPScorer.from_file(out), plan.num_tests)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of `ip2p train-embedded-clip`."""
    parser = argparse.ArgumentParser(prog="ip2p train-embedded-clip", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("clip.safetensors"), help="the model file")
    parser.add_argument(
        "--run", type=Path, default=Path("runs/embedded_clip"), help="folder of the state; resumes there"
    )
    parser.add_argument("--minutes", type=float, default=ClipPlan.minutes, help="of training (default: %(default)g)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--smoke", action="store_true", help="a few seconds: checks wiring, not quality")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    plan = ClipPlan(minutes=options.minutes, seed=options.seed, threads=options.threads)
    shares = train(options.run, options.output, SMOKE if options.smoke else plan)
    for name, share in shares.items():
        print(f"right one of two ranked first, {name:12s} {100 * share:.1f} %")  # noqa: T201
    return 0
