"""`ip2p evaluate-embedded`: measure the embedded editor on pictures, wordings and scenes that it never saw.

Distances are mean absolute differences (L1) on [0, 1] at the working resolution and the stored settings, against targets
that went through the autoencoder: D = L1(result, AE(target)) / L1(AE(input), AE(target)).
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from ..ip2p_core.checkpoint import embedded_model_path
from ..ip2p_core.guidance import GuidanceScales, GuidanceSettings
from ..ip2p_core.image_size import Extent, fit, working_extent
from ..ip2p_core.picture_metrics import l1
from .diffusers_adapter import load_editor
from .edit import EditSettings, default_settings
from .edit_backend import Editor
from .embedded.pictures import HELD_OUT_PHOTOS, open_photo
from .measure import BATCH, edit_many, round_trip, to_tensor
from .photo_edits import EFFECTS, WORDINGS, apply_effect, held_out_wording
from .shape_world.edits import SceneEdit, random_edit
from .shape_world.judge import nearest_name
from .shape_world.render import render, render_mask
from .shape_world.scene import PALETTE, random_scene

TEXT_SCALES = (0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6)
IMAGE_SCALES = (0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6)
CORRELATION_EFFECTS = ("sepia", "sketch")


@dataclass(frozen=True)
class SceneScore:
    """How one edit of a scene came out."""

    edit: SceneEdit
    is_colour_right: bool | None
    outside: float
    """L1 to AE(target) outside the mask."""
    distance: float | None
    """D of the whole picture; recolourings are judged by their colour instead, which saves time."""
    kept: tuple[bool, ...] = ()
    """Of a recolouring: whether each of the other objects has its colour still."""


def held_out_photo(name: str, resolution: int, multiple: int) -> Tensor:
    """A held-out photograph [1, H, W, 3] at the working size."""
    photo = to_tensor([np.asarray(open_photo(*HELD_OUT_PHOTOS[name]), np.float32) / 255])
    return fit(photo, working_extent(Extent(photo.shape[2], photo.shape[1]), resolution, multiple))


def photo_distances(editor: Editor, settings: EditSettings) -> tuple[dict[str, dict[str, float]], float]:
    """Per effect D (for identity: L1 to the round trip) of a trained and the held-out wording; round-trip PSNR."""
    rows: dict[str, dict[str, list[float]]] = {name: {"trained": [], "held_out": []} for name in EFFECTS}
    psnr = []
    for photo_name in HELD_OUT_PHOTOS:
        photo = held_out_photo(photo_name, settings.working_resolution, editor.config.size_multiple)
        targets = to_tensor([apply_effect(name, photo[0].numpy()) for name in EFFECTS])
        expected, start = round_trip(editor, targets), round_trip(editor, photo)
        psnr.append(-10 * float(torch.log10((start - photo).square().mean())))
        span = l1(start.expand_as(expected), expected)
        for kind, wording in (("trained", lambda name: WORDINGS[name][0]), ("held_out", held_out_wording)):
            results = edit_many(editor, photo.expand_as(expected), [wording(name) for name in EFFECTS], settings)
            errors = l1(results, expected)
            for i, name in enumerate(EFFECTS):
                rows[name][kind].append(float(errors[i] if name == "identity" else errors[i] / span[i]))
    means = {name: {kind: float(np.mean(v)) for kind, v in row.items()} for name, row in rows.items()}
    return means, float(np.mean(psnr))


def held_out_scene_edits(count: int, edit_type: str) -> list[SceneEdit]:
    """Edits of unseen scenes: half of them in the held-out wording, held-out combinations included."""
    edits = []
    for index in range(count):
        rng = random.Random(f"held-out/{edit_type}/{index}")
        scene = random_scene(rng, rng.choice((1, 1, 2, 2, 3)), allow_held_out=True)
        edits.append(random_edit(rng, scene, edit_type, held_out_wording=index % 2 == 0))
    return edits


def nearest_colour(image: Tensor, mask: Tensor) -> str:
    """Name of the palette colour nearest to the mean colour [H, W, 3] inside a mask [H, W]."""
    inside = mask > 0.99
    return nearest_name(image[inside].mean(0).numpy(), PALETTE)


def score_scenes(editor: Editor, settings: EditSettings, edits: Sequence[SceneEdit], seed: int = 0) -> list[SceneScore]:
    """Edit scenes of one type, rendered at the working resolution, and compare with their exact targets."""
    size = settings.working_resolution
    scores: list[SceneScore] = []
    for first in range(0, len(edits), BATCH):
        batch = edits[first : first + BATCH]
        before = to_tensor([render(edit.before, size) for edit in batch])
        expected = round_trip(editor, to_tensor([render(edit.after, size) for edit in batch]))
        results = edit_many(editor, before, [edit.instruction for edit in batch], settings, seed + first)
        is_recolour = batch[0].edit_type == "recolour"
        distances = None if is_recolour else l1(results, expected) / l1(round_trip(editor, before), expected)
        for i, edit in enumerate(batch):
            mask = torch.from_numpy(edit.mask(size))
            outside = mask < 0.01
            is_right = nearest_colour(results[i], mask) == edit.colour if is_recolour else None
            away = float((results[i] - expected[i]).abs()[outside].mean()) if bool(outside.any()) else 0.0
            kept = others_kept(results[i], edit) if is_recolour else ()
            scores.append(SceneScore(edit, is_right, away, None if distances is None else float(distances[i]), kept))
    return scores


def others_kept(image: Tensor, edit: SceneEdit) -> tuple[bool, ...]:
    """Say of each object that a recolouring should leave alone whether it has its colour in a square image [H, H, 3]."""
    others = [thing for thing in edit.before.objects if thing not in (edit.changed or ())]
    masks = [torch.from_numpy(render_mask((thing,), len(image))) for thing in others]
    return tuple(nearest_colour(image, mask) == thing.colour for thing, mask in zip(others, masks, strict=True))


def with_scales(settings: EditSettings, s_T: float, s_I: float) -> EditSettings:
    """The same settings with other guidance scales."""
    scales = GuidanceScales(text_guidance_scale=s_T, image_guidance_scale=s_I)
    return replace(settings, guidance=GuidanceSettings(scales=scales))


def rank_correlations(editor: Editor, settings: EditSettings, seeds: Sequence[int] = (0, 1, 2)) -> dict[str, Any]:
    """Spearman: s_T with edit strength, s_I with similarity to the input; each over seven values and three seeds.

    Strength is L1(result, AE(input)) and similarity its negative, averaged over the held-out photographs and two edits.
    """
    scales = settings.guidance.scales
    photos = [
        held_out_photo(name, settings.working_resolution, editor.config.size_multiple) for name in HELD_OUT_PHOTOS
    ]
    unchanged = [round_trip(editor, photo) for photo in photos]
    instructions = [held_out_wording(name) for name in CORRELATION_EFFECTS]

    def change(varied: EditSettings, seed: int) -> float:
        means = []
        for photo, same in zip(photos, unchanged, strict=True):
            images = photo.expand(len(instructions), -1, -1, -1)
            results = edit_many(editor, images, instructions, varied, seed)
            means.append(float(l1(results, same.expand_as(results)).mean()))
        return float(np.mean(means))

    s_i, s_t = scales.image_guidance_scale, scales.text_guidance_scale
    text = [[change(with_scales(settings, s, s_i), seed) for s in TEXT_SCALES] for seed in seeds]
    image = [[-change(with_scales(settings, s_t, s), seed) for s in IMAGE_SCALES] for seed in seeds]
    return {
        "text_scales": TEXT_SCALES,
        "edit_strength": text,
        "text_rho": float(spearmanr(list(TEXT_SCALES) * len(seeds), np.ravel(text)).statistic),
        "image_scales": IMAGE_SCALES,
        "similarity": image,
        "image_rho": float(spearmanr(list(IMAGE_SCALES) * len(seeds), np.ravel(image)).statistic),
    }


def print_report(report: dict[str, Any]) -> None:
    """Show the figures as a person would read them."""
    settings = report["settings"]
    print(f"model {report['model']}, settings {settings}")  # noqa: T201
    print(f"round-trip PSNR of the held-out photographs: {report['psnr']:.2f} dB")  # noqa: T201
    print("global edits on the held-out photographs, mean D (trained wording / held-out wording):")  # noqa: T201
    good = 0
    for name, row in report["photos"].items():
        if name == "identity":
            continue
        good += max(row.values()) <= 0.5
        print(f"  {name:16s} {row['trained']:.3f} / {row['held_out']:.3f}")  # noqa: T201
    print(f"  D <= 0.5 with both wordings: {good} of {len(report['photos']) - 1}")  # noqa: T201
    row = report["photos"]["identity"]
    print(f"identity, L1 to the round trip: {row['trained']:.4f} / {row['held_out']:.4f}")  # noqa: T201
    for name, scene in report["scenes"].items():
        right = f"D {scene['distance']:.3f}" if scene["right"] is None else f"colour right {100 * scene['right']:.1f} %"
        if scene["others_kept"] is not None:
            right += f", others kept theirs {100 * scene['others_kept']:.1f} %"
        if scene["whole"] is not None:
            right += f", all of it {100 * scene['whole']:.1f} %"
        print(f"scenes, {name:12s} n={scene['n']}: {right}, outside L1 {scene['outside']:.4f}")  # noqa: T201
    correlation = report.get("correlation")
    if correlation:
        print(f"Spearman s_T with edit strength: {correlation['text_rho']:.3f}")  # noqa: T201
        print(f"Spearman s_I with similarity to the input: {correlation['image_rho']:.3f}")  # noqa: T201


def summarise(scores: Sequence[SceneScore]) -> dict[str, Any]:
    """Means over the edits of one type."""
    right = [s.is_colour_right for s in scores if s.is_colour_right is not None]
    distances = [s.distance for s in scores if s.distance is not None]
    kept = [is_kept for s in scores for is_kept in s.kept]
    whole = [s.is_colour_right and all(s.kept) for s in scores if s.is_colour_right is not None]
    return {
        "n": len(scores),
        "others_kept": float(np.mean(kept)) if kept else None,
        "right": float(np.mean(right)) if right else None,
        "whole": float(np.mean(whole)) if whole else None,
        "outside": float(np.mean([s.outside for s in scores])),
        "distance": float(np.mean(distances)) if distances else None,
    }


def evaluate(editor: Editor, settings: EditSettings, num_scenes: int) -> dict[str, Any]:
    """All figures of the model card."""
    photos, psnr = photo_distances(editor, settings)
    recolour = score_scenes(editor, settings, held_out_scene_edits(num_scenes, "recolour"))
    unseen = [s for s in recolour if s.edit.is_held_out()]
    scenes = {"recolour": summarise(recolour), "recolour, unseen combination": summarise(unseen)}
    for kind in ("replace", "add", "remove", "background"):
        scenes[kind] = summarise(score_scenes(editor, settings, held_out_scene_edits(num_scenes // 10, kind)))
    return {
        "settings": {
            "text_guidance_scale": settings.guidance.scales.text_guidance_scale,
            "image_guidance_scale": settings.guidance.scales.image_guidance_scale,
            "steps": settings.steps,
            "sampler": settings.sampler,
            "scheduler": settings.scheduler,
            "working_resolution": settings.working_resolution,
        },
        "psnr": psnr,
        "photos": photos,
        "scenes": scenes,
        "correlation": rank_correlations(editor, settings),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of `ip2p evaluate-embedded`."""
    parser = argparse.ArgumentParser(prog="ip2p evaluate-embedded", description=__doc__)
    parser.add_argument("--model", type=Path, default=None, help="a model file (default: the embedded editor)")
    parser.add_argument("--scenes", type=int, default=500, help="number of held-out scenes for the recolouring")
    parser.add_argument("--resolution", type=int, default=None, help="working resolution (default: the stored one)")
    parser.add_argument("--json", type=Path, default=None, help="also write the figures to this file")
    options = parser.parse_args(argv)
    path = options.model or embedded_model_path("editor")
    editor = load_editor(path)
    settings = default_settings(editor.config)
    if options.resolution:
        settings = replace(settings, working_resolution=options.resolution)
    report = {"model": path.name, **evaluate(editor, settings, options.scenes)}
    print_report(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))
    return 0
