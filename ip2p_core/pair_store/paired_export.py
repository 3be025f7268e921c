"""Exports for trainers of editing LoRAs (FLUX.1 Kontext, Qwen-Image-Edit): two folders of PNG files with equal names.

The edited pictures lie with a .txt file each, which holds the instruction; the originals lie in a folder of their own,
without texts. What differs are the names of the folders and the configuration beside them:

- ai-toolkit, https://github.com/ostris/ai-toolkit/blob/main/config/examples/train_lora_flux_kontext_24gb.yaml (and
  train_lora_qwen_image_edit_32gb.yaml): `folder_path`, `control_path`, `caption_ext`; "Control images need to match the
  filenames on the folder path but in a different folder. These do not need captions."; jpg, jpeg and png only.
- musubi-tuner by kohya, https://github.com/kohya-ss/musubi-tuner/blob/main/docs/dataset_config.md, "Sample for Image
  Dataset with Control Images": `image_directory` with the changed pictures and the captions, `control_directory` with the
  starting pictures, TOML.
- SimpleTuner, https://github.com/bghira/SimpleTuner/blob/main/documentation/quickstart/FLUX_KONTEXT.md: a list of data
  backends; `conditioning_data` of the edits names the references, whose `conditioning_type` is `reference_strict` (equal
  crops); equal file names and extensions; absolute paths.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..errors import PairStoreError
from ..pair_record import ImageHandle, encode_png
from .exporting import chosen_records, staged_folder, write_json
from .reader import PairStore

Size = tuple[int, int]


class PairedLayout(NamedTuple):
    """Names of the two folders, and what writes the trainer's configuration."""

    edited: str
    original: str
    write_config: Callable[[Path, Path, Size], None]  # staged folder, final folder, width and height


def export_paired(store: PairStore, output: Path, trainer: str, split: str | None = None) -> int:
    """Write pairs in the layout of a trainer, and the part of its configuration that names the folders.

    Args:
        store: the dataset.
        output: a new folder; the configuration holds its absolute path.
        trainer: a key of `PAIRED_LAYOUTS`.
        split: "train", "val", "test", or None for all.

    Returns:
        How many pairs were written.

    Raises:
        OutputExists: if the output has content.
        PairStoreError: if there is no such layout or no pair, one cannot be read, or the disk is full.
    """
    if trainer not in PAIRED_LAYOUTS:
        raise PairStoreError(f"There is no layout {trainer!r}; choose one of {', '.join(PAIRED_LAYOUTS)}.")
    layout = PAIRED_LAYOUTS[trainer]
    size: Size = (0, 0)
    num_pairs = 0
    with staged_folder(output) as staged:
        for name in (layout.edited, layout.original):
            (staged / name).mkdir()
        for record in chosen_records(store, split):
            stem = f"{record.prompt_id}_{record.sample_index:04d}"
            size = max(size, record.edited.picture().size, key=math.prod)
            (staged / layout.original / f"{stem}.png").write_bytes(_png(record.original))
            (staged / layout.edited / f"{stem}.png").write_bytes(_png(record.edited))
            instruction = " ".join(record.triplet.instruction.split())  # trainers read one line
            (staged / layout.edited / f"{stem}.txt").write_text(instruction, encoding="utf-8")
            num_pairs += 1
        layout.write_config(staged, output.resolve(), size)
    return num_pairs


def _png(handle: ImageHandle) -> bytes:
    return encode_png(handle.picture().convert("RGB"))


def _write_ai_toolkit(staged: Path, final: Path, size: Size) -> None:
    lines = [
        "# Put this entry under config / process / datasets of an ai-toolkit configuration.",
        "datasets:",
        f"  - folder_path: {_quoted(final / 'target')}",
        f"    control_path: {_quoted(final / 'control')}",
        '    caption_ext: "txt"',
        f"    resolution: [{_side(size)}]",
    ]
    (staged / "datasets.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_musubi(staged: Path, final: Path, size: Size) -> None:
    lines = [
        "[general]",
        f"resolution = [{size[0]}, {size[1]}]",
        'caption_extension = ".txt"',
        "batch_size = 1",
        "enable_bucket = true",
        "bucket_no_upscale = false",
        "",
        "[[datasets]]",
        f"image_directory = {_quoted(final / 'images')}",
        f"control_directory = {_quoted(final / 'control')}",
        f"cache_directory = {_quoted(final / 'cache')}",
        "num_repeats = 1",
    ]
    (staged / "dataset.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_simpletuner(staged: Path, final: Path, size: Size) -> None:
    shared = {"type": "local", "resolution": _side(size), "resolution_type": "pixel"}
    edited = {
        "id": "edited-images",
        **shared,
        "instance_data_dir": str(final / "edited-images"),
        "cache_dir_vae": str(final / "cache" / "vae-edited"),
        "conditioning_data": ["reference-images"],
        "caption_strategy": "textfile",
    }
    references = {
        "id": "reference-images",
        **shared,
        "dataset_type": "conditioning",
        "instance_data_dir": str(final / "reference-images"),
        "cache_dir_vae": str(final / "cache" / "vae-reference"),
        "conditioning_type": "reference_strict",
        "caption_strategy": None,
    }
    texts = {
        "id": "text-embeds",
        "type": "local",
        "dataset_type": "text_embeds",
        "default": True,
        "cache_dir": str(final / "cache" / "text"),
    }
    write_json(staged / "multidatabackend.json", [edited, references, texts])


def _quoted(path: Path) -> str:
    """Quote a path; JSON strings are valid in YAML and TOML too."""
    return json.dumps(str(path), ensure_ascii=False)


def _side(size: Size) -> int:
    return min(size)


PAIRED_LAYOUTS = {
    "ai-toolkit": PairedLayout("target", "control", _write_ai_toolkit),
    "musubi": PairedLayout("images", "control", _write_musubi),
    "simpletuner": PairedLayout("edited-images", "reference-images", _write_simpletuner),
}
