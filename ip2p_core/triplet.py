"""Caption, instruction, edited caption: parse, check, identify, deduplicate (arXiv:2211.09800, section 3.1).

One JSON object a line. Readers accept the field names of the published files and ours; writers use ours.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from .errors import BadTriplet

FIELD_NAMES = {
    "caption": ("caption", "input"),
    "instruction": ("instruction", "edit"),
    "edited_caption": ("edited_caption", "output"),
}
OnMalformed = Literal["skip", "raise"]
_NUM_LISTED = 5


@dataclass(frozen=True, slots=True)
class Triplet:
    """What one edit says: the text of the original, the instruction, the text of the result."""

    caption: str
    instruction: str
    edited_caption: str
    source: str = ""
    """Where it comes from: a file, a model, a person."""
    edit_type: str = ""
    """What kind of edit it is, as "replace" or "colour", where a file says so."""


class MalformedLine(NamedTuple):
    """A line that gave no triplet."""

    line: int  # counted from 1
    reason: str


class TripletFile(NamedTuple):
    """The content of a file of triplets."""

    triplets: tuple[Triplet, ...]
    malformed: tuple[MalformedLine, ...]

    def report(self) -> str:
        """Say in one line what was read and what was skipped."""
        lines = f"{len(self.triplets)} triplets"
        return f"{lines}; {describe_malformed(self.malformed)}" if self.malformed else lines


def normalise(text: str) -> str:
    """Reduce a text to what counts when triplets are compared.

    Unicode NFKC, lower case (casefold), white space collapsed to single blanks, and no blanks or `.!?` at the ends. The
    published code compares captions by `strip().strip(".!?").lower()`; this finds the same pairs equal, and more.
    """
    collapsed = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return collapsed.strip(" .!?")


def prompt_id(triplet: Triplet) -> str:
    """Name a triplet by its three texts, the same on every machine and in every version.

    The texts are normalised (see `normalise`), joined by line feeds, which no normalised text contains, and encoded as
    UTF-8. The source plays no part.

    Args:
        triplet: the three texts.

    Returns:
        The first 16 hexadecimal digits of their SHA-256.
    """
    texts = (triplet.caption, triplet.instruction, triplet.edited_caption)
    return hashlib.sha256("\n".join(map(normalise, texts)).encode()).hexdigest()[:16]


def find_fault(triplet: Triplet, *, may_be_equal: bool = False) -> str | None:
    """Say why a triplet cannot become a training pair, or return None.

    Args:
        triplet: the three texts.
        may_be_equal: both captions may be the same, as where an edit only weights their words.

    Returns:
        One clause without a full stop, or None if the triplet is usable.
    """
    for name in FIELD_NAMES:
        if not normalise(getattr(triplet, name)):
            return f"{name} is empty"
    if not may_be_equal and normalise(triplet.caption) == normalise(triplet.edited_caption):
        return f"caption and edited_caption are equal ({triplet.caption!r})"
    return None


def deduplicate(triplets: Iterable[Triplet]) -> list[Triplet]:
    """Keep the first of all triplets with the same prompt_id, in order."""
    first: dict[str, Triplet] = {}
    for triplet in triplets:
        first.setdefault(prompt_id(triplet), triplet)
    return list(first.values())


def read_triplets(path: Path | str, on_malformed: OnMalformed = "skip") -> TripletFile:
    """Read a JSONL file of triplets.

    A line is malformed if it is not a JSON object with three texts, if it gives one text twice under different names
    with different content, if a text is empty, or if both captions are equal. Blank lines mean nothing.

    Args:
        path: the file.
        on_malformed: skip malformed lines and list them, or raise if there is any.

    Returns:
        The triplets in order, duplicates included, and the malformed lines.

    Raises:
        BadTriplet: if the file cannot be read, holds no triplet, or has malformed lines that may not be skipped.
    """
    path = Path(path)
    triplets: list[Triplet] = []
    malformed: list[MalformedLine] = []
    for number, line in _lines(path):
        try:
            triplets.append(parse_triplet(line, source=path.name))
        except BadTriplet as fault:
            malformed.append(MalformedLine(number, str(fault)))
    if malformed and on_malformed == "raise":
        raise BadTriplet(
            f"{path.name} has {describe_malformed(malformed)}. Repair or delete them, or choose to skip malformed lines."
        )
    if not triplets:
        found = describe_malformed(malformed) if malformed else "no lines"
        raise BadTriplet(
            f"{path.name} holds no usable triplet ({found}); each line needs a JSON object with caption, instruction and "
            "edited_caption."
        )
    return TripletFile(tuple(triplets), tuple(malformed))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as opened:
            for number, line in enumerate(opened, start=1):
                stripped = line.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else line.strip()
                if stripped:
                    yield number, stripped
    except OSError as error:
        raise BadTriplet(
            f"The file of triplets {path} cannot be read ({error.strerror or error}). Check its name and permissions."
        ) from None


def parse_triplet(line: bytes | str, source: str = "") -> Triplet:
    """Parse one line.

    Args:
        line: a JSON object.
        source: where the line comes from, if the object does not say.

    Returns:
        A usable triplet; its texts lose white space at the ends.

    Raises:
        BadTriplet: if it is none; the message is one clause.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadTriplet(f"not JSON: {error}") from None
    if not isinstance(record, dict):
        raise BadTriplet("not a JSON object")
    texts = {name: _text(record, *names) for name, names in FIELD_NAMES.items()}
    others = {"source": source, "edit_type": ""}
    others |= {name: record[name] for name in others if isinstance(record.get(name), str)}
    triplet = Triplet(**texts, **others)
    if fault := find_fault(triplet):
        raise BadTriplet(fault)
    return triplet


def _text(record: dict[str, object], ours: str, published: str) -> str:
    found = {name: record[name] for name in (ours, published) if record.get(name) is not None}
    if not found:
        raise BadTriplet(f"neither {ours!r} nor {published!r} is there")
    for name, value in found.items():
        if not isinstance(value, str):
            raise BadTriplet(f"{name!r} is {type(value).__name__}, not a text")
    if len(set(found.values())) > 1:
        raise BadTriplet(f"{ours!r} and {published!r} are both there and differ")
    return str(next(iter(found.values()))).strip()


def describe_malformed(malformed: Iterable[MalformedLine]) -> str:
    """Count malformed lines and list the first ones with their numbers."""
    lines = list(malformed)
    shown = "; ".join(f"line {one.line}: {one.reason}" for one in lines[:_NUM_LISTED])
    more = f"; and {len(lines) - _NUM_LISTED} more" if len(lines) > _NUM_LISTED else ""
    return f"{len(lines)} malformed line{'s' if len(lines) != 1 else ''} ({shown}{more})"


def to_json(triplet: Triplet) -> str:
    """Write a triplet as one line of JSON under our field names."""
    return json.dumps(asdict(triplet), ensure_ascii=False)
