"""The paper's own sharing: cross-attention edits, and self-attention by size (Hertz et al. 2022, arXiv:2208.01626)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .attention_sharing import CrossPlan, StepPlan, call_rows, check_rows
from .cross_attention_edit import AttentionEdit


@dataclass(frozen=True, kw_only=True)
class PromptToPrompt:
    """Cross- and self-attention of the edited rows follow the source as the paper says, in the conditional branch.

    Attributes:
        source_rows: for each row of a branch the row it takes attention from.
        edits: what each row takes; None for source rows.
        max_self_tokens: largest number of tokens at which self-attention is shared; the published notebooks use 16² and
            32², None shares all sizes.

    Raises:
        ValueError: if the rows do not form pairs, or an edited row has no edit.
    """

    source_rows: tuple[int, ...]
    edits: tuple[AttentionEdit | None, ...]
    max_self_tokens: int | None = 16**2

    def __post_init__(self) -> None:
        check_rows(self.source_rows, len(self.edits))
        for row, (source, edit) in enumerate(zip(self.source_rows, self.edits, strict=True)):
            if (source == row) != (edit is None):
                raise ValueError(
                    f"Row {row} takes attention from row {source}; only such rows need an edit, and all do."
                )

    def plan(
        self, step: int, num_steps: int, branches: Sequence[bool], device: torch.device | str | None = None
    ) -> StepPlan:
        """Say what is shared in one call.

        Args:
            step: index of the step, 0 to num_steps - 1.
            num_steps: steps of the whole run.
            branches: the branches in the call, in order; True where conditional. Only those are edited.
            device: where the network runs.

        Returns:
            The plan of the call.
        """
        num_rows = len(self.source_rows)
        rows = [
            source if edit is not None and edit.shares_self_attention(step, num_steps) else row
            for row, (source, edit) in enumerate(zip(self.source_rows, self.edits, strict=True))
        ]
        return StepPlan(
            branches=tuple(branches),
            num_rows=len(branches) * num_rows,
            self_rows=call_rows([rows if branch else list(range(num_rows)) for branch in branches], device),
            max_self_tokens=self.max_self_tokens,
            cross=self._plan_cross(step, num_steps, branches, device),
        )

    def _plan_cross(
        self, step: int, num_steps: int, branches: Sequence[bool], device: torch.device | str | None
    ) -> CrossPlan | None:
        own: list[tuple[int, Tensor]] = []
        borrowed: list[tuple[int, int, Tensor]] = []
        num_rows = len(self.source_rows)
        weights = [None if edit is None else edit.value_weights(step, num_steps) for edit in self.edits]
        plain = torch.ones(next((len(weight.own) for weight in weights if weight is not None), 1))
        for branch, is_conditional in enumerate(branches):
            for row, weight in enumerate(weights):
                call_row = branch * num_rows + row
                if weight is None or not is_conditional:
                    own.append((call_row, plain))
                    continue
                if weight.own.any():
                    own.append((call_row, weight.own))
                if weight.from_source.any():
                    borrowed.append((call_row, branch * num_rows + self.source_rows[row], weight.from_source))
        if not borrowed and all(bool((values == 1).all()) for _, values in own):
            return None
        num_tokens = len(plain)
        maps = [value_map for _, _, value_map in borrowed]
        value_maps = torch.stack(maps) if maps else plain.new_zeros(0, num_tokens, num_tokens)
        return CrossPlan(
            own_rows=torch.tensor([row for row, _ in own], device=device),
            own_weights=torch.stack([values for _, values in own])[:, None, :, None].to(device),
            borrowing_rows=torch.tensor([row for row, _, _ in borrowed], device=device, dtype=torch.long),
            source_rows=torch.tensor([source for _, source, _ in borrowed], device=device, dtype=torch.long),
            value_maps=value_maps[:, None].to(device),
        )
