"""What a backend must offer; the adapters fulfil these by shape, without inheriting.

Shapes: B batch, C latent channels, H W image height and width, h w latent height and width, L tokens, D text width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from .guidance import Branches, Predictions


class ImageCodec(Protocol):
    """An autoencoder."""

    @property
    def factor(self) -> int:
        """Pixels per latent cell."""
        ...

    def encode(self, image: Tensor) -> Tensor:
        """Encode images [B, H, W, 3] in [0, 1] to the mode of the posterior [B, C, h, w], unscaled."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Decode scaled latents [B, C, h, w] to images [B, H, W, 3] in [0, 1]."""
        ...


class TextEncoder(Protocol):
    """A text encoder with its tokenizer."""

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Encode texts to embeddings [B, L, D]."""
        ...

    def count_tokens(self, text: str) -> int:
        """Return the length of a text in tokens, with start and end token, before any truncation."""
        ...


class EditDenoiser(Protocol):
    """A network with the conditionings of one edit."""

    def predict(self, x: Tensor, sigma: Tensor, branches: Branches) -> Predictions:
        """Return the denoised predictions of the asked branches; None for the others."""
        ...
