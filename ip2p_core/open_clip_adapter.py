"""CLIP's byte-pair tokenizer, from the vocabulary file that open_clip ships: no network, no second copy.

The text is cleaned as the tokenizers of Stable Diffusion do it (transformers' `CLIPTokenizer`, ComfyUI's `SDTokenizer`):
Unicode NFC, every run of white space one space, lower case character by character. open_clip's own cleaning (ftfy and
HTML entities) would give other ids. The one difference left: the control characters U+001C to U+001F count as white space.
"""

from __future__ import annotations

import importlib.util
import re
import unicodedata
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import ConfigError

if TYPE_CHECKING:
    from open_clip.tokenizer import SimpleTokenizer

START_ID = 49406
END_ID = 49407
CONTEXT_LENGTH = 77
SPECIAL_TOKENS = {"<|startoftext|>": START_ID, "<|endoftext|>": END_ID}

# Around a special token, and where open_clip's pattern would find its own special tokens or an 's that is a long s.
_BOUNDARIES = re.compile(r"(<\|startoftext\|>|<\|endoftext\|>)|(?<=<)(?=start_of_text>|end_of_text>)|(?<=')(?=\u017f)")


@lru_cache(maxsize=1)
def _tokenizer() -> SimpleTokenizer:
    """Load open_clip's tokenizer file alone: the whole package would load torchvision and timm, which takes seconds."""
    package = importlib.util.find_spec("open_clip")
    if package is None or not package.submodule_search_locations:
        raise ConfigError("The package open_clip is missing; install it with: pip install open_clip_torch")
    path = Path(package.submodule_search_locations[0]) / "tokenizer.py"
    spec = importlib.util.spec_from_file_location("_ip2p_open_clip_tokenizer", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"The tokenizer of open_clip is not at {path}; install open_clip_torch again.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tokenizer: SimpleTokenizer = module.SimpleTokenizer()
    return tokenizer


def _clean(text: str) -> str:
    text = re.sub(r"\s+", " ", unicodedata.normalize("NFC", text))
    return "".join(character.lower() for character in text)


def encode(text: str) -> list[int]:
    """Return the ids of the whole text, without start, end, padding or truncation."""
    tokenizer = _tokenizer()
    ids: list[int] = []
    for part in filter(None, _BOUNDARIES.split(_clean(text))):
        if part in SPECIAL_TOKENS:
            ids.append(SPECIAL_TOKENS[part])
            continue
        for word in tokenizer.pat.findall(part):
            symbols = "".join(tokenizer.byte_encoder[byte] for byte in word.encode("utf-8"))
            ids.extend(tokenizer.encoder[token] for token in tokenizer.bpe(symbols).split(" "))
    return ids


def count_tokens(text: str) -> int:
    """Return the length of a text in tokens, with start and end, before any truncation."""
    return len(encode(text)) + 2


def tokenize(text: str, *, pad_id: int = END_ID, context_length: int = CONTEXT_LENGTH) -> list[int]:
    """Turn a text into the ids that the text encoder reads; what does not fit is cut.

    Args:
        text: raw text, no weighting syntax.
        pad_id: what fills the rest: 49407 for SD1.x and SDXL's first encoder, 0 for SD2.x and SDXL's second.
        context_length: number of ids, start and end included.

    Returns:
        The ids [context length].
    """
    ids = [START_ID, *encode(text)[: context_length - 2], END_ID]
    return ids + [pad_id] * (context_length - len(ids))
