"""Where examples come from: a JSONL file, a dataset of pairs, MagicBrush's test set, PIE-Bench.

MagicBrush: Zhang et al. 2023 (arXiv:2306.10012). PIE-Bench: Ju et al. 2023 (arXiv:2310.01506). Their pictures are the user's.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
from PIL import Image

from ...ip2p_core.errors import ConfigError, PictureError
from ...ip2p_core.pair_record import ImageBytes, ImageFile, ImageHandle, encode_png
from ...ip2p_core.pair_store import PairStore
from ..edit_files import slug

_CAPTIONS = (("caption", "input"), ("edited_caption", "output"))
PIE_BENCH_MAP, PIE_BENCH_IMAGES = "mapping_file.json", "annotation_images"
TURNS, DESCRIPTIONS = "edit_turns.json", "global_descriptions.json"


@dataclass(frozen=True)
class Row:
    """An example before its check."""

    name: str
    image: ImageHandle
    texts: tuple[str, str, str]
    """Instruction, caption, edited caption."""
    target: ImageHandle | None = None
    mask: ImageHandle | None = None
    edit_type: str = ""


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({error}). Copy it again.") from None


def read_jsonl(path: Path) -> Iterator[tuple[str, Row]]:
    """Read a JSON object a line; yields where it stands, and the example."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"The examples {path} cannot be read ({error}). Give a JSONL file in UTF-8.") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"line {number}"
        try:
            record = json.loads(line)
            image, instruction = path.parent / record["image"], record.get("instruction", record.get("edit"))
            captions = [next((record[key] for key in keys if record.get(key)), "") for keys in _CAPTIONS]
            target, mask = (
                ImageFile(path.parent / record[name]) if record.get(name) else None for name in ("target", "mask")
            )
            texts = (instruction, captions[0], captions[1])
            if not all(isinstance(text, str) for text in texts):
                raise TypeError("a text is missing or no text")  # noqa: TRY301
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            missing = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            yield where, _unusable(f"the line is no JSON object with image and instruction ({missing})")
            continue
        name = str(record.get("id", f"{number:05d}-{slug(str(instruction), 30)}"))
        yield where, Row(name, ImageFile(image), texts, target, mask, str(record.get("edit_type", "")))


class _Missing(ImageHandle):
    """Says why there is no picture when it is asked for."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    @property
    def name(self) -> str:
        """What to call the picture in messages."""
        return "A picture"

    def read(self) -> bytes:
        """Raise the reason."""
        raise PictureError(self._reason)


def _unusable(reason: str) -> Row:
    return Row("", _Missing(reason), ("-", "", ""))


def read_dataset(path: Path, split: str) -> Iterator[tuple[str, Row]]:
    """Read the pairs of a dataset; their edited pictures are the targets."""
    for record in PairStore(path).records(None if split == "all" else split):
        name, texts = f"{record.prompt_id}-{record.sample_index}", record.triplet
        yield (
            name,
            Row(
                name,
                record.original,
                (texts.instruction, texts.caption, texts.edited_caption),
                record.edited,
                record.mask,
            ),
        )


def read_magicbrush(path: Path) -> Iterator[tuple[str, Row]]:
    """Every turn by itself, from the true picture before it: "single-turn" of the published numbers."""
    described = _load(path / DESCRIPTIONS) if (path / DESCRIPTIONS).exists() else {}
    for turn in _load(path / TURNS):
        folder = path / "images" / str(turn["input"]).split("-")[0]
        texts = described.get(folder.name, {})
        mask = folder / turn["mask"] if turn.get("mask") else None
        row = Row(
            Path(turn["output"]).stem,
            ImageFile(folder / turn["input"]),
            (turn["instruction"], texts.get(turn["input"], ""), texts.get(turn["output"], "")),
            ImageFile(folder / turn["output"]),
            _AlphaMask(mask) if mask is not None and mask.exists() else None,
        )
        yield str(turn["output"]), row


class _AlphaMask(ImageHandle):
    """MagicBrush's masks: the picture, transparent where it may change."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def name(self) -> str:
        """What to call the picture in messages."""
        return str(self._path)

    def read(self) -> bytes:
        """Return white where the file is transparent, as PNG."""
        with Image.open(io.BytesIO(ImageFile(self._path).read())) as opened:
            if "A" not in opened.getbands():
                return encode_png(opened.convert("L"))
            alpha = numpy.array(opened.getchannel("A"))
        return encode_png(Image.fromarray(255 - alpha))


def read_pie_bench(path: Path) -> Iterator[tuple[str, Row]]:
    """Read PIE-Bench; where a record has no instruction the edited caption stands for it."""
    for name, item in _load(path / PIE_BENCH_MAP).items():
        captions = [item[key].replace("[", "").replace("]", "") for key in ("original_prompt", "editing_prompt")]
        image = ImageFile(path / PIE_BENCH_IMAGES / item["image_path"])
        instruction = item.get("editing_instruction") or captions[1]
        mask = ImageBytes(encode_png(Image.fromarray((pie_bench_mask(item["mask"]) * 255).astype("uint8"))))
        yield (
            name,
            Row(
                name, image, (instruction, captions[0], captions[1]), None, mask, f"type {item.get('editing_type_id')}"
            ),
        )


def pie_bench_mask(runs: list[int], side: int = 512) -> numpy.ndarray:
    """Decode a mask of PIE-Bench: start and length of every run; the rim of the picture always counts as edited.

    Args:
        runs: start, length, start, length, ...
        side: of the square picture.

    Returns:
        [side, side], 0 or 1.
    """
    flat = numpy.zeros(side * side)
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        flat[start : start + length] = 1
    mask = flat.reshape(side, side)
    mask[[0, -1], :] = 1
    mask[:, [0, -1]] = 1
    return mask
