"""A user's own pairs: a folder of pictures before, one after, matched by file stem, and instructions.

Instructions come from one text for all pairs; a folder with `{stem}.txt`; a .txt file with lines `stem<TAB>instruction`; a
.json with {stem: instruction}, {stem: {"instruction": ...}} or a list of objects; or a .csv with a header. Objects and
tables name the picture as stem, name, file, file_name or image, and may give captions.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import PairStoreError
from ..pair_record import ImageFile, PairRecord
from ..triplet import FIELD_NAMES, Triplet
from .importing import Problem, SampleNumbers

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
_STEM_NAMES = ("stem", "name", "file", "file_name", "image")
_TEXT_NAMES = {**FIELD_NAMES, "instruction": (*FIELD_NAMES["instruction"], "edit_prompt", "prompt", "text")}
Texts = dict[str, str]


def read_folders(before: Path, after: Path, instructions: Path | str) -> Iterator[PairRecord | Problem]:
    """Read pairs from two folders.

    A pair without caption gets the file's stem as its caption: the caption decides prompt_id and with it the split, and
    without it all pictures with one instruction would fall into the same split.

    Args:
        before: folder with the originals.
        after: folder with the edited pictures.
        instructions: a path, or one instruction for all pairs.

    Yields:
        PairRecord | Problem: Pairs, sorted by stem, and what has no partner or no instruction.

    Raises:
        PairStoreError: if the instructions cannot be read, or a folder holds two pictures of one stem.
    """
    texts = {} if isinstance(instructions, str) else read_instructions(instructions)
    originals, edited = _pictures(before), _pictures(after)
    numbers = SampleNumbers()
    for stem in sorted({*originals, *edited}):
        own = {"instruction": instructions} if isinstance(instructions, str) else texts.get(stem, {})
        if stem not in originals or stem not in edited:
            have, lack = (originals, after) if stem in originals else (edited, before)
            yield Problem(str(have[stem]), f"there is no picture {stem}.* in {lack}")
        elif not own.get("instruction", "").strip():
            yield Problem(str(originals[stem]), "there is no instruction for it")
        else:
            triplet = Triplet(
                own.get("caption", "").strip() or stem,
                own["instruction"].strip(),
                own.get("edited_caption", "").strip(),
                source=originals[stem].name,
            )
            yield numbers.record(triplet, ImageFile(originals[stem]), ImageFile(edited[stem]))


def _pictures(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise PairStoreError(f"There is no folder {folder}. Name the folder of pictures.")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in PICTURE_SUFFIXES:
            continue
        if path.stem in found:
            raise PairStoreError(f"{folder} holds both {found[path.stem].name} and {path.name}. Rename one of them.")
        found[path.stem] = path
    return found


def read_instructions(path: Path) -> dict[str, Texts]:
    """Read instructions for each picture.

    Args:
        path: a folder of .txt files, or a .txt, .json or .csv file.

    Returns:
        Stem -> instruction, and captions where they are given.

    Raises:
        PairStoreError: if it cannot be read, or names no instruction.
    """
    if path.is_dir():
        return {one.stem: {"instruction": _read(one)} for one in sorted(path.glob("*.txt"))}
    readers = {".txt": _from_lines, ".json": _from_json, ".csv": _from_table}
    if path.suffix.lower() not in readers:
        raise PairStoreError(f"The instructions {path} are no folder, .txt, .json or .csv. Choose one of these.")
    return readers[path.suffix.lower()](path, _read(path))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise PairStoreError(
            f"The instructions {path} cannot be read as UTF-8 text ({error}). Check the file."
        ) from None


def _from_lines(path: Path, content: str) -> dict[str, Texts]:
    texts = {}
    for number, line in enumerate(content.splitlines(), start=1):
        name, tab, instruction = line.partition("\t")
        if line.strip() and not tab:
            raise PairStoreError(
                f"Line {number} of {path} has no tab; write the file's stem, a tab, and the instruction on each line."
            )
        if tab:
            texts[_stem(name)] = {"instruction": instruction}
    return texts


def _from_json(path: Path, content: str) -> dict[str, Texts]:
    try:
        record = json.loads(content)
    except ValueError as error:
        raise PairStoreError(f"The instructions {path} are not JSON ({error}). Repair the file.") from None
    if isinstance(record, dict):
        named = {name: {"instruction": value} if isinstance(value, str) else value for name, value in record.items()}
        record = [{**value, "stem": name} if isinstance(value, dict) else value for name, value in named.items()]
    if not isinstance(record, list) or not all(isinstance(one, dict) for one in record):
        raise PairStoreError(f"The instructions {path} need an object by stem, or a list of objects. Repair the file.")
    return _from_objects(path, record)


def _from_table(path: Path, content: str) -> dict[str, Texts]:
    return _from_objects(path, csv.DictReader(io.StringIO(content)))


def _from_objects(path: Path, objects: Iterable[Mapping[str, Any]]) -> dict[str, Texts]:
    texts: dict[str, Texts] = {}
    for number, one in enumerate(objects, start=1):
        stem = _first(one, _STEM_NAMES)
        if stem is None or _first(one, _TEXT_NAMES["instruction"]) is None:
            raise PairStoreError(
                f"Entry {number} of {path} lacks the picture ({', '.join(_STEM_NAMES)}) or the instruction "
                f"({', '.join(_TEXT_NAMES['instruction'])}). Add it under one of these names."
            )
        texts[_stem(stem)] = {
            name: found for name in _TEXT_NAMES if (found := _first(one, _TEXT_NAMES[name])) is not None
        }
    return texts


def _first(record: Mapping[str, Any], names: Iterable[str]) -> str | None:
    return next((value for name in names if isinstance(value := record.get(name), str) and value.strip()), None)


def _stem(name: str) -> str:
    path = Path(name.strip())
    return path.stem if path.suffix.lower() in PICTURE_SUFFIXES else path.name
