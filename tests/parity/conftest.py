"""Reference parts: transformers' tokenizer over open_clip's vocabulary, and the distance that every claim uses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import CLIPTokenizer


def relative_error(actual: Tensor, reference: Tensor) -> float:
    """max |actual - reference| / max |reference|."""
    return float((actual - reference).abs().max() / reference.abs().max())


def reference_tokenizer(**options: object) -> CLIPTokenizer:
    """Transformers' own tokenizer, from the merges that open_clip ships."""
    from ip2p.ip2p_core.open_clip_adapter import _tokenizer

    ours = _tokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {names.get(token, token): number for token, number in ours.encoder.items()}
    merges = sorted(ours.bpe_ranks, key=ours.bpe_ranks.get)
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77, **options)


@pytest.fixture(scope="session")
def tokenizer() -> CLIPTokenizer:
    return reference_tokenizer()


@pytest.fixture
def photo() -> Tensor:
    """Two smooth pictures [2, 48, 64, 3] in [0, 1]."""
    noise = torch.rand(2, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(noise, size=(48, 64), mode="bilinear").movedim(1, -1)
