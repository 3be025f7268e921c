"""Our token ids are those of transformers' CLIPTokenizer and of ComfyUI's tokenizer files."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from ip2p.ip2p_core.open_clip_adapter import count_tokens, tokenize
from ip2p.tests.parity.conftest import reference_tokenizer

TEXTS = [
    "",
    "make it black and white",
    "Turn the SKY into a van-Gogh painting!!! (please), don't keep it's clouds...",
    "make   it\n\tnight\u3000now\u00a0",
    "add a 🎆 and 👩‍👩‍👧‍👦 🏳️‍🌈",
    "e\u0301 vs é, ﬁ, ½, Ⅷ, ٣, K, \u017f, '\u017f, İ, ΑΣ, ß",
    "café 漢字 кириллица हिन्दी",
    "<|endoftext|> and <|startoftext|> and <start_of_text> and &amp;",
    " ".join(f"word{number}" for number in range(500)),
    "\x00\x07\u200b\ufeff",
]
PIECES = [
    "it",
    "'s",
    "'S",
    "'LL",
    "!!",
    "<",
    "end_of_text>",
    "é",
    "e\u0301",
    "Σ",
    "😀",
    "\u200d",
    "\x85",
    "\t",
    "漢",
    "7",
    "don't",
    "_",
]


def random_texts(count: int) -> list[str]:
    draw = random.Random(0)
    return ["".join(draw.choice([*PIECES, " "]) for _ in range(draw.randint(1, 30))) for _ in range(count)]


@pytest.mark.parametrize("text", TEXTS)
def test_ids_equal_transformers(tokenizer: CLIPTokenizer, text: str):
    assert tokenize(text) == tokenizer(text, padding="max_length", truncation=True).input_ids


def test_ids_equal_transformers_on_random_mixtures(tokenizer: CLIPTokenizer):
    for text in random_texts(500):
        assert tokenize(text) == tokenizer(text, padding="max_length", truncation=True).input_ids, repr(text)


def test_padding_with_0_equals_the_second_tokenizer_of_sdxl():
    second = reference_tokenizer(pad_token="!")  # noqa: S106 - a token of the vocabulary
    assert tokenize("make it night", pad_id=0) == second("make it night", padding="max_length").input_ids


def test_count_is_the_length_before_truncation(tokenizer: CLIPTokenizer):
    for text in TEXTS:
        assert count_tokens(text) == len(tokenizer(text).input_ids)


def test_ids_equal_the_tokenizer_files_of_comfyui():
    folder = Path(os.environ.get("COMFYUI_PATH", "~/comfy/ComfyUI")).expanduser() / "comfy" / "sd1_tokenizer"
    if not folder.is_dir():
        pytest.skip(f"no ComfyUI checkout with {folder}")
    theirs = CLIPTokenizer.from_pretrained(folder, model_max_length=77)
    for text in [*TEXTS, *random_texts(200)]:
        assert tokenize(text) == theirs(text, padding="max_length", truncation=True).input_ids, repr(text)
