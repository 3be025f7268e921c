"""The columns of shards and ledgers, and how a record becomes a row and back.

A shard begins with `input_image, edit_prompt, edited_image`: diffusers' training script takes the columns by position.
Pictures are Hugging Face `Image` columns: struct{bytes, path}.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow

from ..pair_record import ImageHandle, PairRecord, PairScores
from ..triplet import Triplet

IMAGE_TYPE = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
IMAGE_COLUMNS = ("input_image", "edited_image", "mask")
SCORE_COLUMNS = ("score_caption_0", "score_caption_1", "score_image", "score_directional")
_MADE_BY = [
    ("seed", pyarrow.uint64()),
    ("p2p_threshold", pyarrow.float64()),
    ("text_guidance_scale", pyarrow.float64()),
    ("mode", pyarrow.string()),
    *[(name, pyarrow.float64()) for name in SCORE_COLUMNS],
]
_SHARD_FIELDS = [
    ("input_image", IMAGE_TYPE),
    ("edit_prompt", pyarrow.string()),
    ("edited_image", IMAGE_TYPE),
    ("prompt_id", pyarrow.string()),
    ("sample_index", pyarrow.int32()),
    ("caption", pyarrow.string()),
    ("edited_caption", pyarrow.string()),
    ("source", pyarrow.string()),
    *_MADE_BY,
    ("mask", IMAGE_TYPE),
    ("weight", pyarrow.float64()),
]
_HF_NAMES = {
    pyarrow.string(): "string",
    pyarrow.int32(): "int32",
    pyarrow.uint64(): "uint64",
    pyarrow.float64(): "float64",
}


def with_features(fields: list[tuple[str, pyarrow.DataType]]) -> pyarrow.Schema:
    """Make a schema that Hugging Face datasets reads with pictures as pictures.

    Args:
        fields: names and types.

    Returns:
        The schema, with the features in its metadata.
    """
    features = {
        name: {"_type": "Image"} if kind == IMAGE_TYPE else {"dtype": _HF_NAMES[kind], "_type": "Value"}
        for name, kind in fields
    }
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pyarrow.schema(fields, metadata=metadata)


SHARD_SCHEMA = with_features(_SHARD_FIELDS)
RECORD_COLUMNS = [name for name in SHARD_SCHEMA.names if name not in IMAGE_COLUMNS]
LEDGER_SCHEMA = pyarrow.schema(
    [
        ("prompt_id", pyarrow.string()),
        ("sample_index", pyarrow.int32()),
        *_MADE_BY,
        ("is_accepted", pyarrow.bool_()),
        ("reason", pyarrow.string()),
        # of the pictures of accepted candidates, so that duplicates are found without decoding anything
        ("original_pixels", pyarrow.uint64()),
        ("edited_pixels", pyarrow.uint64()),
        ("original_dhash", pyarrow.uint64()),
        ("edited_dhash", pyarrow.uint64()),
    ]
)


def to_row(record: PairRecord) -> dict[str, Any]:
    """Turn a record into a row of a shard; pictures become PNG or lossless WebP bytes.

    Args:
        record: the pair.

    Returns:
        Column -> value.

    Raises:
        PairStoreError: if a picture cannot be read.
    """
    return {
        "input_image": _image_cell(record.original),
        "edit_prompt": record.triplet.instruction,
        "edited_image": _image_cell(record.edited),
        "prompt_id": record.prompt_id,
        "sample_index": record.sample_index,
        "caption": record.triplet.caption,
        "edited_caption": record.triplet.edited_caption,
        "source": record.triplet.source,
        **made_by(record.seed, record.p2p_threshold, record.text_guidance_scale, record.mode, record.scores),
        "mask": None if record.mask is None else _image_cell(record.mask),
        "weight": record.weight,
    }


def _image_cell(handle: ImageHandle) -> dict[str, Any]:
    return {"bytes": handle.lossless(), "path": None}


def made_by(
    seed: int, p2p_threshold: float | None, text_guidance_scale: float | None, mode: str, scores: PairScores | None
) -> dict[str, Any]:
    """Name the columns that shards and ledgers share."""
    values = [None] * len(SCORE_COLUMNS) if scores is None else [float(score) for score in scores]
    return {
        "seed": seed,
        "p2p_threshold": p2p_threshold,
        "text_guidance_scale": text_guidance_scale,
        "mode": mode,
        **dict(zip(SCORE_COLUMNS, values, strict=True)),
    }


def scores_of(row: Mapping[str, Any]) -> PairScores | None:
    """Read the scores of a row; None where it has none."""
    values = [row[name] for name in SCORE_COLUMNS]
    return None if any(value is None for value in values) else PairScores(*values)


def to_record(
    row: Mapping[str, Any], original: ImageHandle, edited: ImageHandle, mask: ImageHandle | None
) -> PairRecord:
    """Turn a row without its pictures, and handles to them, into a record."""
    return PairRecord(
        prompt_id=row["prompt_id"],
        sample_index=row["sample_index"],
        triplet=Triplet(row["caption"], row["edit_prompt"], row["edited_caption"], row["source"]),
        seed=row["seed"],
        p2p_threshold=row["p2p_threshold"],
        text_guidance_scale=row["text_guidance_scale"],
        mode=row["mode"],
        scores=scores_of(row),
        original=original,
        edited=edited,
        mask=mask,
        weight=row.get("weight"),  # datasets of version 0.1.0 have none
    )
