"""With which encoders edits are measured, opened once; metrics whose needs are not met are skipped by name.

`dino` and `structure` compare whole pictures; core's pair_metrics.py has the others.
Shapes: B pictures, H W height and width in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...ip2p_core.clip_scorer import CLIPScorer
from ...ip2p_core.errors import Ip2pError
from ...ip2p_core.pair_metrics import Columns, EditContext, PairMetrics, Scores, missing_ssim
from ...ip2p_core.torchmetrics_adapter import Lpips
from ..diffusers_adapter import choose_device
from ..edit_models import resolve_model
from ..edit_record import model_digest
from ..transformers_adapter import VisionEncoder
from .config import EvaluateConfig
from .examples import Example, mask_of

__all__ = ["Metrics", "Scores"]


@dataclass
class Metrics:
    """The encoders of a run, opened once.

    Attributes:
        config: of the run.
        scorer: CLIP.
        vision: DINO or another vision transformer.
        lpips: learned perceptual distance.
        skipped: metric -> why it is not measured.
    """

    config: EvaluateConfig
    scorer: CLIPScorer | None = None
    vision: VisionEncoder | None = None
    lpips: Lpips | None = None
    skipped: dict[str, str] = field(default_factory=dict)
    _kept: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, config: EvaluateConfig) -> Metrics:
        """Open the encoders that the settings name.

        Args:
            config: of the run.

        Returns:
            The metrics; an encoder that is named and cannot be opened skips its metrics, with the reason.
        """
        found = cls(config)
        device = str(choose_device(config.device))
        clip = "caption_0, caption_1, image, directional, instruction_match"
        found.scorer = found._open(
            clip, config.scorer, "no scorer is set", lambda name: _open_scorer(config, name, device)
        )
        found.vision = found._open(
            "dino, structure", config.dino, "no dino is set", lambda name: VisionEncoder(Path(name), device)
        )
        lpips = "" if config.lpips == "off" else config.lpips
        found.lpips = found._open("lpips", lpips, "lpips is off", lambda name: Lpips(name, device))
        reason = missing_ssim()
        if reason:
            found.skipped["ssim"] = reason
        return found

    def _open(self, metrics: str, name: str, reason: str, opening: Callable[[Any], Any]) -> Any:
        if not name:
            self.skipped[metrics] = reason
            return None
        try:
            return opening(name)
        except Ip2pError as error:
            self.skipped[metrics] = str(error)
            return None

    def identity(self) -> dict[str, Any]:
        """Say with what every number was measured; scores of another identity are not mixed with these."""
        config = self.config
        record: dict[str, Any] = {"pictures": "8 bit", "masking": config.masking}
        if self.scorer is not None:
            path = resolve_model(config.scorer, Path(config.models))
            record["clip"] = {
                "file": path.name,
                "sha256": model_digest(path),
                "architecture": config.architecture or self.scorer.config.model_cfg,
                "preprocessing": config.clip_preprocessing,
            }
        if self.vision is not None:
            record["dino"] = {
                "folder": self.vision.name,
                "sha256": model_digest(Path(config.dino)),
                "preprocessing": f"shorter side {round(self.vision.image_size * 256 / 224)}, middle {self.vision.image_size}",
            }
        if self.lpips is not None:
            record["lpips"] = {"net": self.lpips.net, "linear layers": "torchmetrics'"}
        return record

    def measure(self, examples: Sequence[Example], originals: Tensor, editeds: Tensor) -> list[Scores]:
        """Measure edits of one size.

        Args:
            examples: B of them.
            originals: [B, H, W, 3] in [0, 1].
            editeds: the same, as they were saved.

        Returns:
            The scores of each; names depend on what an example has.
        """
        pairs = PairMetrics(
            self.scorer,
            self.lpips,
            "ssim" not in self.skipped,
            self.config.masking,
            self.config.clip_preprocessing,
            self._seen_by_vision,
        )
        contexts = [_context(one) for one in examples]
        return pairs.measure(originals, editeds, contexts, self._remembered(pairs, examples, originals))

    def _seen_by_vision(self, before: Tensor, after: Tensor) -> Columns:
        """Whole pictures, by DINO."""
        if self.vision is None:
            return {}
        maps = [[self.vision.self_similarity(one) for one in images] for images in (before, after)]
        return {
            "dino": (self.vision.embed(before) * self.vision.embed(after)).sum(1),
            "structure": torch.stack([(a - b).square().mean() for a, b in zip(*maps, strict=True)]),
        }

    def _remembered(self, pairs: PairMetrics, examples: Sequence[Example], originals: Tensor) -> Tensor | None:
        """Features of the originals, which come again with every setting of a sweep."""
        if self.scorer is None:
            return None
        keys = tuple(one.key for one in examples)
        if self._kept.get("keys") != keys:
            self._kept = {"keys": keys, "features": pairs.embed(originals)}
        features: Tensor = self._kept["features"]
        return features


def _context(example: Example) -> EditContext:
    target = None if example.target is None else example.target.tensor()
    return EditContext(example.instruction, example.caption, example.edited_caption, mask_of(example), target)


def _open_scorer(config: EvaluateConfig, name: str, device: str) -> CLIPScorer:
    return CLIPScorer.from_file(resolve_model(name, Path(config.models)), config.architecture, device)
