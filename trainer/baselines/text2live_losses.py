"""The losses of Text2LIVE (Bar-Tal et al. 2022, arXiv:2204.02491, section 3.2), as its published code computes them.

Shapes: N views, K texts, D length of a feature, T tokens of C channels, H W height and width in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...ip2p_core.clip_scorer import CLIPScorer
from ...ip2p_core.open_clip_adapter import encode_with_tokens, tokenize_for_clip
from .edit_layer import Layer
from .text2live_views import Views, ViewSettings, draw_views

TEMPLATES = (
    "photo of {}.",
    "high quality photo of {}.",
    "a photo of {}.",
    "the photo of {}.",
    "image of {}.",
    "an image of {}.",
    "high quality image of {}.",
    "a high quality image of {}.",
    "the {}.",
    "a {}.",
    "{}.",
    "{}",
    "{}!",
    "{}...",
)
SCREEN_TEMPLATES = ("{} over a green screen.", "{} in front of a green screen.")


def spherical_distance(features: Tensor, targets: Tensor) -> Tensor:
    """Return the mean of 2 arcsin(|x - y| / 2)^2 over all x of [N, D] and y of [K, D], both brought to length 1."""
    features, targets = (torch.nn.functional.normalize(one, dim=1) for one in (features, targets))
    chords = (features[:, None] - targets[None]).norm(dim=2)
    distance: Tensor = (2 * (chords / 2).arcsin() ** 2).mean()
    return distance


def directional_loss(before: Tensor, after: Tensor, directions: Tensor) -> Tensor:
    """Return the mean of 1 - cos over the N changes of the picture [N, D] and the K changes of the caption [K, D]."""
    return 1 - torch.cosine_similarity((after - before)[:, None], directions[None], dim=2).mean()


def self_similarity(tokens: Tensor) -> Tensor:
    """Return the cosines of all pairs of tokens [B, T, C], as [B, T, T]."""
    tokens = torch.nn.functional.normalize(tokens, dim=2)
    return tokens @ tokens.mT


def structure_loss(tokens: Tensor, edited_tokens: Tensor) -> Tensor:
    """Return the mean square difference of two self-similarities, of tokens [B, T, C]."""
    return torch.nn.functional.mse_loss(self_similarity(edited_tokens), self_similarity(tokens))


def sparsity_loss(opacity: Tensor, l1: float, l0: float) -> Tensor:
    """Return the weighted sum of L1 and the pseudo L0, whose steep sigmoid also makes small opacities cost."""
    return l1 * opacity.mean() + l0 * (2 * (torch.sigmoid(5 * opacity) - 0.5)).mean()


class TextFeatures(NamedTuple):
    """Features of the captions in all their templates, not normalised."""

    source: Tensor  # [K, D]
    target: Tensor  # [K, D]
    screen: Tensor  # [K', D]


@torch.no_grad()
def encode_captions(
    scorer: CLIPScorer, captions: tuple[str, str], templates: Sequence[str], screen_templates: Sequence[str]
) -> TextFeatures:
    """Encode the caption and the edited caption in templates, and the edited one also in those of the screen."""
    texts = [(captions[0], templates), (captions[1], templates), (captions[1], screen_templates)]
    ids = (
        tokenize_for_clip([one.format(text) for one in chosen], scorer.context_length).to(scorer.device)
        for text, chosen in texts
    )
    return TextFeatures(*(scorer.model.encode_text(one) for one in ids))


def _some(rng: torch.Generator, num: int) -> Tensor:
    """Draw how many of `num` texts a step uses, and which, with repetitions."""
    return torch.randint(num, (int(torch.randint(1, num + 1, (1,), generator=rng)),), generator=rng)


class ClipLosses:
    """The losses of one edit that look through CLIP.

    Args:
        scorer: the model.
        texts: features of the captions.
        views: how pictures are varied.
        is_paired: a picture and its edit are seen in the same views; the published code draws them apart.
    """

    def __init__(self, scorer: CLIPScorer, texts: TextFeatures, views: ViewSettings, *, is_paired: bool) -> None:
        self.scorer, self.texts, self.views, self.is_paired = scorer, texts, views, is_paired

    def _draw(self, rng: torch.Generator) -> Views:
        return draw_views(rng, self.scorer.image_size[0], self.views)

    def _see(self, picture: Tensor, views: Views) -> Tensor:
        features: Tensor = self.scorer.model.encode_image(self.scorer.prepare(views.of(picture).movedim(1, -1)))
        return features

    def composition(self, pictures: Sequence[Tensor], edited: Sequence[Tensor], rng: torch.Generator) -> Tensor:
        """Compare the edited pictures with the edited caption, and the change of both with that of the caption.

        Args:
            pictures: each [1, 3, H, W].
            edited: the same with the layer over them.
            rng: source of the draws.

        Returns:
            The sum of the two losses.
        """
        used, moved = (_some(rng, len(self.texts.target)).to(self.scorer.device) for _ in range(2))
        directions = self.texts.target[moved] - self.texts.source[moved]
        total = self.texts.target.new_zeros(())
        for picture, after in zip(pictures, edited, strict=True):
            views = self._draw(rng)
            seen = self._see(after, views)
            total = total + spherical_distance(seen, self.texts.target[used])
            if not self.is_paired:
                seen, views = self._see(after, self._draw(rng)), self._draw(rng)
            with torch.no_grad():
                before = self._see(picture, views)
            total = total + directional_loss(before, seen, directions)
        return total / len(pictures)

    def screen(self, layers: Sequence[Layer], rng: torch.Generator) -> Tensor:
        """Compare the layers over a green screen with the edited caption over a green screen."""
        used = _some(rng, len(self.texts.screen)).to(self.scorer.device)
        distances = [
            spherical_distance(self._see(layer.over_green(), self._draw(rng)), self.texts.screen[used])
            for layer in layers
        ]
        return torch.stack(distances).mean()

    def structure(self, pictures: Sequence[Tensor], edited: Sequence[Tensor]) -> Tensor | None:
        """Compare the self-similarities of CLIP's tokens; None where CLIP has no such tokens."""
        losses = []
        for picture, after in zip(pictures, edited, strict=True):
            with torch.no_grad():
                tokens = self._tokens(picture)
            edited_tokens = None if tokens is None else self._tokens(after)
            if tokens is None or edited_tokens is None:
                return None
            losses.append(structure_loss(tokens, edited_tokens))
        return torch.stack(losses).mean()

    def _tokens(self, picture: Tensor) -> Tensor | None:
        return encode_with_tokens(self.scorer.model, self.scorer.prepare(picture.movedim(1, -1)))[1]
