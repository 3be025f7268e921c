"""What an edit does against what it keeps, as one number; and a picture of many edits with their numbers.

With captions, what it does is CLIP's directional similarity (arXiv:2108.00946) and what it keeps the similarity of both pictures,
the two axes of Figure 8 of the paper. Without, it is how far the picture matches the instruction, and the sameness of what the
relevance map (arXiv:2308.08947) says the instruction is not about.
Shapes: B edits, H W height and width in pixels, h w in latent cells, D length of a feature.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional

from .clip_scorer import CLIPScorer
from .errors import ConfigError
from .guidance_grid import LINE, draw_grid
from .guidance_search import Edited, Found, Trial, Worth
from .image_tensor import to_pil
from .picture_metrics import l1
from .score_plot import INK, PAPER, load_font
from .similarity import PairFeatures, score_pairs

CELL, COLUMNS = 192, 4
IRRELEVANT = 0.2
"""Relevance below which a place must stay; more would count good edits of the embedded editor as damage (measured)."""


@dataclass(frozen=True, kw_only=True)
class EditTexts:
    """What the edit is about.

    Attributes:
        instruction: what to do.
        caption: what the picture shows; empty where that is not known, as the following.
        edited_caption: what it shall show.

    Raises:
        ConfigError: if one of the captions is there and the other is not.
    """

    instruction: str
    caption: str = ""
    edited_caption: str = ""

    def __post_init__(self) -> None:
        if bool(self.caption.strip()) != bool(self.edited_caption.strip()):
            given, missing = ("caption", "edited_caption") if self.caption.strip() else ("edited_caption", "caption")
            raise ConfigError(
                f'"{given}" is there and "{missing}" is empty; the directional similarity needs both. Write both, or neither.'
            )


def weigh(follows: float, keeps: float, keep: float) -> float:
    """Weighted geometric mean of both, each clamped to [0, 1].

    Args:
        follows: how far the edit does what it shall.
        keeps: how much stays.
        keep: weight of what stays, in [0, 1].

    Returns:
        A number in [0, 1]; 0 where one that counts is 0 or less.
    """
    does, stays = (min(max(value, 0.0), 1.0) for value in (follows, keeps))
    return float(does ** (1 - keep) * stays**keep)


class Tradeoff:
    """Judges edits of one picture; see `Judge`.

    Args:
        scorer: gives CLIP, ready to compute.
        original: [H, W, 3] in [0, 1].
        texts: of the edit.
        keep: weight of what stays, in [0, 1].
    """

    def __init__(self, scorer: Callable[[], CLIPScorer], original: Tensor, texts: EditTexts, keep: float) -> None:
        self._scorer, self._original, self._texts, self._keep = scorer, original, texts, keep
        wanted = [texts.caption, texts.edited_caption] if texts.caption.strip() else [texts.instruction]
        self._text_features = scorer().embed_texts(wanted).cpu()
        self._before = scorer().embed_images(original[None]).cpu()
        self._after = torch.empty(0, self._before.shape[1])

    def __call__(self, edits: Sequence[Edited]) -> list[Worth]:
        """Judge edits; those of earlier calls come first and in the same order."""
        new = [one.picture for one in edits[len(self._after) :]]
        if new:
            self._after = torch.cat([self._after, self._scorer().embed_images(torch.stack(new)).cpu()])
        if len(self._text_features) == 2:
            pairs = [("original", self._before), ("edited", self._after)]
            pairs += [("caption", self._text_features[:1]), ("edited_caption", self._text_features[1:])]
            scores = score_pairs(PairFeatures(**{name: value.expand(len(edits), -1) for name, value in pairs}))
            follows, keeps = [one.directional for one in scores], [one.image for one in scores]
        else:
            follows = (self._after @ self._text_features[0]).tolist()
            keeps = self._kept_elsewhere(edits).tolist()
        return [Worth(weigh(*each, self._keep), *each) for each in zip(follows, keeps, strict=True)]

    def _kept_elsewhere(self, edits: Sequence[Edited]) -> Tensor:
        """One minus the mean difference where the instruction does not act; the maps of all edits are averaged."""
        pictures = torch.stack([one.picture for one in edits])
        originals = self._original[None].expand_as(pictures)
        elsewhere = (mean_relevance(edits, self._original.shape[:2]) < IRRELEVANT).float()
        return 1 - l1(originals, pictures, elsewhere if bool(elsewhere.any()) else None)


def mean_relevance(edits: Sequence[Edited], size: tuple[int, ...]) -> Tensor:
    """Average the relevance maps that are not empty.

    Args:
        edits: B of them.
        size: height and width of the result.

    Returns:
        [1, H, W] in [0, 1]; zeros where there is no map.
    """
    maps = [one.relevance for one in edits if one.relevance is not None and bool(one.relevance.any())]
    if not maps:
        return torch.zeros(1, *size)
    mean = torch.stack(maps).float().mean(0)[None, None]
    return functional.interpolate(mean, list(size), mode="bilinear", align_corners=False)[:, 0]


def draw_trials(found: Found, original: Tensor, title: str) -> Tensor:
    """Draw the original and every edit of a search with its numbers, the best first; the model's own scales are named.

    Args:
        found: the search.
        original: [H, W, 3] in [0, 1].
        title: above everything.

    Returns:
        A picture [H', W', 3] in [0, 1].
    """
    cells = [_labelled(original, "original", "")]
    own = found.trials[0].place[:2]
    cells += [_labelled(one.edited.picture, *_told(one, " own" * (one.place[:2] == own))) for one in found.ranked()]
    cells += [torch.ones_like(cells[0])] * (-len(cells) % COLUMNS)
    rows = ["best first"] + [""] * (len(cells) // COLUMNS - 1)
    side = max(cells[0].shape[:2])
    return draw_grid(cells, rows, [""] * COLUMNS, title, side)


def _told(trial: Trial, whose: str) -> tuple[str, str]:
    (text_scale, image_scale, seed), _, worth = trial
    return f"text {text_scale:g}  image {image_scale:g}  seed {seed}{whose}", (
        f"{worth.score:.3f}: does {worth.follows:.3f}, keeps {worth.keeps:.3f}"
    )


def _labelled(picture: Tensor, *lines: str) -> Tensor:
    shown = to_pil(picture)
    factor = CELL / max(shown.size)
    shown = shown.resize((round(shown.width * factor), round(shown.height * factor)), Image.Resampling.LANCZOS)
    font = load_font()
    width = max(CELL + 40, shown.width)
    cell = Image.new("RGB", (width, shown.height + LINE * len(lines)), PAPER)
    cell.paste(shown, (0, 0))
    draw = ImageDraw.Draw(cell)
    for number, line in enumerate(lines):
        draw.text((2, shown.height + number * LINE), line, fill=INK, font=font)
    return torch.from_numpy(numpy.array(cell)).float() / 255.0
