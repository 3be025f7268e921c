"""Attention shared inside a pair: Prompt-to-Prompt (Hertz et al. 2022, arXiv:2208.01626) as InstructPix2Pix uses it.

`PublishedSharing` is the pair generator of the published InstructPix2Pix code: self-attention queries and keys of the
edited rows come from their source rows, in every branch and at every resolution. The paper's own edits, in
`prompt_to_prompt.py`, give the same kind of plan. `attend` carries a plan out and writes no probability down.

A call of the network holds one or more branches of guidance; each branch has the same rows, and `source_rows` names for
each row of a branch the row that it takes attention from (itself for a source).
Suffixes: R rows of a call, B rows of a branch, H heads, Q query tokens, K key tokens, D width of a head, T text tokens,
C columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from .errors import ConfigError

Attention = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""(q_RHQD, k_RHKD, v_RHKD, mask [R or 1, H or 1, Q, K] or None) -> out_RHQD."""


class CrossPlan(NamedTuple):
    """Which rows attend with their own queries and keys, which with a source's, and over which values."""

    own_rows: Tensor
    own_weights: Tensor  # u [own, 1, T, 1]
    borrowing_rows: Tensor
    source_rows: Tensor  # of the borrowing rows
    value_maps: Tensor  # W [borrowing, 1, T, T]


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """What is shared in one call of the network; make it once per call, for all its layers.

    Attributes:
        branches: the branches of guidance in the call, in order; True where conditional.
        num_rows: rows R of the call.
        self_rows: for each row the row whose queries and keys self-attention uses [R], or None for its own.
        max_self_tokens: largest number of tokens at which self-attention is shared, or None for no limit.
        cross: edits of cross-attention, or None for none.
    """

    branches: tuple[bool, ...]
    num_rows: int
    self_rows: Tensor | None = None
    max_self_tokens: int | None = None
    cross: CrossPlan | None = None


class Sharing(Protocol):
    """A way to share attention inside pairs."""

    def plan(
        self, step: int, num_steps: int, branches: Sequence[bool], device: torch.device | str | None = None
    ) -> StepPlan:
        """Say what is shared in one call."""
        ...


def is_sharing(p2p_threshold: float, step: int, num_steps: int) -> bool:
    """Say whether a step shares, by the rule of the published pair generator: p > step / (num_steps - 1).

    The published rule divides by 0 for a single step; that step is the first, so it shares for every p above 0.
    """
    return p2p_threshold > step / max(num_steps - 1, 1)


def source_rows(num_pairs: int, num_edits: int = 1) -> tuple[int, ...]:
    """Name the source of each row of a branch that holds source, edit, ..., edit, source, edit and so on."""
    size = num_edits + 1
    return tuple(row - row % size for row in range(num_pairs * size))


@dataclass(frozen=True, kw_only=True)
class PublishedSharing:
    """Self-attention of the edited rows follows the source for the first part of the steps.

    Attributes:
        source_rows: for each row of a branch the row it takes attention from.
        p2p_thresholds: p of each row of a branch, in [0, 1]; those of source rows play no part.

    Raises:
        ConfigError: if a threshold is out of range; all of them at once.
        ValueError: if the rows do not form pairs.
    """

    source_rows: tuple[int, ...]
    p2p_thresholds: tuple[float, ...]

    def __post_init__(self) -> None:
        check_rows(self.source_rows, len(self.p2p_thresholds))
        mistakes = [
            f"p2p_threshold is {p:g}; it must lie between 0 (nothing shared) and 1, as a fraction of the steps."
            for p in dict.fromkeys(self.p2p_thresholds)
            if not 0.0 <= p <= 1.0
        ]
        if mistakes:
            raise ConfigError(*mistakes)

    def plan(
        self, step: int, num_steps: int, branches: Sequence[bool], device: torch.device | str | None = None
    ) -> StepPlan:
        """Say what is shared in one call.

        Args:
            step: index of the step, 0 to num_steps - 1.
            num_steps: steps of the whole run.
            branches: the branches in the call, in order; True where conditional. All of them share.
            device: where the network runs.

        Returns:
            The plan of the call.
        """
        rows = [
            source if is_sharing(p, step, num_steps) else row
            for row, (source, p) in enumerate(zip(self.source_rows, self.p2p_thresholds, strict=True))
        ]
        return StepPlan(
            branches=tuple(branches),
            num_rows=len(branches) * len(rows),
            self_rows=call_rows([rows] * len(branches), device),
        )


def check_rows(rows: Sequence[int], num_rows: int) -> None:
    """Refuse rows that do not form pairs.

    Args:
        rows: for each row of a branch the row it takes attention from.
        num_rows: rows B of the branch.

    Raises:
        ValueError: if a row takes attention from no row of the branch, or from a row that is edited itself.
    """
    if len(rows) != num_rows:
        raise ValueError(f"source_rows names {len(rows)} rows and the edit {num_rows}; both describe the same branch.")
    for row, source in enumerate(rows):
        if not 0 <= source < num_rows or rows[source] != source:
            raise ValueError(f"Row {row} takes attention from row {source}, which is not a source row of the branch.")


def call_rows(branch_rows: Sequence[Sequence[int]], device: torch.device | str | None) -> Tensor | None:
    """Number the rows of all branches through, or return None where every row keeps its own."""
    num_rows = len(branch_rows[0])
    rows = [branch * num_rows + row for branch, rows in enumerate(branch_rows) for row in rows]
    if rows == list(range(len(rows))):
        return None
    return torch.tensor(rows, device=device)


def fused_attention(q_RHQD: Tensor, k_RHKD: Tensor, v_RHKD: Tensor, mask: Tensor | None) -> Tensor:
    """Attend with torch's fused kernels."""
    return scaled_dot_product_attention(q_RHQD, k_RHKD, v_RHKD, attn_mask=mask)


def attend(
    q_RHQD: Tensor,
    k_RHKD: Tensor,
    v_RHKD: Tensor,
    plan: StepPlan,
    *,
    is_cross: bool,
    mask: Tensor | None = None,
    attention: Attention = fused_attention,
) -> Tensor:
    """Compute one attention layer of one call with what its rows share.

    Args:
        q_RHQD: projected queries.
        k_RHKD: projected keys.
        v_RHKD: projected values.
        plan: what is shared in this call.
        is_cross: keys and values come from the text; their number is T, or a multiple where the text is repeated.
        mask: added to the logits [R or 1, H or 1, Q, K], or None.
        attention: the backend.

    Returns:
        out_RHQD, before the output projection.

    Raises:
        ValueError: if the rows or the text tokens are not those of the plan.
    """
    if len(q_RHQD) != plan.num_rows:
        raise ValueError(
            f"The call has {len(q_RHQD)} rows; {len(plan.branches)} branches of the plan make {plan.num_rows}. Describe "
            "every row of a branch in source_rows, and every branch of the call in branches."
        )
    if is_cross and plan.cross is not None:
        return _attend_cross(q_RHQD, k_RHKD, v_RHKD, plan.cross, mask, attention)
    is_shared = plan.max_self_tokens is None or q_RHQD.shape[2] <= plan.max_self_tokens
    if is_cross or plan.self_rows is None or not is_shared:
        return attention(q_RHQD, k_RHKD, v_RHKD, mask)
    rows = plan.self_rows
    return attention(q_RHQD[rows], k_RHKD[rows], v_RHKD, _take(mask, rows))


def _attend_cross(
    q_RHQD: Tensor, k_RHKD: Tensor, v_RHKD: Tensor, cross: CrossPlan, mask: Tensor | None, attention: Attention
) -> Tensor:
    """P_source W v + P_own diag(u) v, each term for the rows that have it."""
    num_tokens, num_keys = cross.own_weights.shape[2], k_RHKD.shape[2]
    if num_keys % num_tokens:
        raise ValueError(f"The text has {num_keys} tokens; the edit was made for {num_tokens} or a multiple of that.")
    copies = num_keys // num_tokens
    out = v_RHKD.new_zeros(*q_RHQD.shape[:3], v_RHKD.shape[3])
    own, borrowing, sources = cross.own_rows, cross.borrowing_rows, cross.source_rows
    weights = cross.own_weights.to(v_RHKD.dtype).repeat(1, 1, copies, 1)
    out[own] = attention(q_RHQD[own], k_RHKD[own], weights * v_RHKD[own], _take(mask, own))
    if len(borrowing):
        v_borrowing = v_RHKD[borrowing]
        v_copies = v_borrowing.reshape(*v_borrowing.shape[:2], copies, num_tokens, -1)
        mapped = (cross.value_maps.to(v_RHKD.dtype)[:, :, None] @ v_copies).flatten(2, 3)
        out[borrowing] += attention(q_RHQD[sources], k_RHKD[sources], mapped, _take(mask, sources))
    return out


def _take(mask: Tensor | None, rows: Tensor) -> Tensor | None:
    return mask if mask is None or len(mask) == 1 else mask[rows]


def read_word_maps(
    q_RHQD: Tensor, k_RHKD: Tensor, plan: StepPlan, columns_BTC: Tensor, *, attention: Attention = fused_attention
) -> Tensor:
    """Read how much each image token attends to chosen words, after the edits, without the whole matrix.

    Attention over values that hold a word's weights gives the weighted sum of that word's probabilities.

    Args:
        q_RHQD: projected queries of a cross-attention layer.
        k_RHKD: projected keys.
        plan: what is shared in this call.
        columns_BTC: weight of each text token in each wanted map, for the rows of a branch; C at most D.
        attention: the backend.

    Returns:
        The maps of the conditional branch [B, Q, C], summed over heads, in float32 or better; 0 where the call has no
        conditional branch.
    """
    heads, num_keys, width = k_RHKD.shape[1:]
    num_columns, copies = columns_BTC.shape[2], num_keys // columns_BTC.shape[1]
    # fused kernels want values as wide as the queries
    probes = pad(columns_BTC.to(q_RHQD.dtype), (0, width - num_columns))
    values = probes.repeat(len(plan.branches), copies, 1)[:, None].expand(-1, heads, -1, -1)
    seen = attend(q_RHQD, k_RHKD, values, plan, is_cross=True, attention=attention)[..., :num_columns]
    maps = seen.to(torch.promote_types(seen.dtype, torch.float32)).sum(1)
    is_conditional = torch.tensor(plan.branches, device=maps.device)
    return maps.reshape(len(plan.branches), -1, *maps.shape[1:])[is_conditional].sum(0)
