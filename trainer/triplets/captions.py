"""Captions from text, JSONL, CSV, Parquet, a dataset, or a folder of pictures; without duplicates.

arXiv:2211.09800 leaves out captions and addresses that occur twice. Here that holds over the whole input.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ...ip2p_core.errors import BadTriplet
from ...ip2p_core.triplet import MalformedLine, normalise
from .near_duplicates import NearDuplicates

CAPTION_COLUMNS = ("caption", "TEXT", "text", "input", "original_prompt", "prompt", "Caption", "title")
URL_COLUMNS = ("url", "URL", "image_url")
IMAGE_COLUMNS = ("image", "image_path", "file_name", "path")
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
_BOMS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_Row = tuple[int, Any]
"""Number of a line, from 1, and what it holds."""


class Caption(NamedTuple):
    """What one picture shows."""

    id: str
    text: str
    url: str = ""
    image: str = ""
    """File of the picture, for models that see."""


@dataclass
class CaptionFile:
    """The captions of an input, and what was left out."""

    captions: list[Caption] = field(default_factory=list)
    malformed: list[MalformedLine] = field(default_factory=list)
    num_equal: int = 0
    num_same_url: int = 0
    num_near: int = 0
    encoding: str = ""
    """Of a text file, where it is not UTF-8."""

    def counts(self) -> dict[str, int]:
        """What was left out, by reason."""
        return {
            "malformed_lines": len(self.malformed),
            "equal_captions": self.num_equal,
            "equal_urls": self.num_same_url,
            "near_captions": self.num_near,
        }


def caption_id(text: str, image: str = "") -> str:
    """Name a caption: the first 16 hexadecimal digits of the SHA-256 of the normalised text, or of a picture's name."""
    return hashlib.sha256((normalise(text) or f"image\n{image}").encode()).hexdigest()[:16]


def read_captions(path: Path, column: str = "", url_column: str = "", near_duplicate: float = 0.0) -> CaptionFile:
    """Read captions, each once.

    Args:
        path: a .txt, .jsonl, .csv, .tsv or .parquet file, a dataset of this program, or a folder of .parquet files or pictures.
        column: of the captions; empty for the first of the usual names.
        url_column: of the pictures' addresses; the same.
        near_duplicate: captions whose words are this similar (Jaccard) to an earlier one are left out; 0 keeps them.

    Returns:
        The captions, in order, and what was left out.

    Raises:
        BadTriplet: if the input cannot be read, or holds no caption.
    """
    found = CaptionFile()
    texts, urls = set[str](), set[str]()
    near = NearDuplicates(near_duplicate) if near_duplicate else None
    columns = _Columns(column, url_column)
    for line, row in _rows(path, found):
        try:
            caption = columns.read(row)
        except BadTriplet as fault:
            found.malformed.append(MalformedLine(line, str(fault)))
            continue
        if caption.id in texts:
            found.num_equal += 1
        elif caption.url and caption.url in urls:
            found.num_same_url += 1
        elif near is not None and caption.text and near.find_or_add(caption.text) is not None:
            found.num_near += 1
        else:
            found.captions.append(caption)
            texts.add(caption.id)
            urls.add(caption.url)
    if not found.captions:
        reasons = "; ".join(f"line {one.line}: {one.reason}" for one in found.malformed[:3])
        raise BadTriplet(
            f"{path} holds no caption ({reasons or 'it is empty'}). Each line needs a text, or a column {column or 'caption'}."
        )
    return found


class _Columns:
    """Finds caption, address and picture in a row."""

    def __init__(self, caption: str, url: str) -> None:
        self._captions = (caption,) if caption else CAPTION_COLUMNS
        self._urls = (url,) if url else URL_COLUMNS

    def read(self, row: Any) -> Caption:
        if isinstance(row, str):
            row = {self._captions[0]: row}
        if not isinstance(row, dict):
            raise BadTriplet(f"{type(row).__name__} instead of a text or an object")
        text, image = _first(row, self._captions), _first(row, IMAGE_COLUMNS)
        if not normalise(text) and not image:
            if not any(name in row for name in self._captions):
                raise BadTriplet(f"no column {' or '.join(self._captions)}; there are {', '.join(map(str, row))}")
            raise BadTriplet("the caption is empty")
        text = " ".join(text.split())
        return Caption(caption_id(text, image), text, _first(row, self._urls), image)


def _first(row: dict[str, Any], names: Sequence[str]) -> str:
    for name in names:
        value = row.get(name)
        if value is not None and not isinstance(value, (str, dict, bytes)):
            raise BadTriplet(f"{name!r} is {type(value).__name__}, not a text")
        if isinstance(value, str) and value:
            return value
    return ""


def _rows(path: Path, found: CaptionFile) -> Iterator[_Row]:
    readers: dict[str, Callable[[Path, CaptionFile], Iterator[_Row]]] = {
        ".txt": _text_rows,
        ".jsonl": _json_rows,
        ".json": _json_rows,
        ".csv": _csv_rows,
        ".tsv": _csv_rows,
        ".parquet": _parquet_rows,
    }
    if path.is_dir():
        return _folder_rows(path, found)
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise BadTriplet(f"The captions {path} are of no known kind. Give one of {', '.join(readers)}, or a folder.")
    return reader(path, found)


def _folder_rows(folder: Path, found: CaptionFile) -> Iterator[_Row]:
    shards = sorted((folder / "shards" if (folder / "shards").is_dir() else folder).glob("*.parquet"))
    for shard in shards:
        yield from _parquet_rows(shard, found)
    if not shards:
        pictures = sorted(one for one in folder.iterdir() if one.suffix.lower() in PICTURES)
        for number, picture in enumerate(pictures, 1):
            text = picture.with_suffix(".txt")
            caption = text.read_text(encoding="utf-8", errors="replace") if text.exists() else ""
            yield number, {"caption": caption, "image": str(picture)}


def _decode(path: Path, found: CaptionFile) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadTriplet(f"The captions {path} cannot be read ({error.strerror or error}). Check the name.") from None
    for start, encoding in _BOMS:
        if content.startswith(start):
            found.encoding = encoding
            return content.decode(encoding, errors="replace")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        found.encoding = "cp1252"
        return content.decode("cp1252", errors="replace")


def _text_rows(path: Path, found: CaptionFile) -> Iterator[_Row]:
    for number, line in enumerate(_decode(path, found).splitlines(), 1):
        if line.strip():
            yield number, line


def _json_rows(path: Path, found: CaptionFile) -> Iterator[_Row]:
    for number, line in _text_rows(path, found):
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            found.malformed.append(MalformedLine(number, f"not JSON: {error}"))


def _csv_rows(path: Path, found: CaptionFile) -> Iterator[_Row]:
    text = _decode(path, found).replace("\x00", "")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else _delimiter(text)
    csv.field_size_limit(2**24)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            found.malformed.append(MalformedLine(reader.line_num, str(error)))
            continue
        if None in row:
            found.malformed.append(MalformedLine(reader.line_num, "more fields than the first line names"))
        else:
            yield reader.line_num, row


def _delimiter(text: str) -> str:
    first = text.partition("\n")[0]
    return max(",;\t", key=first.count)


def _parquet_rows(path: Path, _found: CaptionFile) -> Iterator[_Row]:
    import pyarrow  # not needed for texts
    from pyarrow import parquet

    try:
        opened = parquet.ParquetFile(path)
        wanted = {*CAPTION_COLUMNS, *URL_COLUMNS, *IMAGE_COLUMNS}
        names = [one.name for one in opened.schema_arrow if one.name in wanted or pyarrow.types.is_string(one.type)]
        number = 0
        for batch in opened.iter_batches(columns=names):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (OSError, pyarrow.ArrowException) as error:
        raise BadTriplet(f"The captions {path} are no readable Parquet file ({error}). Give another file.") from None
