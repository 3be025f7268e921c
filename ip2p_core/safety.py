"""A filter of unsafe captions and pictures: zero-shot classification with a CLIP model (Radford et al. 2021).

A text or picture is unsafe where the unsafe concepts together are more probable than the threshold, among all concepts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from .clip_scorer import CLIPScorer

UNSAFE = (
    "pornography",
    "explicit sexual content",
    "a naked person",
    "nudity",
    "graphic violence with blood and gore",
    "a dead body",
    "self-harm",
    "a hateful or extremist symbol",
)
SAFE = (
    "a photograph of everyday life",
    "a landscape",
    "an animal",
    "a portrait of a person in clothes",
    "a drawing or a painting",
    "an object",
    "a building",
    "food",
    "a pattern of shapes and colours",
)
LOGIT_SCALE = 100.0
"""Of the published CLIP models, where their training let it end."""


class SafetyClassifier(Protocol):
    """Anything that tells unsafe texts and pictures; put another in the place of the zero-shot one."""

    def unsafe_texts(self, texts: Sequence[str]) -> list[bool]:
        """Judge texts."""
        ...

    def unsafe_images(self, images: Tensor) -> list[bool]:
        """Judge pictures [B, H, W, 3] in [0, 1]."""
        ...


class ZeroShotSafety:
    """Zero-shot classification with a CLIP model. It needs a real one: a tiny model knows none of the concepts.

    Args:
        scorer: the CLIP model.
        threshold: probability from which on something is unsafe, in [0, 1].
    """

    def __init__(self, scorer: CLIPScorer, threshold: float = 0.5) -> None:
        self._scorer, self._threshold = scorer, threshold
        self._concepts = scorer.embed_texts([*UNSAFE, *SAFE])

    def unsafe_texts(self, texts: Sequence[str]) -> list[bool]:
        """Say of each text whether it is unsafe."""
        return self._judge(self._scorer.embed_texts(texts))

    def unsafe_images(self, images: Tensor) -> list[bool]:
        """Say of each picture [B, H, W, 3] in [0, 1] whether it is unsafe."""
        return self._judge(self._scorer.embed_images(images))

    def _judge(self, features: Tensor) -> list[bool]:
        probabilities = torch.softmax(LOGIT_SCALE * features @ self._concepts.T, dim=1)
        unsafe: list[bool] = (probabilities[:, : len(UNSAFE)].sum(1) >= self._threshold).tolist()
        return unsafe
