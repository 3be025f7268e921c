"""`ip2p evaluate-embedded-generator`: what of a caption the pictures show, and what attention sharing keeps in pairs.

Pictures of one shape are judged by their pixels (shape_world/judge.py). Pairs are made from recolourings, with the same noise
each time: without sharing, with self-attention shared in more and more of the steps, as the published code does, and with
cross-attention shared too, as the paper's text says.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..ip2p_core.checkpoint import embedded_model_path
from ..ip2p_core.clip_scorer import CLIPScorer
from ..ip2p_core.image_tensor import to_pil
from ..ip2p_core.pair_generation import PairSettings, PaperTextSettings, draw_samples
from ..ip2p_core.triplet import Triplet
from .diffusers_adapter import load_generator
from .edit_backend import Editor
from .pair_sampler import PairSampling, sample_pairs
from .shape_world.captioned_edits import CaptionedEdit, captioned_edit
from .shape_world.judge import Judgement, judge

PAPER = PaperTextSettings(self_replace=0.5, max_self_tokens=None)
SHARINGS = {
    "nothing shared": PairSettings(num_samples=1, p2p_range=(0.0, 0.0)),
    **{f"self-attention, p {p:g}": PairSettings(num_samples=1, p2p_range=(p, p)) for p in (0.3, 0.6, 0.9)},
    "both, p 0.4": PairSettings(num_samples=1, p2p_range=(0.4, 0.4), mode="paper_text", paper_text=PAPER),
}
"""Ways to share attention; those of SHOWN are in the picture."""
SHOWN = ("nothing shared", "self-attention, p 0.6", "both, p 0.4")
BATCH = 8
MARGIN = 4
"""Pixels around an object that do not count as outside."""
SAME_PLACE = 0.05
"""Objects whose centres lie nearer to each other than this part of the side have the same place."""
NUM_SHOWN, ENLARGED = 6, 2


def held_out_recolourings(count: int) -> list[CaptionedEdit]:
    """Recolourings of scenes with one shape, held-out combinations included."""
    rngs = [random.Random(f"generator-test/{index}") for index in range(count)]
    return [captioned_edit(rng, "recolour", allow_held_out=True, max_objects=1) for rng in rngs]


def make_pairs(model: Editor, edits: Sequence[CaptionedEdit], sharing: str, seed: int = 0) -> Tensor:
    """Sample a pair of every edit at the model's own scale, size and steps.

    Args:
        model: the generator.
        edits: with the captions.
        sharing: a key of SHARINGS.
        seed: of the run; pairs of the same seed start from the same noise.

    Returns:
        Pictures [N, 2, H, W, 3].
    """
    config = model.config
    scale = config.default_text_guidance_scale
    settings = replace(SHARINGS[sharing], guidance_range=(scale, scale))
    size = config.working_resolution
    sampling = PairSampling(width=size, height=size, steps=config.default_steps, sampler=config.default_sampler)
    triplets = [Triplet(one.caption, one.edit.instruction, one.edited_caption) for one in edits]
    made = []
    for first in range(0, len(triplets), BATCH):
        part = triplets[first : first + BATCH]
        draws = [draw for one in part for draw in draw_samples(one, settings, seed)]
        made.append(sample_pairs(model, draws, part, settings, sampling))
    joined = torch.cat(made)
    return joined.reshape(-1, 2, *joined.shape[1:])


def outside_change(pair: Tensor, judgements: Sequence[Judgement]) -> float:
    """Mean absolute change [0, 1] of a pair [2, H, W, 3] where the original has no object: an ideal edit leaves it alone."""
    objects = torch.from_numpy(judgements[0].mask)[None, None]
    near = torch.nn.functional.max_pool2d(objects, 2 * MARGIN + 1, stride=1, padding=MARGIN)[0, 0]
    change = (pair[0] - pair[1]).abs().mean(-1)[near == 0]
    return float(change.mean()) if change.numel() else 0.0


def overlap(judgements: Sequence[Judgement]) -> float:
    """Intersection over union of the objects of a pair."""
    one, other = (judgement.mask > 0 for judgement in judgements)
    union = float((one | other).sum())
    return float((one & other).sum()) / union if union else 0.0


def distance(judgements: Sequence[Judgement]) -> float:
    """How far the centres of the two objects of a pair lie apart, as a part of the side; 1 where one is missing."""
    places = [np.argwhere(judgement.mask > 0) for judgement in judgements]
    if not all(len(place) for place in places):
        return 1.0
    one, other = (place.mean(0) for place in places)
    return float(np.linalg.norm(one - other)) / len(judgements[0].mask)


def evaluate_pairs(pairs: Tensor, edits: Sequence[CaptionedEdit], scorer: CLIPScorer) -> dict[str, float]:
    """Means over pairs.

    Args:
        pairs: [N, 2, H, W, 3].
        edits: recolourings.
        scorer: the CLIP model.

    Returns:
        Change outside the original's object, overlap of the objects, shares of pairs with the same judged place (centres
        within `SAME_PLACE` of the side), shape and background, and with the new colour, and the directional similarity.
    """
    judged = [[judge(picture.numpy()) for picture in pair] for pair in pairs]
    captions, edited = [one.caption for one in edits], [one.edited_caption for one in edits]
    scores = scorer.score(pairs[:, 0], pairs[:, 1], captions, edited)
    return {
        "outside": float(np.mean([outside_change(*both) for both in zip(pairs, judged, strict=True)])),
        "overlap": float(np.mean([overlap(two) for two in judged])),
        "same place": float(np.mean([distance(two) <= SAME_PLACE for two in judged])),
        "same shape": float(np.mean([two[0].shape is not None and two[0].shape == two[1].shape for two in judged])),
        "same background": float(np.mean([two[0].background == two[1].background for two in judged])),
        "new colour": float(np.mean([two[1].colour == e.edit.colour for two, e in zip(judged, edits, strict=True)])),
        "directional": float(np.mean([one.directional for one in scores])),
    }


def evaluate_captions(originals: Tensor, edits: Sequence[CaptionedEdit]) -> dict[str, float]:
    """Shares of pictures [N, H, W, 3] that show what their captions say."""
    judged = [judge(picture.numpy()) for picture in originals]
    scenes = [one.edit.before for one in edits]
    rights = {
        "background": [a.background == b.background for a, b in zip(judged, scenes, strict=True)],
        "colour": [a.colour == b.objects[0].colour for a, b in zip(judged, scenes, strict=True)],
        "shape": [a.shape == b.objects[0].shape for a, b in zip(judged, scenes, strict=True)],
    }
    return {name: float(np.mean(values)) for name, values in rights.items()}


def sharing_picture(pairs: dict[str, Tensor], num_shown: int = NUM_SHOWN) -> Image.Image:
    """One column a pair: original, and what was made of the edited caption by every way of SHOWN.

    Args:
        pairs: key of SHARINGS -> pictures [N, 2, H, W, 3].
        num_shown: pairs.

    Returns:
        The picture, enlarged.
    """
    rows = [pairs[SHOWN[0]][:num_shown, 0], *(pairs[name][:num_shown, 1] for name in SHOWN)]
    joined = torch.cat([torch.cat(list(row), dim=1) for row in rows])
    picture = to_pil(joined)
    return picture.resize((ENLARGED * picture.width, ENLARGED * picture.height), Image.Resampling.LANCZOS)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of `ip2p evaluate-embedded-generator`."""
    parser = argparse.ArgumentParser(prog="ip2p evaluate-embedded-generator", description=__doc__)
    parser.add_argument("--model", type=Path, default=None, help="a model file (default: the embedded generator)")
    parser.add_argument("--pairs", type=int, default=96, help="pairs for every way to share (default: %(default)s)")
    parser.add_argument("--scale", type=float, default=None, help="text guidance scale (default: the model's own)")
    parser.add_argument("--steps", type=int, default=None, help="sampling steps (default: the model's own)")
    parser.add_argument("--picture", type=Path, default=None, help="write pairs with and without sharing to this file")
    parser.add_argument("--json", type=Path, default=None, help="also write the figures to this file")
    options = parser.parse_args(argv)
    path = options.model or embedded_model_path("generator")
    model, scorer = load_generator(path), CLIPScorer.from_file(embedded_model_path("clip"))
    chosen: dict[str, Any] = {"default_text_guidance_scale": options.scale, "default_steps": options.steps}
    config = replace(model.config, **{name: value for name, value in chosen.items() if value is not None})
    model = replace(model, config=config)
    edits = held_out_recolourings(options.pairs)
    pairs = {name: make_pairs(model, edits, name) for name in SHARINGS}
    report: dict[str, Any] = {
        "captions": evaluate_captions(pairs[SHOWN[0]][:, 0], edits),
        "pairs": {name: evaluate_pairs(made, edits, scorer) for name, made in pairs.items()},
    }
    right = ", ".join(f"{name} {100 * share:.1f} %" for name, share in report["captions"].items())
    print(f"{path.name}, {options.pairs} pictures of one shape show the caption's {right}")  # noqa: T201
    for way, row in report["pairs"].items():
        print(f"{way}: " + ", ".join(f"{name} {value:.3f}" for name, value in row.items()))  # noqa: T201
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))
    if options.picture:
        sharing_picture(pairs).save(options.picture)
    return 0
