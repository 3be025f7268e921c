"""Attention sharing in a diffusers U-Net: attention processors that carry out the core's plans. No import of diffusers.

Shapes: R rows of a call, H heads, D width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..ip2p_core.attention_sharing import Sharing, StepPlan, attend, read_word_maps
from ..ip2p_core.local_blend import LocalBlend


class PairAttention:
    """What the processors of one network share during one sampling run.

    Args:
        sharing: what the rows take from each other.
        blend: collects word maps where local blend is wanted.
    """

    def __init__(self, sharing: Sharing, blend: LocalBlend | None = None) -> None:
        self.blend = blend
        self._sharing = sharing
        self._plan: StepPlan | None = None

    @property
    def plan(self) -> StepPlan:
        """The plan of the coming call.

        Raises:
            ValueError: if `start_call` was never called.
        """
        if self._plan is None:
            raise ValueError(
                "The network runs before PairAttention.start_call said which step and branches it computes."
            )
        return self._plan

    def start_call(
        self, step: int, num_steps: int, branches: Sequence[bool], device: torch.device | str | None = None
    ) -> None:
        """Say what the coming call of the network computes.

        Args:
            step: index of the step, 0 to num_steps - 1.
            num_steps: steps of the whole run.
            branches: the branches in the call's batch, in order; True where conditional.
            device: where the network runs.
        """
        self._plan = self._sharing.plan(step, num_steps, branches, device)
        if self.blend is not None:
            self.blend.columns_BTC = self.blend.columns_BTC.to(device)


class PairAttentionProcessor:
    """One attention layer of a diffusers U-Net with sharing.

    Args:
        pair: the state that all layers share.
        gives_maps: the layer's maps count for local blend; the published code leaves the middle block out.
    """

    def __init__(self, pair: PairAttention, gives_maps: bool = True) -> None:
        self._pair = pair
        self._gives_maps = gives_maps

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        **_options: object,
    ) -> Tensor:
        """Compute the layer as diffusers' own processor does, with the plan of the call.

        Args:
            attn: diffusers' attention module.
            hidden_states: image tokens [R, Q, channels] or [R, channels, height, width].
            encoder_hidden_states: text tokens [R, K, width] in cross-attention, None in self-attention.
            attention_mask: added to the logits, in any shape that diffusers prepares.
            temb: time embedding of the layers that normalise with it.
            **_options: not used; diffusers passes options of other processors.

        Returns:
            The layer's output, shaped as `hidden_states`.
        """
        tokens = hidden_states
        if attn.spatial_norm is not None:
            tokens = attn.spatial_norm(tokens, temb)
        if hidden_states.ndim == 4:
            tokens = tokens.flatten(2).transpose(1, 2)
        if attn.group_norm is not None:
            tokens = attn.group_norm(tokens.transpose(1, 2)).transpose(1, 2)
        is_cross = encoder_hidden_states is not None
        context = tokens if encoder_hidden_states is None else encoder_hidden_states
        if is_cross and attn.norm_cross:
            context = attn.norm_encoder_hidden_states(context)
        if attention_mask is not None:
            attention_mask = attn.prepare_attention_mask(attention_mask, context.shape[1], len(context))
            attention_mask = attention_mask.unflatten(0, (len(context), attn.heads))
        out = self._attend(attn, tokens, context, is_cross, attention_mask)
        out = attn.to_out[1](attn.to_out[0](out))
        if hidden_states.ndim == 4:
            out = out.transpose(1, 2).reshape(hidden_states.shape)
        if attn.residual_connection:
            out = out + hidden_states
        result: Tensor = out / attn.rescale_output_factor
        return result

    def _attend(self, attn: Any, tokens: Tensor, context: Tensor, is_cross: bool, mask: Tensor | None) -> Tensor:
        pair = self._pair
        query, key, value = (
            projected.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for projected in (attn.to_q(tokens), attn.to_k(context), attn.to_v(context))
        )
        if attn.norm_q is not None:
            query = attn.norm_q(query)
        if attn.norm_k is not None:
            key = attn.norm_k(key)
        if is_cross and self._gives_maps and pair.blend is not None and pair.blend.wants(query.shape[2]):
            pair.blend.add(read_word_maps(query, key, pair.plan, pair.blend.columns_BTC))
        out = attend(query, key, value, pair.plan, is_cross=is_cross, mask=mask)
        return out.transpose(1, 2).flatten(2)


@contextmanager
def share_attention(unet: Any, pair: PairAttention) -> Iterator[None]:
    """Let a U-Net share attention inside this context; its own processors return afterwards.

    Args:
        unet: a diffusers U-Net with `attn_processors` and `set_attn_processor`.
        pair: the state of the run.

    Yields:
        None: the U-Net shares until the context ends.
    """
    previous = dict(unet.attn_processors)
    unet.set_attn_processor(
        {name: PairAttentionProcessor(pair, gives_maps=not name.startswith("mid_block")) for name in previous}
    )
    try:
        yield
    finally:
        unet.set_attn_processor(previous)
