"""A tiny real CLIP model of open_clip, seeded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import torch

from ip2p.ip2p_core.clip_checkpoint import ScorerConfig, write_scorer

MODEL_CFG: dict[str, Any] = {
    "embed_dim": 24,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 2},
}


def tiny_clip(seed: int = 0, **changes: Any) -> torch.nn.Module:
    """Build the model with random weights, large enough that different inputs have different features."""
    settings = MODEL_CFG | changes
    model_class = open_clip.CustomTextCLIP if settings.pop("custom_text", False) else open_clip.CLIP
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(**settings)
        for name, value in model.named_parameters():
            if value.ndim >= 2:
                torch.nn.init.normal_(value, std=0.2 if "embedding" in name else 2.0 / value.shape[-1] ** 0.5)
    return model.eval()


def tiny_scorer(path: Path, seed: int = 0) -> torch.nn.Module:
    """Write the model to one file of our own layout; the returned model holds the same weights."""
    model = tiny_clip(seed)
    write_scorer(path, model.state_dict(), ScorerConfig(model_cfg=MODEL_CFG, licence="MIT"))
    return model
