"""One edit of Prompt-to-Prompt (Hertz et al. 2022, arXiv:2208.01626) as weights on the values of attention.

Every edit of the paper gives the edited row the attention  P_source W + P_own diag(u)  over its own values v, where P are
the softmax probabilities. Attention is linear in v, so this is attention of the source's queries and keys over W v plus
attention of the own ones over u v, and no probability needs to be written down:
    W = M diag(a c w),    u = (1 - a) c w + 1 - w
with the token map M, the share a taken from the source, the word weights c and the step window w, each per edited token.
Shapes: T tokens of a text context.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .errors import ConfigError
from .prompt_alignment import Caption, Mapper, check_captions, map_tokens

Window = tuple[float, float]
"""From and until which fraction of the steps; the end is not included."""
Span = float | Window
"""A window, or only its end."""
EditKind = Literal["replace", "refine", "reweight"]
DEFAULT_WORD = "default_"


class ValueWeights(NamedTuple):
    """W [T, T] and u [T] of one step."""

    from_source: Tensor
    own: Tensor


@dataclass(frozen=True, kw_only=True)
class AttentionEdit:
    """What one edited row takes from its source, in the conditional branch.

    Attributes:
        source_map: M [T, T], source token to edited token.
        source_share: a [T], in [0, 1].
        word_weights: c [T]; 1 keeps a token as it is, negative values push away from it. Nothing is renormalised.
        cross_windows: when each of the T edited tokens takes its attention from the source.
        self_window: when self-attention is the source's.
    """

    source_map: Tensor
    source_share: Tensor
    word_weights: Tensor
    cross_windows: tuple[Window, ...]
    self_window: Window

    def shares_self_attention(self, step: int, num_steps: int) -> bool:
        """Say whether the row takes the source's self-attention in a step, by the published rounding."""
        start, end = self.self_window
        return int(start * num_steps) <= step < int(end * num_steps)

    def value_weights(self, step: int, num_steps: int) -> ValueWeights:
        """Give W and u of one step.

        Args:
            step: index of the step, 0 to num_steps - 1.
            num_steps: steps of the whole run.

        Returns:
            Weights on the values of the edited row, float32.
        """
        # the published table of windows has one row more than there are steps; self-attention's has not
        rows = num_steps + 1
        is_open = [int(start * rows) <= step < int(end * rows) for start, end in self.cross_windows]
        window = torch.tensor(is_open, dtype=self.source_map.dtype)
        scale = self.word_weights * window
        return ValueWeights(
            self.source_map * (self.source_share * scale), (1.0 - self.source_share) * scale + 1.0 - window
        )


def make_attention_edit(
    kind: EditKind,
    source: Caption,
    edited: Caption,
    *,
    mapper: Mapper = "aligned",
    word_weights: Mapping[str, float] | None = None,
    cross_replace: Span | Mapping[str, Span] = 0.8,
    self_replace: Span = 0.4,
) -> AttentionEdit:
    """Describe the edit from one caption to another.

    Args:
        kind: "replace" swaps words one for one, "refine" adds or drops words, "reweight" only weights them. Weights can be
            given with any kind.
        source: the caption.
        edited: the edited caption.
        mapper: "aligned", or "reference" for the numbers of the published notebooks.
        word_weights: word of the edited caption -> factor on its attention.
        cross_replace: for which part of the steps cross-attention is the source's, as fractions; or word of the edited
            caption -> part, with the key "default_" for the others (all steps where it is missing).
        self_replace: for which part of the steps self-attention is the source's, as fractions.

    Returns:
        The edit, float32.

    Raises:
        ConfigError: if the captions do not fit the kind of edit, a word does not occur, or a number is out of range; all
            numbers at once.
    """
    weights = dict(word_weights or {})
    spans = dict(cross_replace) if isinstance(cross_replace, Mapping) else {DEFAULT_WORD: cross_replace}
    mistakes = [
        f"The weight of {word!r} is {weight}; it must be a finite number, 1 keeps the word as it is."
        for word, weight in weights.items()
        if not math.isfinite(weight)
    ]
    for name, span in [
        *((f"cross_replace[{word!r}]", span) for word, span in spans.items()),
        ("self_replace", self_replace),
    ]:
        start, end = _window(span)
        if not 0.0 <= start <= end <= 1.0:
            mistakes.append(
                f"{name} is {start:g} to {end:g}; it needs 0 <= start <= end <= 1, as fractions of the steps."
            )
    if mistakes:
        raise ConfigError(*mistakes)
    if kind != "reweight" or not weights:
        check_captions(source, edited)
    source_map, source_share = map_tokens(kind, source, edited, mapper)
    return AttentionEdit(
        source_map=source_map,
        source_share=source_share,
        word_weights=_weigh_words(edited, weights),
        cross_windows=_windows(edited, spans),
        self_window=_window(self_replace),
    )


def _weigh_words(edited: Caption, weights: Mapping[str, float]) -> Tensor:
    values = torch.ones(edited.context_tokens)
    for word, weight in weights.items():
        values[list(edited.find(word))] = weight
    return values


def _windows(edited: Caption, spans: Mapping[str, Span]) -> tuple[Window, ...]:
    windows = [_window(spans.get(DEFAULT_WORD, 1.0))] * edited.context_tokens
    for word, span in spans.items():
        if word != DEFAULT_WORD:
            for position in edited.find(word):
                windows[position] = _window(span)
    return tuple(windows)


def _window(span: Span) -> Window:
    if isinstance(span, (int, float)):
        return 0.0, float(span)
    start, end = span
    return float(start), float(end)
