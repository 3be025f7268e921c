"""The folder layout of the published InstructPix2Pix data, in and out.

`0000012/prompt.json`, `{seed}_0.jpg`, `{seed}_1.jpg`, `metadata.jsonl`; `seeds.json` = sorted [[folder, [seeds]], ...]
(timothybrooks/instruct-pix2pix: dataset_creation/generate_img_dataset.py and prepare_dataset.py write it, edit_dataset.py
and metrics/ read it). JPEG at quality 100, so a round trip keeps texts, seeds and scores, and pixels nearly.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import BadTriplet
from ..pair_record import ImageFile, PairRecord, PairScores
from ..triplet import Triplet, parse_triplet
from .exporting import chosen_records, staged_folder
from .importing import Problem, SampleNumbers
from .reader import PairStore

_SCORE_KEYS = ("clip_sim_0", "clip_sim_1", "clip_sim_image", "clip_sim_dir")  # in the order of PairScores
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def read_published(folder: Path) -> Iterator[PairRecord | Problem]:
    """Read the published layout. `seeds.json` is not needed: the pictures say which seeds there are.

    Captions may stand under `caption` or `input`. Where metadata.jsonl names a seed twice, the last line counts: a rerun of
    the published program appends.

    Args:
        folder: holds one folder for each prompt.

    Yields:
        PairRecord | Problem: Pairs, sorted by folder and seed, and what could not be read.
    """
    numbers = SampleNumbers()
    if not folder.is_dir():
        yield Problem(str(folder), "there is no such folder")
        return
    for prompt_folder in sorted(path for path in folder.iterdir() if (path / "prompt.json").is_file()):
        try:
            triplet = parse_triplet(
                (prompt_folder / "prompt.json").read_bytes(), source=f"{prompt_folder.name}/prompt.json"
            )
        except (BadTriplet, OSError) as error:
            yield Problem(f"{prompt_folder.name}/prompt.json", str(error))
            continue
        made_by, problems = _read_metadata(prompt_folder / "metadata.jsonl")
        yield from problems
        for seed, original, edited in _find_pictures(prompt_folder):
            if edited is None:
                yield Problem(f"{prompt_folder.name}/{original.name}", f"{seed}_1{original.suffix} is missing")
                continue
            yield numbers.record(triplet, ImageFile(original), ImageFile(edited), seed=seed, **made_by.get(seed, {}))


def _find_pictures(folder: Path) -> list[tuple[int, Path, Path | None]]:
    found = []
    for original in folder.glob("*_0.*"):
        seed = original.stem.removesuffix("_0")
        if original.suffix.lower() in _SUFFIXES and seed.isdecimal() and int(seed) < 2**64:
            edited = original.with_name(f"{seed}_1{original.suffix}")
            found.append((int(seed), original, edited if edited.is_file() else None))
    return sorted(found)


def _read_metadata(path: Path) -> tuple[dict[int, dict[str, Any]], list[Problem]]:
    made_by: dict[int, dict[str, Any]] = {}
    problems: list[Problem] = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            values = [record.get(name) for name in _SCORE_KEYS]
            made_by[int(record["seed"])] = {
                "p2p_threshold": _number(record.get("p2p_threshold")),
                "text_guidance_scale": _number(record.get("cfg_scale")),
                "scores": None if None in values else PairScores(*map(float, values)),
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            problems.append(Problem(f"{path.parent.name}/{path.name} line {number}", f"cannot be read: {error!r}"))
    return made_by, problems


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def export_published(store: PairStore, output: Path, split: str | None = None) -> int:
    """Write the published layout.

    prompt.json names the caption twice, as `caption` and as `input`, because the published programs want both.

    Args:
        store: the dataset.
        output: a new folder.
        split: "train", "val", "test", or None for all.

    Returns:
        How many pairs were written.

    Raises:
        OutputExists: if the output has content.
        PairStoreError: if there is no pair, one cannot be read, or the disk is full.
    """
    folders: dict[str, tuple[str, list[str]]] = {}
    num_pairs = 0
    with staged_folder(output) as staged:
        for record in chosen_records(store, split):
            name, seeds = folders.setdefault(record.prompt_id, (f"{len(folders):07d}", []))
            if not seeds:
                (staged / name).mkdir()
                _write_prompt(staged / name / "prompt.json", record.triplet)
            seed = str(record.seed)
            if seed in seeds:  # imported pairs have no seeds of their own
                seed = str(max(map(int, seeds)) + 1)
            seeds.append(seed)
            for number, handle in enumerate((record.original, record.edited)):
                handle.picture().convert("RGB").save(staged / name / f"{seed}_{number}.jpg", quality=100)
            with (staged / name / "metadata.jsonl").open("a", encoding="utf-8") as opened:
                opened.write(f"{json.dumps(_metadata(record, int(seed)))}\n")
            num_pairs += 1
        listed = sorted((name, sorted(seeds)) for name, seeds in folders.values())
        (staged / "seeds.json").write_text(json.dumps(listed), encoding="utf-8")
    return num_pairs


def _write_prompt(path: Path, triplet: Triplet) -> None:
    texts = {"caption": triplet.caption, "input": triplet.caption}
    texts |= {"edit": triplet.instruction, "output": triplet.edited_caption}
    path.write_text(json.dumps(texts, ensure_ascii=False), encoding="utf-8")


def _metadata(record: PairRecord, seed: int) -> dict[str, Any]:
    values = {"seed": seed, "p2p_threshold": record.p2p_threshold, "cfg_scale": record.text_guidance_scale}
    if record.scores is not None:
        values |= dict(zip(_SCORE_KEYS, record.scores, strict=True))
    return {name: value for name, value in values.items() if value is not None}
