"""CLIP models as scorers: pictures and texts in, features and the four similarities of pairs out.

Pictures are prepared as in the published code of InstructPix2Pix (arXiv:2211.09800).
Shapes: B pictures or texts, H W height and width in pixels, D length of a feature.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from .clip_checkpoint import ScorerConfig, load_weights, read_scorer
from .errors import BadImage, CheckpointError
from .open_clip_adapter import CONTEXT_LENGTH, build_clip, cut_for_clip, tokenize_for_clip
from .pair_record import PairScores
from .similarity import PairFeatures, require_equal_counts, score_pairs

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


def _statistics(config: ScorerConfig, name: str) -> list[Tensor]:
    """Return mean and std of the training pictures, each [1, 3, 1, 1]."""
    values = []
    for key, usual in (("mean", OPENAI_MEAN), ("std", OPENAI_STD)):
        value = torch.tensor(config.preprocess_cfg.get(key, usual), dtype=torch.float32)
        if value.shape != (3,) or (key == "std" and not bool((value > 0).all())):
            raise CheckpointError(f"The {key} of {name} is {value.tolist()}; it needs three numbers. Export it again.")
        values.append(value.view(1, 3, 1, 1))
    return values


_Item = TypeVar("_Item", Tensor, list[str])


class CLIPScorer:
    """An open_clip model in float32: pictures and texts in, features of length 1 out.

    Args:
        state: its weights.
        config: its architecture.
        name: what messages call it.
        device: where it runs.
    """

    def __init__(
        self, state: Mapping[str, Tensor], config: ScorerConfig, *, name: str, device: torch.device | str = "cpu"
    ) -> None:
        self.config, self.name, self.device = config, name, torch.device(device)
        model: Any = build_clip(config.model_cfg, name)
        load_weights(model, state, name)
        self.model = model.float().eval().requires_grad_(False).to(self.device)
        self._mean, self._std = (value.to(self.device) for value in _statistics(config, name))
        size = self.model.visual.image_size  # a number for ResNets, height and width for the others
        self.image_size: tuple[int, int] = (size, size) if isinstance(size, int) else tuple(size)
        self.context_length = int(config.model_cfg["text_cfg"].get("context_length", CONTEXT_LENGTH))

    @classmethod
    def from_file(cls, path: Path, architecture: str = "", device: torch.device | str = "cpu") -> CLIPScorer:
        """Open a model file; see `read_scorer` for where its architecture comes from and what is refused."""
        state, config = read_scorer(path, architecture)
        return cls(state, config, name=path.name, device=device)

    def move_to(self, device: torch.device | str) -> None:
        """Compute on another device from now on."""
        self.device = torch.device(device)
        self.model.to(self.device)
        self._mean, self._std = self._mean.to(self.device), self._std.to(self.device)

    def cut_text(self, text: str) -> str:
        """Return the end of a text that the model does not read, in lower case; empty if it reads the whole text."""
        return cut_for_clip(text, self.context_length)

    def embed_images(self, images: Tensor, batch_size: int = 32) -> Tensor:
        """Turn pictures into features, resized as in the published code: bicubic, no antialias, no crop.

        Args:
            images: [B, H, W, 3] in [0, 1], on any device.
            batch_size: how many at a time.

        Returns:
            Features [B, D] of length 1, on the scorer's device.

        Raises:
            BadImage: if the values are clearly not in [0, 1].
        """
        low, high = (float(images.min()), float(images.max())) if images.numel() else (0.0, 0.0)
        if not (low >= -0.25 and high <= 1.25):  # resizing overshoots a little
            raise BadImage(
                f"The pictures have values from {low:.3g} to {high:.3g}; CLIP scores need them within 0 and 1."
            )
        return self._embed(self.model.encode_image, list(torch.split(images, batch_size)), self.prepare)

    def prepare(self, images: Tensor) -> Tensor:
        """Resize and normalise pictures [B, H, W, 3] in [0, 1] as the model reads them; gradients pass through."""
        pixels = images.to(self.device).float().movedim(-1, 1)
        pixels = torch.nn.functional.interpolate(pixels, self.image_size, mode="bicubic", align_corners=False)
        return (pixels - self._mean) / self._std

    def embed_texts(self, texts: Sequence[str], batch_size: int = 64) -> Tensor:
        """Turn texts into features; what does not fit is cut, see `cut_text`.

        Args:
            texts: B of them; each different text is computed once.
            batch_size: how many at a time.

        Returns:
            Features [B, D] of length 1, on the scorer's device.
        """
        unique = list(dict.fromkeys(texts))
        batches = [unique[start : start + batch_size] for start in range(0, len(unique), batch_size)]
        features = self._embed(self.model.encode_text, batches, self._tokenize)
        place = {text: row for row, text in enumerate(unique)}
        return features[[place[text] for text in texts]]

    def _tokenize(self, texts: list[str]) -> Tensor:
        return tokenize_for_clip(texts, self.context_length).to(self.device)

    @torch.no_grad()
    def _embed(
        self, tower: Callable[[Tensor], Tensor], batches: list[_Item], prepare: Callable[[_Item], Tensor]
    ) -> Tensor:
        if not any(len(batch) for batch in batches):
            return torch.empty(0, self.config.model_cfg["embed_dim"], device=self.device)
        with torch.autocast(self.device.type, enabled=False):
            features = torch.cat([tower(prepare(batch)) for batch in batches])
        return torch.nn.functional.normalize(features, dim=1)

    def score(
        self, originals: Tensor, editeds: Tensor, captions: Sequence[str], edited_captions: Sequence[str]
    ) -> list[PairScores]:
        """Compute the four similarities of B pairs.

        Args:
            originals: [B, H, W, 3] in [0, 1].
            editeds: [B, H', W', 3] in [0, 1].
            captions: of the originals.
            edited_captions: of the edited pictures.

        Returns:
            The scores of every pair.

        Raises:
            ConfigError: if the four numbers differ.
            BadImage: if the pictures' values are clearly not in [0, 1].
        """
        require_equal_counts(
            original_images=len(originals),
            edited_images=len(editeds),
            captions=len(captions),
            edited_captions=len(edited_captions),
        )
        texts = self.embed_texts([*captions, *edited_captions])
        return score_pairs(
            PairFeatures(
                original=self.embed_images(originals),
                edited=self.embed_images(editeds),
                caption=texts[: len(captions)],
                edited_caption=texts[len(captions) :],
            )
        )
