"""What editors are measured on: a picture, an instruction, and where there are any captions, a target and a mask.

Shapes: H W height and width in pixels.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy
import torch
from torch import Tensor

from ...ip2p_core.errors import ConfigError, Ip2pError, PictureError
from ...ip2p_core.pair_record import ImageHandle
from ...ip2p_core.pair_store.manifest import MANIFEST_NAME
from ..edit_files import slug
from .config import EvaluateConfig
from .layouts import (
    PIE_BENCH_MAP,
    TURNS,
    Row,
    read_dataset,
    read_jsonl,
    read_magicbrush,
    read_pie_bench,
)

_NUM_LISTED = 10


@dataclass(frozen=True, kw_only=True)
class Example:
    """One thing to do.

    Attributes:
        key: names it in files and tables; it changes with what is asked.
        image: the picture to edit.
        size: its width and height.
        instruction: what to do.
        caption: what the picture shows; may be empty.
        edited_caption: what it shows afterwards; may be empty.
        target: the right result.
        mask: white where the picture may change.
        edit_type: for tables by kind; may be empty.
    """

    key: str
    image: ImageHandle
    size: tuple[int, int]
    instruction: str
    caption: str = ""
    edited_caption: str = ""
    target: ImageHandle | None = None
    mask: ImageHandle | None = None
    edit_type: str = ""

    @property
    def has_captions(self) -> bool:
        """Say whether both captions are there."""
        return bool(self.caption and self.edited_caption)


@dataclass
class ExampleSet:
    """The examples, and what was left out and why."""

    examples: list[Example] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def describe(self) -> str:
        """Say what there is in one paragraph."""
        used = self.examples
        parts = [
            f"{len(used)} examples",
            f"{sum(one.has_captions for one in used)} with both captions",
            f"{sum(one.target is not None for one in used)} with a target",
            f"{sum(one.mask is not None for one in used)} with a mask",
            f"{len(self.left_out)} left out",
        ]
        lines = [", ".join(parts) + "."] + [f"  {one}" for one in self.left_out[:_NUM_LISTED]]
        if len(self.left_out) > _NUM_LISTED:
            lines.append(f"  and {len(self.left_out) - _NUM_LISTED} more")
        return "\n".join(lines)


def read_examples(config: EvaluateConfig) -> ExampleSet:
    """Read the examples of a run; those that cannot be used are listed.

    Args:
        config: of the run.

    Returns:
        The examples in order, and what was left out.

    Raises:
        ConfigError: if the layout is not known, or no example is left.
    """
    path = Path(config.examples)
    readers = {"jsonl": read_jsonl, "magicbrush": read_magicbrush, "pie_bench": read_pie_bench}
    layout = _layout_of(path) if config.layout == "auto" else config.layout
    rows = read_dataset(path, config.split) if layout == "dataset" else readers[layout](path)
    found = ExampleSet()
    for where, row in rows:
        if config.count and len(found.examples) >= config.count:
            break
        try:
            found.examples.append(_checked(row))
        except Ip2pError as error:
            found.left_out.append(f"{where}: {error}")
    if not found.examples:
        raise ConfigError(f"No example of {path} can be used. {found.describe()}")
    return found


def _layout_of(path: Path) -> str:
    if path.is_file():
        return "jsonl"
    for name, layout in ((MANIFEST_NAME, "dataset"), (TURNS, "magicbrush"), (PIE_BENCH_MAP, "pie_bench")):
        if (path / name).is_file():
            return layout
    raise ConfigError(
        f"{path} holds no examples: it is no file, and has no {MANIFEST_NAME} (a dataset), {TURNS} (MagicBrush) or "
        f"{PIE_BENCH_MAP} (PIE-Bench). Name a JSONL file with image and instruction, or one of these folders."
    )


def _checked(row: Row) -> Example:
    instruction, caption, edited_caption = (text.strip() for text in row.texts)
    if not instruction:
        raise ConfigError("the instruction is empty.")
    picture = row.image.picture()
    if row.target is not None:
        row.target.picture()
    if row.mask is not None and row.mask.picture().size != picture.size:
        raise PictureError(f"The mask is {_size(row.mask)} and the picture {_size(row.image)}; make them equal.")
    digest = hashlib.sha256(picture.convert("RGB").tobytes())
    digest.update("\0".join((instruction, caption, edited_caption)).encode())
    return Example(
        key=f"{slug(row.name, 60)}-{digest.hexdigest()[:8]}",
        image=row.image,
        size=picture.size,
        instruction=instruction,
        caption=caption,
        edited_caption=edited_caption,
        target=row.target,
        mask=row.mask,
        edit_type=row.edit_type,
    )


def _size(handle: ImageHandle) -> str:
    return "x".join(map(str, handle.picture().size))


def mask_of(example: Example) -> Tensor | None:
    """Read the mask [H, W] of an example in [0, 1]."""
    if example.mask is None:
        return None
    return torch.from_numpy(numpy.array(example.mask.picture().convert("L"))).float() / 255.0
