"""Runs of tiny U-Nets over pairs: with the core's sharing, and with whole probability matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from ip2p.ip2p_core.attention_sharing import Sharing
from ip2p.ip2p_core.local_blend import LocalBlend
from ip2p.tests import tiny
from ip2p.tests.parity.prompt_to_prompt_reference import MaterialisedProcessor
from ip2p.trainer.pair_attention import PairAttention, share_attention

SIZE, TEXT_SCALE = 16, 4.0
BOTH = (False, True)
STRUCTURES: dict[str, dict[str, Any]] = {
    "sd15": {},
    "sd2": {"use_linear_projection": True, "attention_head_dim": [2, 2, 4], "cross_attention_dim": 48},
    "sdxl": {
        "use_linear_projection": True,
        "attention_head_dim": [2, 4, 4],
        "transformer_layers_per_block": [1, 1, 2],
        "cross_attention_dim": 72,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + 24,
    },
}


class Run(NamedTuple):
    """The latents after every step, and the output of every attention layer of every call."""

    latents: list[Tensor]
    layers: list[Tensor]


def make_unet(structure: str, dtype: torch.dtype, peak: float) -> UNet2DConditionModel:
    """A seeded U-Net; random weights attend to everything alike, so `peak` sharpens them to make edits and masks count."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(**tiny.unet_config(4, **STRUCTURES[structure])).eval()
    for name, weight in unet.named_parameters():
        if "attn" in name and ("to_q" in name or "to_k" in name):
            weight.data *= peak
    return unet.to(dtype)


def texts(unet: UNet2DConditionModel, num_rows: int, seed: int = 5) -> Tensor:
    """Text embeddings of the rows [num_rows, 77, width]; any two differ."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_rows, 77, unet.config.cross_attention_dim, generator=generator)


def start(num_pairs: int, pair_size: int = 2, seed: int = 7) -> Tensor:
    """One noise per pair, the same for all of its rows."""
    noise = torch.randn(num_pairs, 4, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    return noise.repeat_interleave(pair_size, 0)


@torch.no_grad()
def sample(
    unet: UNet2DConditionModel,
    x: Tensor,
    text: Tensor,
    num_steps: int,
    before_call: Callable[[int], object] = lambda step: None,
    after_step: Callable[[Tensor, int], Tensor] = lambda x, step: x,
) -> Run:
    """A plain guided loop over [unconditional | conditional] calls."""
    run = Run([], [])
    hooks = [
        module.register_forward_hook(lambda _module, _args, out: run.layers.append(out))
        for name, module in unet.named_modules()
        if name.endswith(("attn1", "attn2"))
    ]
    x, text = x.to(unet.dtype), text.to(unet.dtype)
    context = torch.cat([texts(unet, 1, seed=6).to(text).expand_as(text), text])
    extra = {"text_embeds": context.new_zeros(len(context), 24), "time_ids": context.new_ones(len(context), 6)}
    for step in range(num_steps):
        before_call(step)
        time = torch.tensor(999.0 * (1 - step / num_steps))
        eps = unet(x.repeat(2, 1, 1, 1), time, encoder_hidden_states=context, added_cond_kwargs=extra).sample
        uncond, cond = eps.chunk(2)
        x = after_step(x - (uncond + TEXT_SCALE * (cond - uncond)) / num_steps, step)
        run.latents.append(x)
    for hook in hooks:
        hook.remove()
    return run


def run_shared(
    unet: UNet2DConditionModel,
    x: Tensor,
    text: Tensor,
    num_steps: int,
    sharing: Sharing,
    blend: LocalBlend | None = None,
) -> Run:
    pair = PairAttention(sharing, blend)

    def after_step(x: Tensor, step: int) -> Tensor:
        return x if blend is None else blend.blend(x, step, num_steps)

    with share_attention(unet, pair):
        return sample(unet, x, text, num_steps, lambda step: pair.start_call(step, num_steps, BOTH), after_step)


def run_reference(
    unet: UNet2DConditionModel,
    x: Tensor,
    text: Tensor,
    num_steps: int,
    edit: Callable[[Tensor, bool, str], Tensor],
    before_call: Callable[[int], object] = lambda step: None,
    after_step: Callable[[Tensor, int], Tensor] = lambda x, step: x,
) -> Run:
    previous = dict(unet.attn_processors)
    unet.set_attn_processor({name: MaterialisedProcessor(edit, name.split("_")[0]) for name in previous})
    try:
        return sample(unet, x, text, num_steps, before_call, after_step)
    finally:
        unet.set_attn_processor(previous)
