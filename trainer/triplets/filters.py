"""Which triplets are kept. Each reason has a name, and each is counted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from ...ip2p_core.instruction_writer import classify_edit, tags_of
from ...ip2p_core.instruction_writer.prompts import is_identity
from ...ip2p_core.open_clip_adapter import count_tokens
from ...ip2p_core.triplet import Triplet, normalise
from .journal import Entry
from .moderation import Moderator
from .near_duplicates import NearDuplicates

CLIP_TOKENS = 77
"""Longest caption that Stable Diffusion's text encoder reads, its start and end included; the rest would be cut in silence."""
_FEWEST_FOR_SHARES = 20
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a triplet must keep to; `TripletsConfig` says it in words."""

    max_words: int = 60
    min_changed: float = 0.0
    max_changed: float = 0.9
    near_duplicate: float = 0.9
    max_per_instruction: int = 0
    quotas: dict[str, float] = field(default_factory=dict)
    keep_impossible: bool = True


def changed_share(caption: str, edited_caption: str) -> float:
    """Say which part of the words differs, in [0, 1]: 1 - shared words / words of the longer caption."""
    first, second = (Counter(_WORD.findall(text.casefold())) for text in (caption, edited_caption))
    longest = max(first.total(), second.total())
    return 1 - (first & second).total() / longest if longest else 0.0


def find_own_fault(caption: str, instruction: str, edited_caption: str, limits: Limits) -> str:
    """Name what is wrong with a triplet by itself, or return an empty text.

    Args:
        caption: of the original.
        instruction: of the edit.
        edited_caption: of the result.
        limits: what it must keep to.

    Returns:
        "empty", "identity", "instruction_is_caption", "too_many_words", "too_many_tokens", "changed_share", or "".
    """
    texts = (caption, instruction, edited_caption)
    if not all(map(normalise, texts)):
        return "empty"
    if is_identity(caption, edited_caption):
        return "identity"
    if normalise(instruction) in (normalise(edited_caption), normalise(caption)):
        return "instruction_is_caption"
    if any(len(text.split()) > limits.max_words for text in texts):
        return "too_many_words"
    if any(
        len(text) > CLIP_TOKENS - 2 and count_tokens(text) > CLIP_TOKENS for text in texts
    ):  # a token is a byte or more
        return "too_many_tokens"
    share = changed_share(caption, edited_caption)
    return "" if limits.min_changed <= share <= limits.max_changed else "changed_share"


def find_unsafe(texts: Sequence[str], moderator: Moderator | None) -> str:
    """Return "unsafe" if the moderator finds any of the texts so, else an empty text."""
    return "unsafe" if moderator is not None and any(moderator(texts)) else ""


class RunFilter:
    """What depends on the triplets before: duplicates, caps and quotas. Feed it in the order of the captions.

    Args:
        limits: what triplets must keep to.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._ids = set[tuple[str, str, str]]()
        self._near = NearDuplicates(limits.near_duplicate) if limits.near_duplicate else None
        self._instructions, self._types = Counter[str](), Counter[str]()
        self.num_kept = 0

    def find_fault(self, entry: Entry) -> str:
        """Name why a triplet is left out, or remember it and return an empty text.

        Args:
            entry: a triplet that has no fault by itself.

        Returns:
            "impossible_edit", "equal", "near_duplicate", "instruction_cap", "quota", or "".
        """
        texts = (normalise(entry.caption), normalise(entry.instruction), normalise(entry.edited_caption))
        kind = edit_type_of(entry)
        if not self._limits.keep_impossible and tags_of(entry.instruction):
            return "impossible_edit"
        if texts in self._ids:
            return "equal"
        cap = self._limits.max_per_instruction
        if cap and self._instructions[texts[1]] >= cap:
            return "instruction_cap"
        if self._types[kind] >= self._room(kind):
            return "quota"
        if self._near is not None and self._near.find_or_add(" ".join(texts)) is not None:
            return "near_duplicate"
        self._ids.add(texts)
        self._instructions[texts[1]] += 1
        self._types[kind] += 1
        self.num_kept += 1
        return ""

    def _room(self, kind: str) -> float:
        """How many of a kind there may be by now; a quota up to 1 is a share of all."""
        quota = self._limits.quotas.get(kind, 1.0)
        return quota if quota > 1 else quota * max(self.num_kept + 1, _FEWEST_FOR_SHARES)


def edit_type_of(entry: Entry | Triplet) -> str:
    """The kind of edit: as its writer says, or by the words of the instruction."""
    return entry.edit_type or classify_edit(entry.instruction)
