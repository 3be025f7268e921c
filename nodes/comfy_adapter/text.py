"""Instructions to CONDITIONING: raw text, 77 tokens, one embedding per image."""

from __future__ import annotations

import torch

from ...ip2p_core.errors import BadInstruction, ModelMismatch
from ...ip2p_core.instruction import MAX_TOKENS, describe_truncation
from .notices import warn

CLIP_NAMES = ("clip_l", "clip_h", "clip_g")


def encode_texts(clip, texts: list[str], options: dict) -> list:
    """Encode one text per image into a CONDITIONING whose tensors have the full batch.

    Args:
        clip: the host's CLIP.
        texts: one text per image; equal ones are encoded once.
        options: what to store beside the embedding.

    Returns:
        CONDITIONING: entries [tensor [B, 77, D], options].

    Raises:
        ModelMismatch: if the text encoder is not a CLIP.
    """
    if clip is None:
        raise ModelMismatch('There is no text encoder on "clip"; connect the CLIP of Load InstructPix2Pix.')
    encoded = {text: clip.encode_from_tokens_scheduled(_tokens(clip, text)) for text in dict.fromkeys(texts)}
    conditioning = []
    for entries in zip(*(encoded[text] for text in texts), strict=True):
        merged = dict(entries[0][1])
        if merged.get("pooled_output") is not None:
            merged["pooled_output"] = torch.cat([entry[1]["pooled_output"] for entry in entries])
        conditioning.append([torch.cat([entry[0] for entry in entries]), {**merged, **options}])
    return conditioning


def require_whole(clip, captions: list[str]) -> None:
    """Refuse captions of which the text encoder would read only a part: a pair must show all that its texts say.

    Raises:
        BadInstruction: naming what would be cut.
    """
    tokenizer = clip_tokenizer(clip)
    for caption in captions:
        fault = describe_truncation(caption, lambda part: len(tokenizer(part)["input_ids"]), name="caption")
        if fault is not None:
            raise BadInstruction(fault)


def _tokens(clip, text: str) -> dict:
    tokenizer = clip_tokenizer(clip)
    warning = describe_truncation(text, lambda part: len(tokenizer(part)["input_ids"]))
    if warning is not None:
        warn(warning)
    tokens = clip.tokenize(text, disable_weights=True)
    return {key: _one_chunk(rows, getattr(clip.tokenizer, f"clip_{key}")) for key, rows in tokens.items()}


def clip_tokenizer(clip):
    """Return the tokenizer of the first CLIP text encoder.

    Raises:
        ModelMismatch: if the text encoder is not a CLIP.
    """
    for name in CLIP_NAMES:
        if hasattr(clip.tokenizer, name):
            return getattr(clip.tokenizer, name).tokenizer
    raise ModelMismatch(
        f'The text encoder on "clip" is {type(clip.tokenizer).__name__}; InstructPix2Pix needs CLIP. '
        "Connect the CLIP of Load InstructPix2Pix."
    )


def _one_chunk(rows: list, tokenizer) -> list:
    """Keep the first 75 tokens of a text that the host has split into several rows of 77."""
    if len(rows) == 1:
        return rows
    content: list = []
    for row in rows:
        for token in row[1:]:
            if isinstance(token[0], int) and token[0] == tokenizer.end_token:
                break
            content.append(token)
    return [[rows[0][0], *content[: MAX_TOKENS - 2], (tokenizer.end_token, 1.0)]]
