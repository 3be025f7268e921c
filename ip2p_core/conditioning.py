"""Conditioning of the training: null conditionings and their dropout (arXiv:2211.09800, section 3.2.1).

Shapes: B batch, C latent channels, H W latent height and width, L tokens, D width of the text encoder.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Conditioning(NamedTuple):
    """What the network is told besides the noisy latents."""

    image_latents: Tensor  # E(c_I), unscaled mode [B, C, H, W]; zeros mean "no image"
    text_embeds: Tensor  # c_T [B, L, D]; the embedding of "" means "no instruction"


def drop_conditioning(conditioning: Conditioning, null_embeds: Tensor, u: Tensor, p: float = 0.05) -> Conditioning:
    """Replace conditionings by their null: text alone, both, and image alone with probability p each.

    Args:
        conditioning: image latents and text embeddings of the batch.
        null_embeds: embedding of "" [1, L, D] or [B, L, D].
        u: one uniform draw in [0, 1) per item [B].
        p: probability of each of the three cases, at most 1/3.

    Returns:
        The conditioning with the dropped parts replaced.

    Raises:
        ValueError: if p is outside [0, 1/3].
    """
    if not 0.0 <= p <= 1 / 3:
        raise ValueError(f"p is {p:g}; three cases of probability p need 0 <= p <= 1/3.")
    # u < p: text, p <= u < 2p: both, 2p <= u < 3p: image
    is_text_dropped = (u < 2 * p).reshape(-1, 1, 1)
    is_image_dropped = ((u >= p) & (u < 3 * p)).reshape(-1, 1, 1, 1)
    image_latents, text_embeds = conditioning
    return Conditioning(
        image_latents=torch.where(is_image_dropped, torch.zeros_like(image_latents), image_latents),
        text_embeds=torch.where(is_text_dropped, null_embeds.to(text_embeds), text_embeds),
    )
