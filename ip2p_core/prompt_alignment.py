"""Which token of an edited caption stands for which token of the caption (Hertz et al. 2022, arXiv:2208.01626).

Two mappers: `reference` gives the numbers of the published notebooks, their misalignment included; `aligned` mends it:
every edited token takes weights that sum to 1, and what follows a swapped word stays with its own source token.
Shapes: T tokens of a text context (77 for CLIP), start token, caption, end token and padding.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .errors import ConfigError

CONTEXT_TOKENS = 77
Mapper = Literal["aligned", "reference"]
_WORD_END = "</w>"
_START, _END = "<start>", "<end>"


class Word(NamedTuple):
    """One word of a caption; its tokens are the positions start to stop - 1 of the text context."""

    text: str
    start: int
    stop: int


class Refinement(NamedTuple):
    """Where each edited token comes from: the source position, or -1 and share 0 for a token that is new."""

    positions: tuple[int, ...]
    shares: tuple[float, ...]


class TokenMap(NamedTuple):
    """How edited tokens take attention from source tokens.

    source_map[s, e] is what edited token e takes of source token s, [T, T]; source_share [T] is the part of an edited
    token's attention that comes from the source, the rest is its own.
    """

    source_map: Tensor
    source_share: Tensor


@dataclass(frozen=True)
class Caption:
    """A caption as byte pair tokens.

    Attributes:
        tokens: token strings without start, end and padding; "</w>" ends a word.
        context_tokens: length T of the text context.

    Raises:
        ConfigError: if the caption is empty or longer than the text context.
    """

    tokens: tuple[str, ...]
    context_tokens: int = CONTEXT_TOKENS

    def __post_init__(self) -> None:
        if not self.tokens:
            raise ConfigError("The caption is empty; Prompt-to-Prompt needs words. Write what the image shows.")
        room = self.context_tokens - 2
        if len(self.tokens) > room:
            cut = _read_tokens(self.tokens[room:])
            raise ConfigError(
                f"The caption has {len(self.tokens) + 2} tokens with start and end, {self.context_tokens} fit: "
                f"{cut!r} would be cut. Shorten the caption."
            )

    @property
    def words(self) -> tuple[Word, ...]:
        """The words in order, punctuation apart from letters as the tokenizer cuts it."""
        words = []
        start = 0
        for stop, token in enumerate(self.tokens, 1):
            if token.endswith(_WORD_END) or stop == len(self.tokens):
                words.append(Word(_read_tokens(self.tokens[start:stop]), start + 1, stop + 1))
                start = stop
        return tuple(words)

    def find(self, phrase: str) -> tuple[int, ...]:
        """Find the token positions of every occurrence of a word or of words in a row.

        Args:
            phrase: what to look for; upper and lower case are the same, spaces do not count.

        Returns:
            Positions in the text context, increasing.

        Raises:
            ConfigError: if the phrase does not occur.
        """
        wanted = "".join(phrase.lower().split())
        words = self.words
        found: set[int] = set()
        for first in range(len(words)):
            joined = ""
            for word in words[first:]:
                joined += "".join(word.text.lower().split())
                if joined == wanted:
                    found.update(range(words[first].start, word.stop))
                if len(joined) >= len(wanted):
                    break
        if not found:
            caption = " ".join(word.text for word in words)
            raise ConfigError(f"The word {phrase!r} does not occur in {caption!r}; name a word of that caption.")
        return tuple(sorted(found))


def check_captions(source: Caption, edited: Caption) -> None:
    """Refuse a pair that has nothing to edit.

    Args:
        source: the caption.
        edited: the edited caption.

    Raises:
        ConfigError: if both captions are equal, or their text contexts differ in length.
    """
    if source.tokens == edited.tokens:
        caption = " ".join(word.text for word in source.words)
        raise ConfigError(f"Caption and edited caption are both {caption!r}; they must differ. Change the edited one.")
    if source.context_tokens != edited.context_tokens:
        raise ConfigError(
            f"The captions have text contexts of {source.context_tokens} and {edited.context_tokens} tokens; both need "
            "the same length. Use one text encoder for both."
        )


def map_replaced_words(source: Caption, edited: Caption, mapper: Mapper = "aligned") -> Tensor:
    """Map words that are swapped one for one ("replace").

    A swapped word of as many tokens takes them one by one. Otherwise each edited token takes the mean of the source
    word (`aligned`), or the source tokens' sum over the number of edited tokens (`reference`).

    Args:
        source: the caption.
        edited: the edited caption, with as many words.
        mapper: mended or as published.

    Returns:
        source_map [T, T], float32.

    Raises:
        ConfigError: if the numbers of words differ.
    """
    words, edited_words = source.words, edited.words
    if len(words) != len(edited_words):
        raise ConfigError(
            f"The caption has {len(words)} words and the edited caption {len(edited_words)}; replacing needs the same "
            'number. Swap words one for one, or choose "refine".'
        )
    num_tokens = source.context_tokens
    source_map = torch.zeros(num_tokens, num_tokens)
    i = j = 0
    for old, new in zip(words, edited_words, strict=True):
        if old.text == new.text:
            continue
        unchanged = torch.arange(old.start - i)
        source_map[i + unchanged, j + unchanged] = 1.0
        _link_word(source_map, old, new, mapper)
        i, j = old.stop, new.stop
    if mapper == "reference":
        rest = torch.arange(j, j + num_tokens - max(i, j))
        source_map[rest, rest] = 1.0  # the published code follows the edited caption on both sides here
    else:
        rest = torch.arange(j, num_tokens)
        source_map[(rest - j + i).clamp_max(num_tokens - 1), rest] = 1.0
    return source_map


def _link_word(source_map: Tensor, old: Word, new: Word, mapper: Mapper) -> None:
    num_old, num_new = old.stop - old.start, new.stop - new.start
    if num_old == num_new:
        source_map[torch.arange(old.start, old.stop), torch.arange(new.start, new.stop)] = 1.0
    else:
        source_map[old.start : old.stop, new.start : new.stop] = 1.0 / (num_new if mapper == "reference" else num_old)


def align_refined_tokens(source: Caption, edited: Caption, mapper: Mapper = "aligned") -> Refinement:
    """Find the longest common part of two captions by global alignment (Needleman-Wunsch: gap 0, match 1, mismatch -1).

    Ties prefer a new edited token, then a dropped source token. Padding maps to padding (`aligned`), or to the same
    position even where that holds a source word (`reference`).

    Args:
        source: the caption.
        edited: the edited caption, with words added, dropped or changed.
        mapper: mended or as published.

    Returns:
        Source position and share for each of the T edited positions.
    """
    x, y = (_START, *source.tokens, _END), (_START, *edited.tokens, _END)
    positions = _align(x, y)
    num_tokens = source.context_tokens
    shift = len(x) - len(y) if mapper == "aligned" else 0
    positions += [min(position + shift, num_tokens - 1) for position in range(len(y), num_tokens)]
    return Refinement(tuple(positions), tuple(float(position >= 0) for position in positions))


def _align(x: Sequence[str], y: Sequence[str]) -> list[int]:
    """For every token of y the position of its partner in x, or -1."""
    score = [[0] * (len(y) + 1) for _ in range(len(x) + 1)]
    for i, j in itertools.product(range(1, len(x) + 1), range(1, len(y) + 1)):
        match = 1 if x[i - 1] == y[j - 1] else -1
        score[i][j] = max(score[i][j - 1], score[i - 1][j], score[i - 1][j - 1] + match)
    partners = [-1] * len(y)
    i, j = len(x), len(y)
    while i > 0 and j > 0:
        if score[i][j] == score[i][j - 1]:
            j -= 1
        elif score[i][j] == score[i - 1][j]:
            i -= 1
        else:
            i, j = i - 1, j - 1
            partners[j] = i
    return partners


def map_tokens(
    kind: Literal["replace", "refine", "reweight"], source: Caption, edited: Caption, mapper: Mapper = "aligned"
) -> TokenMap:
    """Say for one kind of edit what each edited token takes from the source.

    Args:
        kind: words swapped one for one, words added or dropped, or only weighted.
        source: the caption.
        edited: the edited caption.
        mapper: mended or as published; without effect on "reweight".

    Returns:
        The map and the shares, float32.

    Raises:
        ConfigError: if the captions do not fit the kind of edit.
    """
    num_tokens = source.context_tokens
    if kind == "replace":
        return TokenMap(map_replaced_words(source, edited, mapper), torch.ones(num_tokens))
    if kind == "reweight":
        return TokenMap(torch.eye(num_tokens), torch.ones(num_tokens))
    positions, shares = align_refined_tokens(source, edited, mapper)
    source_map = torch.zeros(num_tokens, num_tokens)
    for column, position in enumerate(positions):
        if position >= 0:
            source_map[position, column] = 1.0
    return TokenMap(source_map, torch.tensor(shares))


def _read_tokens(tokens: Sequence[str]) -> str:
    """Join tokens to text; byte pair vocabularies write every byte beyond ASCII as a stand-in character."""
    pieces = "".join(tokens).replace(_WORD_END, " ").strip().split(" ")
    return " ".join(_read_bytes(piece) for piece in pieces)


def _read_bytes(text: str) -> str:
    try:
        return bytes(_BYTES[character] for character in text).decode("utf-8")
    except (KeyError, UnicodeDecodeError):
        return text


def _byte_stand_ins() -> dict[str, int]:
    """Character -> byte: a printable Latin-1 character is its own byte, the others are counted from U+0100 on."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    hidden = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(hidden)}


_BYTES = _byte_stand_ins()
