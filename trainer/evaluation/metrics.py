"""What is measured of every edit, and with which encoders; metrics whose needs are not met are skipped by name.

`image`, `caption_0`, `caption_1`, `directional`: the paper's CLIP similarities; `instruction_match`: edited picture and instruction.
l1, l2, psnr, ssim, lpips, dino, structure compare original and edited picture, `target_` the right result and the edited one;
`_outside` and `_inside` count the part outside and inside the mask.
Shapes: B pictures, H W height and width in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import torch
from PIL import Image
from torch import Tensor

from ...ip2p_core.clip_scorer import CLIPScorer
from ...ip2p_core.errors import ConfigError, Ip2pError
from ...ip2p_core.image_tensor import to_pil
from ...ip2p_core.picture_metrics import centre_crop, l1, l2, psnr_of
from ...ip2p_core.similarity import PairFeatures, score_pairs
from ...ip2p_core.torchmetrics_adapter import SMALLEST_LPIPS, SMALLEST_SSIM, Lpips, ssim
from ..diffusers_adapter import choose_device
from ..edit_models import resolve_model
from ..edit_record import model_digest
from ..transformers_adapter import VisionEncoder
from .config import EvaluateConfig
from .examples import Example, mask_of

Scores = dict[str, float]
_OUTSIDE, _INSIDE = "_outside", "_inside"


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
        try:
            ssim(torch.zeros(1, 16, 16, 3), torch.zeros(1, 16, 16, 3))
        except ConfigError as error:
            found.skipped["ssim"] = str(error)
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
        scores: list[Scores] = [{} for _ in examples]
        self._compare("", originals, editeds, scores, range(len(examples)))
        self._similarities(examples, originals, editeds, scores)
        for number, example in enumerate(examples):
            pair = originals[number : number + 1], editeds[number : number + 1]
            mask = mask_of(example)
            if mask is not None:
                for suffix, part in ((_OUTSIDE, 1 - mask), (_INSIDE, mask)):
                    self._compare_part(suffix, *pair, part[None], scores[number])
                if self.scorer is not None and example.edited_caption and bool(mask.any()):
                    seen = (pair[1] * 255 * mask[..., None]).floor() / 255
                    text = self.scorer.embed_texts([example.edited_caption]).cpu()
                    scores[number]["caption_1" + _INSIDE] = float(self._images(seen)[0] @ text[0])
            if example.target is not None:
                target = example.target.tensor()[None]
                edited = _resized(editeds[number], target.shape[2], target.shape[1])[None]
                self._compare("target_", target, edited, scores, [number])
                if self.scorer is not None:
                    features = self._images(torch.cat([target, edited]))
                    scores[number]["target_image"] = float(features[0] @ features[1])
        return scores

    def _compare(
        self, prefix: str, before: Tensor, after: Tensor, scores: Sequence[Scores], numbers: Sequence[int]
    ) -> None:
        """Whole pictures."""
        squares = l2(before, after)
        columns = {"l1": l1(before, after), "l2": squares, "psnr": psnr_of(squares)}
        if "ssim" not in self.skipped and min(before.shape[1:3]) >= SMALLEST_SSIM:
            columns["ssim"] = ssim(before, after)
        if self.lpips is not None and min(before.shape[1:3]) >= SMALLEST_LPIPS:
            columns["lpips"] = self.lpips(before, after)
        if self.vision is not None:
            columns["dino"] = (self.vision.embed(before) * self.vision.embed(after)).sum(1)
            columns["structure"] = torch.stack(
                [self._structure_distance(*pair) for pair in zip(before, after, strict=True)]
            )
        for name, values in columns.items():
            for number, value in zip(numbers, values.tolist(), strict=True):
                scores[number][prefix + name] = value

    def _structure_distance(self, before: Tensor, after: Tensor) -> Tensor:
        assert self.vision is not None  # noqa: S101
        maps = [self.vision.self_similarity(one) for one in (before, after)]
        return (maps[0] - maps[1]).square().mean()

    def _compare_part(self, suffix: str, before: Tensor, after: Tensor, part: Tensor, scores: Scores) -> None:
        """One picture, inside a mask [1, H, W]; nothing where the mask is empty."""
        if not bool(part.any()):
            return
        masking = self.config.masking
        squares = l2(before, after, part, masking)
        found = {"l1": l1(before, after, part, masking), "l2": squares, "psnr": psnr_of(squares)}
        seen = [value * part[..., None] for value in (before, after)]
        if "ssim" not in self.skipped and min(before.shape[1:3]) >= SMALLEST_SSIM:
            found["ssim"] = ssim(*seen)
        if self.lpips is not None and min(before.shape[1:3]) >= SMALLEST_LPIPS:
            found["lpips"] = self.lpips(*seen)
        scores.update({name + suffix: float(value) for name, value in found.items()})

    def _similarities(
        self, examples: Sequence[Example], originals: Tensor, editeds: Tensor, scores: Sequence[Scores]
    ) -> None:
        if self.scorer is None:
            return
        before, after = self._remembered(examples, originals), self._images(editeds)
        texts = self.scorer.embed_texts([one.instruction for one in examples]).cpu()
        for number, (a, b, text) in enumerate(zip(before, after, texts, strict=True)):
            scores[number] |= {"image": float(a @ b), "instruction_match": float(b @ text)}
        rows = [number for number, one in enumerate(examples) if one.has_captions]
        if not rows:
            return
        captions = self.scorer.embed_texts([examples[row].caption for row in rows]).cpu()
        edited_captions = self.scorer.embed_texts([examples[row].edited_caption for row in rows]).cpu()
        for row, found in zip(
            rows, score_pairs(PairFeatures(before[rows], after[rows], captions, edited_captions)), strict=True
        ):
            scores[row] |= found._asdict()

    def _remembered(self, examples: Sequence[Example], originals: Tensor) -> Tensor:
        """Features of the originals, which come again with every setting of a sweep."""
        keys = tuple(one.key for one in examples)
        if self._kept.get("keys") != keys:
            self._kept = {"keys": keys, "features": self._images(originals)}
        features: Tensor = self._kept["features"]
        return features

    def _images(self, images: Tensor) -> Tensor:
        assert self.scorer is not None  # noqa: S101
        if self.config.clip_preprocessing == "clip":
            images = centre_crop(images, self.scorer.image_size[0])
        return self.scorer.embed_images(images).cpu()


def _open_scorer(config: EvaluateConfig, name: str, device: str) -> CLIPScorer:
    return CLIPScorer.from_file(resolve_model(name, Path(config.models)), config.architecture, device)


def _resized(image: Tensor, width: int, height: int) -> Tensor:
    """Bring a picture [H, W, 3] to the size of its target, as MagicBrush's program does."""
    if image.shape[:2] == (height, width):
        return image
    picture = to_pil(image).resize((width, height), Image.Resampling.BICUBIC)
    return torch.from_numpy(numpy.array(picture)).float() / 255.0
