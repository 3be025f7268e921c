"""Attention sharing in the host's U-Nets: attention patches that carry out the core's plans.

Self-attention takes other rows in by the host's `attn1_patch`, which every attention backend honours; edits of
cross-attention replace the layer's attention by the core's.
"""

from __future__ import annotations

import comfy.patcher_extension
import torch
from comfy.ldm.modules.attention import SpatialTransformer
from torch import Tensor

from ...ip2p_core.attention_sharing import Sharing, StepPlan, attend, read_word_maps
from ...ip2p_core.local_blend import LocalBlend
from .guider import step_of

PLAN, BLEND = "ip2p_pair_plan", "ip2p_pair_blend"
COND_INDEX = 0
"""Place of the conditional branch among the conds of a call: [positive, negative]."""


def share_attention(model, sharing: Sharing, *, edits_cross_attention: bool, blend: LocalBlend | None = None):
    """Return a clone of a MODEL whose rows share attention.

    Args:
        model: the host's MODEL with a U-Net.
        sharing: what the rows of a branch take from each other.
        edits_cross_attention: whether the plans can hold edits of cross-attention.
        blend: collects the maps of words where local blend is wanted.

    Returns:
        The clone; sampling options and other patches stay.
    """
    shared = model.clone()
    kind = comfy.patcher_extension.WrappersMP.APPLY_MODEL
    shared.add_wrapper_with_key(kind, PLAN, _PlanMaker(sharing, blend))
    shared.set_model_attn1_patch(_take_rows)
    if edits_cross_attention:
        for name, number in _blocks_with_attention(model.model.diffusion_model):
            shared.set_model_attn2_replace(_edit_cross, name, number)
    return shared


class _PlanMaker:
    """Makes the plan of a call, once for all its layers."""

    def __init__(self, sharing: Sharing, blend: LocalBlend | None) -> None:
        self._sharing, self._blend = sharing, blend

    def __call__(self, executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options={}, **kwargs):  # noqa: B006
        sigmas = transformer_options["sample_sigmas"].float().cpu()
        step = step_of(sigmas, transformer_options["sigmas"])
        branches = [index == COND_INDEX for index in transformer_options["cond_or_uncond"]]
        plan = self._sharing.plan(step, max(1, len(sigmas) - 1), branches, x.device)
        if self._blend is not None:
            self._blend.columns_BTC = self._blend.columns_BTC.to(x.device)
        options = {**transformer_options, PLAN: plan, BLEND: self._blend}
        return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)


def _take_rows(n: Tensor, context: Tensor, value: Tensor, options: dict) -> tuple[Tensor, Tensor, Tensor]:
    """Take queries and keys from the rows of the plan; values stay."""
    plan: StepPlan | None = options.get(PLAN)
    if plan is None or plan.self_rows is None:
        return n, context, value
    if plan.max_self_tokens is not None and n.shape[1] > plan.max_self_tokens:
        return n, context, value
    return n[plan.self_rows], context[plan.self_rows], value


def _edit_cross(q: Tensor, k: Tensor, v: Tensor, options: dict) -> Tensor:
    """Cross-attention with the edits of the plan; tensors are [R, tokens, H * D]."""
    heads = options["n_heads"]
    q_RHQD, k_RHKD, v_RHKD = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k, v))
    blend: LocalBlend | None = options.get(BLEND)
    if blend is not None and options["block"][0] != "middle" and blend.wants(q_RHQD.shape[2]):
        blend.add(read_word_maps(q_RHQD, k_RHKD, options[PLAN], blend.columns_BTC))
    return attend(q_RHQD, k_RHKD, v_RHKD, options[PLAN], is_cross=True).transpose(1, 2).flatten(2)


def _blocks_with_attention(unet: torch.nn.Module) -> list[tuple[str, int]]:
    """Name the blocks that hold transformers, as the host names them when it looks for replacements."""
    found = []
    for name, blocks in (("input", unet.input_blocks), ("middle", [unet.middle_block]), ("output", unet.output_blocks)):
        for number, block in enumerate(blocks):
            if any(isinstance(part, SpatialTransformer) for part in block.modules()):
                found.append((name, number))
    return found
