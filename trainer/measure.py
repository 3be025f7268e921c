"""Small measures that tuning and evaluation share: batched edits, round trips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .edit import EditSettings, edit_images
from .edit_backend import Editor

BATCH = 8


def to_tensor(images: Sequence[Any]) -> Tensor:
    """Stack pictures [H, W, 3] into [B, H, W, 3]."""
    return torch.from_numpy(np.stack(images)).float()


@torch.inference_mode()
def round_trip(editor: Editor, image: Tensor) -> Tensor:
    """Pictures [B, H, W, 3] through the autoencoder."""
    return torch.cat(
        [editor.codec.decode(editor.codec.encode(one) * editor.scaling_factor) for one in torch.split(image, BATCH)]
    )


def edit_many(
    editor: Editor, images: Tensor, instructions: Sequence[str], settings: EditSettings, seed: int = 0
) -> Tensor:
    """Edit pictures of one size in batches; picture i has seed + i."""
    results = [
        edit_images(editor, images[i : i + BATCH], instructions[i : i + BATCH], settings, seed=seed + i).image
        for i in range(0, len(images), BATCH)
    ]
    return torch.cat(results)
