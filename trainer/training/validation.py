"""Looking at a run: held-out pairs edited by the averaged weights, the loss on them, and their CLIP similarities."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from ...ip2p_core.clip_scorer import CLIPScorer
from ...ip2p_core.guidance import GuidanceScales, GuidanceSettings
from ...ip2p_core.image_tensor import to_pil
from ...ip2p_core.pair_store.durable_files import write_durably
from ...ip2p_core.sample_order import Crop, SampleOrder
from ...ip2p_core.score_plot import INK, PAPER, load_font
from ...ip2p_core.train_job import TrainConfig
from ..edit import EditSettings, default_settings, edit_images
from ..edit_backend import Editor
from .batches import BatchSettings, MicroBatches
from .curve import draw_losses
from .latents import CropSettings
from .objective_step import EditObjective
from .pictures import CroppedPair, EditPairs
from .run_log import LOG

SEED = 0
NUM_LOSS_BATCHES, LOSS_BATCH = 4, 8
SCALE_FACTORS = ((1.0, 1.0), (0.5, 1.0), (1.0, 1.25))
"""Text and image guidance scale of each column, times the model's defaults."""
GAP, LINE = 6, 18
SMALLEST_SIDE = 160
"""Smaller pictures are enlarged by a whole factor, so that the titles have room."""
FOLDER, RECORDS, PAGE, CURVE = "validation", "validation.jsonl", "index.html", "losses.png"


@contextmanager
def averaged(weights: Mapping[str, nn.Parameter], average: Mapping[str, Tensor]) -> Iterator[None]:
    """Use the averaged weights meanwhile; without an average, the weights as they are."""
    kept = {name: weights[name].detach().clone() for name in average}
    with torch.no_grad():
        for name, value in average.items():
            weights[name].copy_(value)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in kept.items():
                weights[name].copy_(value)


@dataclass(frozen=True)
class Validation:
    """The held-out pairs of a run.

    Attributes:
        editor: the model; its U-Net is the one that is trained.
        pairs: the split.
        config: of the run.
        scorer: CLIP; None shows no similarities.
        folder: of the grids.
    """

    editor: Editor
    pairs: EditPairs
    config: TrainConfig
    scorer: CLIPScorer | None
    folder: Path

    def run(self, step: int, predict: nn.Module, objective: EditObjective) -> tuple[Path, dict[str, Any]]:
        """Edit the held-out pairs and write a grid, a record and a page of all grids so far.

        Args:
            step: of the run.
            predict: the network, with the weights to look at.
            objective: the loss, without dropout.

        Returns:
            The grid's path, and the record: loss and similarities.
        """
        was_training = predict.training
        predict.eval()
        try:
            with torch.no_grad(), torch.compiler.set_stance("force_eager"):  # else every shape here would be compiled
                record: dict[str, Any] = {"step": step, "loss": round(self._loss(predict, objective), 6)}
                shown = self._shown()
                columns = [self._edit(shown, factors) for factors in SCALE_FACTORS]
                if self.scorer is not None:
                    record.update(self._similarities(shown, columns[0]))
        finally:
            predict.train(was_training)
        path = self.folder / f"step-{step:08d}.png"
        grid = draw_grid(shown, columns, self._texts(), self._titles())
        write_durably(path, lambda beside: grid.save(beside, format="PNG"))
        self._add_to_page(record, path.name)
        return path, record

    def _shown(self) -> list[CroppedPair]:
        side = self.config.resolution
        crop = Crop(side, 0.5, 0.5, is_flipped=False)
        return [self.pairs.load(row, crop, (side, side)) for row in self._rows()]

    def _rows(self) -> list[int]:
        """Pairs from all over the split, as neighbours are edits of one original."""
        count = min(self.config.validation_pairs, len(self.pairs))
        return [i * len(self.pairs) // count for i in range(count)]

    def _texts(self) -> list[str]:
        return [self.pairs.records[row].triplet.instruction for row in self._rows()]

    def _settings(self, factors: tuple[float, float]) -> EditSettings:
        settings = default_settings(self.editor.config)
        scales = settings.guidance.scales
        changed = GuidanceScales(
            text_guidance_scale=scales.text_guidance_scale * factors[0],
            image_guidance_scale=scales.image_guidance_scale * factors[1],
        )
        guidance = GuidanceSettings(scales=changed)
        return replace(settings, guidance=guidance, working_resolution=self.config.resolution)

    def _titles(self) -> list[str]:
        scales = [self._settings(factors).guidance.scales for factors in SCALE_FACTORS]
        edits = [f"text {one.text_guidance_scale:g}, image {one.image_guidance_scale:g}" for one in scales]
        return ["original", "edited", *edits]

    def _edit(self, shown: Sequence[CroppedPair], factors: tuple[float, float]) -> Tensor:
        images = torch.stack([_image(pair.original) for pair in shown]).to(self.editor.device)
        return edit_images(self.editor, images, self._texts(), self._settings(factors), seed=SEED).image.cpu()

    def _similarities(self, shown: Sequence[CroppedPair], edited: Tensor) -> dict[str, float]:
        if self.scorer is None:
            return {}
        originals = torch.stack([_image(pair.original) for pair in shown])
        triplets = [self.pairs.records[row].triplet for row in self._rows()]
        scores = self.scorer.score(
            originals, edited, [one.caption for one in triplets], [one.edited_caption for one in triplets]
        )
        columns = np.array([list(one) for one in scores]).mean(0)
        return {f"clip_{name}": round(float(value), 4) for name, value in zip(scores[0]._fields, columns, strict=True)}

    def _loss(self, predict: nn.Module, objective: EditObjective) -> float:
        """The mean over fixed draws of the held-out pairs, encoded on the way."""
        config, side = self.config, self.config.resolution
        crops = CropSettings(resize=(side, side), flip=0.0, is_skipping=True, is_with_mask=config.mask_share > 0)
        settings = BatchSettings.of(self.editor, SEED, config.start_share, crops)
        order = SampleOrder(SEED, (np.arange(len(self.pairs)),), min(LOSS_BATCH, len(self.pairs)))
        batches = MicroBatches(self.pairs, order, [(side, side)], settings, None)
        return float(np.mean([float(objective.loss(predict, batches[i])) for i in range(NUM_LOSS_BATCHES)]))

    def _add_to_page(self, record: dict[str, Any], picture: str) -> None:
        """A run that goes on from before a grid makes that grid again: the newest record of a step counts."""
        path = self.folder / RECORDS
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        records = {one["step"]: one for one in map(json.loads, lines)} | {
            record["step"]: {**record, "picture": picture}
        }
        kept = [records[step] for step in sorted(records)]
        text = "".join(f"{json.dumps(one)}\n" for one in kept)
        write_durably(path, lambda beside: beside.write_text(text, encoding="utf-8"))
        has_curve = draw_losses(self.folder.parent / LOG, kept, self.folder / CURVE)
        page = write_page(kept, self.config.name, CURVE if has_curve else None)
        write_durably(self.folder / PAGE, lambda beside: beside.write_text(page, encoding="utf-8"))


def draw_grid(
    shown: Sequence[CroppedPair], columns: Sequence[Tensor], texts: Sequence[str], titles: Sequence[str]
) -> Image.Image:
    """Draw originals, targets and edits side by side, the instruction above each row.

    Args:
        shown: the pairs, one per row.
        columns: edits [B, H, W, 3] in [0, 1], one per pair of scales.
        texts: instructions.
        titles: of all columns.

    Returns:
        The picture.
    """
    factor = -(-SMALLEST_SIDE // int(columns[0].shape[1]))
    side = factor * int(columns[0].shape[1])
    width, height = side + GAP, side + LINE + GAP
    picture = Image.new("RGB", (len(titles) * width + GAP, len(shown) * height + LINE + GAP), PAPER)
    draw, font = ImageDraw.Draw(picture), load_font()
    for number, title in enumerate(titles):
        draw.text((GAP + number * width, 2), title, fill=INK, font=font)
    for row, pair in enumerate(shown):
        top = LINE + row * height
        draw.text((GAP, top + 2), texts[row], fill=INK, font=font)
        images = [_image(pair.original), _image(pair.edited), *(column[row] for column in columns)]
        for number, image in enumerate(images):
            cell = to_pil(image).resize((side, side), Image.Resampling.NEAREST)
            picture.paste(cell, (GAP + number * width, top + LINE))
    return picture


def write_page(records: Sequence[Mapping[str, Any]], title: str, curve: str | None = None) -> str:
    """Write an HTML page of the losses and all grids, the newest first, each with its numbers."""
    parts = [f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title><h1>{html.escape(title)}</h1>"]
    if curve is not None:
        parts.append(f'<img src="{html.escape(curve)}" alt="losses">')
    for record in reversed(records):
        numbers = ", ".join(f"{name} {value}" for name, value in record.items() if name not in ("step", "picture"))
        picture = html.escape(str(record["picture"]))
        parts.append(
            f'<h2>Step {record["step"]}</h2><p>{html.escape(numbers)}</p><img src="{picture}" alt="held-out pairs">'
        )
    return "\n".join(parts)


def _image(picture: Tensor) -> Tensor:
    """[3, H, W] in [-1, 1] to [H, W, 3] in [0, 1]."""
    return (picture.permute(1, 2, 0) + 1) / 2
