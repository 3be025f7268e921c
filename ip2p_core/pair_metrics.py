"""What is measured of an edit: the pictures before and after it, with its texts, its mask and the right result where they are known.

`image`, `caption_0`, `caption_1`, `directional`: the paper's CLIP similarities; `instruction_match`: edited picture and instruction.
l1, l2, psnr, ssim, lpips compare the pictures before and after, `target_` the right result and the edited one; `_outside` and
`_inside` count the part outside and inside the mask.
Shapes: B pictures, H W height and width in pixels, D length of a feature.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy
import torch
from PIL import Image
from torch import Tensor

from .clip_scorer import CLIPScorer
from .errors import BadImage, BadImageSize, ConfigError
from .image_tensor import to_pil
from .picture_metrics import Masking, centre_crop, l1, l2, psnr_of
from .similarity import PairFeatures, score_pairs
from .torchmetrics_adapter import SMALLEST_LPIPS, SMALLEST_SSIM, Lpips, ssim

Scores = dict[str, float]
Columns = dict[str, Tensor]
ClipPreprocessing = Literal["published_code", "clip"]
OUTSIDE, INSIDE, TARGET = "_outside", "_inside", "target_"
PREPARED: dict[ClipPreprocessing, str] = {
    "published_code": "squeezed to the encoder's size, bicubic, no antialias, no crop",
    "clip": "shorter side to the encoder's size by Pillow's bicubic filter, middle cut out",
}
"""How pictures come to CLIP's size, in words."""


class EditContext(NamedTuple):
    """What is known of an edit besides its two pictures; empty or None where it is not."""

    instruction: str = ""
    caption: str = ""
    edited_caption: str = ""
    mask: Tensor | None = None
    """[H, W] in [0, 1], 1 where the picture may change."""
    target: Tensor | None = None
    """[H', W', 3] in [0, 1], the right result."""

    @property
    def has_captions(self) -> bool:
        """Say whether both captions are there."""
        return bool(self.caption and self.edited_caption)


def missing_ssim() -> str:
    """Say why structural similarity cannot be measured here; empty where it can."""
    try:
        ssim(torch.zeros(1, 16, 16, 3), torch.zeros(1, 16, 16, 3))
    except ConfigError as error:
        return str(error)
    return ""


@dataclass
class PairMetrics:
    """The encoders that are there, and how parts count.

    Attributes:
        scorer: CLIP; None leaves its similarities out.
        lpips: learned perceptual distance.
        has_ssim: whether structural similarity is measured, see `missing_ssim`.
        masking: how a part of a picture counts.
        preprocessing: how pictures come to CLIP's size.
        more: other comparisons of whole pictures [B, H, W, 3], each a column [B].
    """

    scorer: CLIPScorer | None = None
    lpips: Lpips | None = None
    has_ssim: bool = True
    masking: Masking = "region"
    preprocessing: ClipPreprocessing = "published_code"
    more: Callable[[Tensor, Tensor], Columns] | None = None

    def measure(
        self, originals: Tensor, editeds: Tensor, contexts: Sequence[EditContext], features: Tensor | None = None
    ) -> list[Scores]:
        """Measure edits of one size.

        Args:
            originals: [B, H, W, 3] in [0, 1].
            editeds: the same.
            contexts: B of them.
            features: those of `originals` by `embed`, where they are there already.

        Returns:
            The scores of each; names depend on what is known of it.
        """
        scores: list[Scores] = [{} for _ in contexts]
        _fill(scores, self._distances(originals, editeds))
        if self.scorer is not None:
            self._similarities(
                self.scorer, self.embed(originals) if features is None else features, editeds, contexts, scores
            )
        masked = [row for row, one in enumerate(contexts) if one.mask is not None]
        if masked:
            masks = torch.stack([one.mask for one in contexts if one.mask is not None]).to(editeds)
            self._parts(originals[masked], editeds[masked], masks, *_of(masked, contexts, scores))
        for rows in _by_target_size(contexts):
            self._against(editeds[rows], *_of(rows, contexts, scores))
        return scores

    def embed(self, images: Tensor) -> Tensor:
        """Turn pictures [B, H, W, 3] into CLIP features [B, D] of length 1, on the CPU."""
        if self.scorer is None:
            raise ValueError("There is no scorer to embed pictures with.")
        if self.preprocessing == "clip":
            images = centre_crop(images, self.scorer.image_size[0])
        return self.scorer.embed_images(images).cpu()

    def _distances(self, before: Tensor, after: Tensor) -> Columns:
        squares = l2(before, after)
        columns = {"l1": l1(before, after), "l2": squares, "psnr": psnr_of(squares), **self._perceived(before, after)}
        return columns if self.more is None else {**columns, **self.more(before, after)}

    def _perceived(self, before: Tensor, after: Tensor) -> Columns:
        side, columns = min(before.shape[1:3]), {}
        if self.has_ssim and side >= SMALLEST_SSIM:
            columns["ssim"] = ssim(before, after)
        if self.lpips is not None and side >= SMALLEST_LPIPS:
            columns["lpips"] = self.lpips(before, after)
        return columns

    def _parts(
        self,
        before: Tensor,
        after: Tensor,
        masks: Tensor,
        contexts: Sequence[EditContext],
        scores: Sequence[Scores],
    ) -> None:
        """Outside and inside masks [B, H, W]; nothing of a part that is empty."""
        for suffix, parts in ((OUTSIDE, 1 - masks), (INSIDE, masks)):
            rows = [row for row, part in enumerate(parts) if bool(part.any())]
            if not rows:
                continue
            part, pair = parts[rows], (before[rows], after[rows])
            squares = l2(*pair, part, self.masking)
            found = {"l1": l1(*pair, part, self.masking), "l2": squares, "psnr": psnr_of(squares)}
            found |= self._perceived(pair[0] * part[..., None], pair[1] * part[..., None])
            _fill([scores[row] for row in rows], {name + suffix: values for name, values in found.items()})
        told = [row for row, one in enumerate(contexts) if one.edited_caption and bool(masks[row].any())]
        if self.scorer is not None and told:
            seen = (after[told] * 255 * masks[told][..., None]).floor() / 255  # as PIE-Bench's program cuts it out
            texts = self.scorer.embed_texts([contexts[row].edited_caption for row in told]).cpu()
            _fill([scores[row] for row in told], {"caption_1" + INSIDE: (self.embed(seen) * texts).sum(1)})

    def _against(self, after: Tensor, contexts: Sequence[EditContext], scores: Sequence[Scores]) -> None:
        """Edited pictures, and right results of one size."""
        targets = torch.stack([one.target for one in contexts if one.target is not None]).to(after)
        height, width = targets.shape[1:3]
        edited = torch.stack([_resized(one, width, height) for one in after])
        columns = self._distances(targets, edited)
        if self.scorer is not None:
            columns["image"] = (self.embed(targets) * self.embed(edited)).sum(1)
        _fill(scores, {TARGET + name: values for name, values in columns.items()})

    def _similarities(
        self,
        scorer: CLIPScorer,
        before: Tensor,
        editeds: Tensor,
        contexts: Sequence[EditContext],
        scores: Sequence[Scores],
    ) -> None:
        after = self.embed(editeds)
        _fill(scores, {"image": (before * after).sum(1)})
        told = [number for number, one in enumerate(contexts) if one.instruction]
        texts = scorer.embed_texts([contexts[row].instruction for row in told]).cpu()
        _fill([scores[row] for row in told], {"instruction_match": (after[told] * texts).sum(1)})
        rows = [number for number, one in enumerate(contexts) if one.has_captions]
        captions = scorer.embed_texts([contexts[row].caption for row in rows]).cpu()
        edited_captions = scorer.embed_texts([contexts[row].edited_caption for row in rows]).cpu()
        for row, found in zip(
            rows, score_pairs(PairFeatures(before[rows], after[rows], captions, edited_captions)), strict=True
        ):
            scores[row] |= found._asdict()


def _of(
    rows: Sequence[int], contexts: Sequence[EditContext], scores: Sequence[Scores]
) -> tuple[list[EditContext], list[Scores]]:
    """The contexts and the scores of some rows."""
    return [contexts[row] for row in rows], [scores[row] for row in rows]


def _by_target_size(contexts: Sequence[EditContext]) -> list[list[int]]:
    """Rows that have targets, those of one size together."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, one in enumerate(contexts):
        if one.target is not None:
            groups.setdefault(tuple(one.target.shape), []).append(row)
    return list(groups.values())


def _fill(scores: Sequence[Scores], columns: Columns) -> None:
    for name, values in columns.items():
        for one, value in zip(scores, values.tolist(), strict=True):
            one[name] = value


def _resized(image: Tensor, width: int, height: int) -> Tensor:
    """Bring a picture [H, W, 3] to the size of its target, as MagicBrush's program does."""
    if image.shape[:2] == (height, width):
        return image
    picture = to_pil(image).resize((width, height), Image.Resampling.BICUBIC)
    return torch.from_numpy(numpy.array(picture)).float() / 255.0


def require_alike(**pictures: Tensor) -> None:
    """Refuse batches [B, H, W, 3] that cannot be compared picture by picture.

    Args:
        **pictures: what it is called -> the batch.

    Raises:
        ConfigError: if the numbers differ.
        BadImageSize: if the sizes differ.
        BadImage: if a picture holds something that is no finite number.
    """
    seen = {name: f"{len(one)} of {one.shape[2]}x{one.shape[1]} on {name!r}" for name, one in pictures.items()}
    told = " and ".join(seen.values())
    if len({len(one) for one in pictures.values()}) > 1:
        raise ConfigError(
            f"The numbers of pictures differ: {told}; each needs its counterpart. "
            "Make them equal, with Repeat Image Batch where one picture serves several."
        )
    if len({one.shape[1:3] for one in pictures.values()}) > 1:
        raise BadImageSize(f"The sizes of the pictures differ: {told}; one size is needed. Resize them first.")
    for name, one in pictures.items():
        broken = [str(number + 1) for number, each in enumerate(one) if not bool(torch.isfinite(each).all())]
        if broken:
            raise BadImage(
                f"Picture {', '.join(broken)} on {name!r} holds values that are no finite numbers, which cannot be measured; "
                "take it out, or make it again with the autoencoder in full precision."
            )
