"""Prompt-to-Prompt with whole probability matrices, written from the semantics of the published notebooks.

The batch is [unconditional | conditional], each half [source, edit, edit ...]; only the conditional half is edited.
Shapes: R rows, N prompts of a half, E = N - 1 edited ones, H heads, Q image tokens, K keys, T text tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ip2p.ip2p_core.prompt_alignment import Caption

CrossEdit = Callable[[Tensor, Tensor], Tensor]
"""(source probabilities [H, Q, T], own ones [E, H, Q, T]) -> edited ones [E, H, Q, T]."""


def split_caption(text: str, context_tokens: int = 77) -> Caption:
    """A dummy tokenizer: pieces of up to 4 characters, so that words have different numbers of tokens."""
    tokens: list[str] = []
    for word in text.split():
        pieces = [word[start : start + 4] for start in range(0, len(word), 4)]
        tokens += [*pieces[:-1], pieces[-1] + "</w>"]
    return Caption(tuple(tokens), context_tokens)


def replace_words(mapper_EWT: Tensor) -> CrossEdit:
    return lambda base, own: torch.einsum("hpw,bwn->bhpn", base, mapper_EWT.to(base))


def refine_words(positions_ET: Tensor, shares_ET: Tensor) -> CrossEdit:
    def edit(base: Tensor, own: Tensor) -> Tensor:
        gathered = torch.stack([base[:, :, positions] for positions in positions_ET])
        shares = shares_ET[:, None, None].to(base)
        return gathered * shares + own * (1 - shares)

    return edit


def reweight_words(equalizer_ET: Tensor, previous: CrossEdit | None = None) -> CrossEdit:
    def edit(base: Tensor, own: Tensor) -> Tensor:
        edited = base[None] if previous is None else previous(base, own)
        return edited * equalizer_ET[:, None, None].to(base)

    return edit


def window_table(
    num_steps: int, spans: Sequence[Mapping[str, tuple[float, float]]], edited: Sequence[Caption]
) -> Tensor:
    """The published table [num_steps + 1, E, T] of which words follow the source when."""
    table = torch.zeros(num_steps + 1, len(edited), edited[0].context_tokens)
    for row, (windows, caption) in enumerate(zip(spans, edited, strict=True)):
        for word, (start, end) in {"default_": (0.0, 1.0), **windows}.items():
            positions = list(range(caption.context_tokens)) if word == "default_" else list(caption.find(word))
            table[:, row, positions] = 0
            for step in range(int(start * len(table)), int(end * len(table))):
                table[step, row, positions] = 1
    return table


class Blend:
    """The null-text notebook's local blend; with start 0 and no words to leave out it is the stable notebook's."""

    def __init__(
        self, words_NT: Tensor, subtracted_NT: Tensor | None, start: int, thresholds: tuple[float, float]
    ) -> None:
        self.words, self.subtracted, self.start, self.thresholds = words_NT, subtracted_NT, start, thresholds
        self.maps: dict[int, Tensor] = {}
        self.num_calls = 0

    def mask(self, latents: Tensor, words_NT: Tensor, threshold: float, is_pooled: bool) -> Tensor:
        side = math.isqrt(next(iter(self.maps.values())).shape[2])
        maps = torch.cat([one.unflatten(2, (side, side)) for one in self.maps.values()], dim=1)
        maps = (maps * words_NT[:, None, None, None].to(maps)).sum(-1).mean(1, keepdim=True)
        if is_pooled:
            maps = torch.nn.functional.max_pool2d(maps, (3, 3), (1, 1), padding=(1, 1))
        mask = torch.nn.functional.interpolate(maps, size=latents.shape[2:])
        mask = mask / mask.max(2, keepdim=True)[0].max(3, keepdim=True)[0] > threshold
        return mask[:1] + mask

    def __call__(self, latents: Tensor) -> Tensor:
        self.num_calls += 1
        if self.num_calls <= self.start:
            return latents
        mask = self.mask(latents, self.words, self.thresholds[0], True)
        if self.subtracted is not None:
            mask = mask * ~self.mask(latents, self.subtracted, self.thresholds[1], False)
        return latents[:1] + mask.to(latents) * (latents - latents[:1])


class Controller:
    """The published controllers: edits the probabilities of every layer, counts the steps, keeps maps after the edit."""

    def __init__(
        self,
        edit_cross: CrossEdit,
        windows: Tensor,
        self_steps: tuple[int, int],
        max_self_tokens: int | None = None,
        blend: Blend | None = None,
        map_tokens: int = 16,
    ) -> None:
        self.edit_cross, self.windows, self.self_steps = edit_cross, windows, self_steps
        self.max_self_tokens, self.blend, self.map_tokens = max_self_tokens, blend, map_tokens
        self.step = 0
        self.layer = 0

    def __call__(self, probabilities_RHQK: Tensor, is_cross: bool, place: str) -> Tensor:
        uncond, cond = probabilities_RHQK.chunk(2)
        own = cond[1:]
        num_queries = cond.shape[2]
        if is_cross:
            window = self.windows[self.step][:, None, None].to(cond)
            own = self.edit_cross(cond[0], own) * window + own * (1 - window)
        elif self.self_steps[0] <= self.step < self.self_steps[1] and num_queries <= (self.max_self_tokens or math.inf):
            own = cond[:1].expand_as(own)
        edited = torch.cat([cond[:1], own])
        if self.blend is not None and is_cross and place in ("down", "up") and num_queries == self.map_tokens:
            self.blend.maps[self.layer] = self.blend.maps.get(self.layer, 0) + edited
        self.layer += 1
        return torch.cat([uncond, edited])

    def end_step(self, latents: Tensor) -> Tensor:
        self.step += 1
        self.layer = 0
        return latents if self.blend is None else self.blend(latents)


def attend(
    q: Tensor, k: Tensor, v: Tensor, edit: Callable[[Tensor], Tensor] = lambda probabilities: probabilities
) -> Tensor:
    """Attention with its whole matrix, [R, H, tokens, width] each."""
    return edit((q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)) @ v


def attend_with_copied_logits(q: Tensor, k: Tensor, v: Tensor, is_active: Sequence[bool]) -> Tensor:
    """The published pair generator, one pair at a time: rows [uncond, uncond edited, cond, cond edited] of every pair.

    Logits of the rows become those of rows 0, 0, 2, 2, for the pairs that are active.
    """
    out = torch.empty_like(v)
    for pair, is_on in enumerate(is_active):
        rows = [4 * pair + row for row in range(4)]
        logits = q[rows] @ k[rows].transpose(-1, -2) * q.shape[-1] ** -0.5
        out[rows] = (logits[[0, 0, 2, 2]] if is_on else logits).softmax(-1) @ v[rows]
    return out


class MaterialisedProcessor:
    """A diffusers attention processor with the whole matrix, handed to `edit(probabilities, is_cross, place)`."""

    def __init__(self, edit: Callable[[Tensor, bool, str], Tensor], place: str) -> None:
        self.edit, self.place = edit, place

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        q, k, v = (one.reshape(*one.shape[:2], attn.heads, -1).permute(0, 2, 1, 3) for one in (q, k, v))
        is_cross = encoder_hidden_states is not None
        out = attend(q, k, v, lambda probabilities: self.edit(probabilities, is_cross, self.place))
        return attn.to_out[0](out.permute(0, 2, 1, 3).reshape(hidden_states.shape))
