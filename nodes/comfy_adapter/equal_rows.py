"""Equal rows of the host's batches, computed once up to the first cross-attention of its U-Net."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from ...ip2p_core.shared_rows import first_equal_parts, modules_before_text, shared_rows

NUM_SHARED = 2
ROW_PATCHES = ("emb_patch", "input_block_patch", "input_block_patch_after_skip")
"""Patches of other nodes that may make rows differ before the text does."""


@contextmanager
def equal_rows_once(network) -> Iterator[None]:
    """While open, calls of a U-Net compute what their branches have in common once.

    Only on a processor, where it is measured; not with all three branches, which stay bit for bit as the host computes them; not
    for SDXL, whose time embedding holds text; not where a ControlNet or a patch works on single rows, nor inside a compiled
    network.
    """
    is_plain = getattr(network, "num_classes", None) is None and hasattr(network, "input_blocks")
    if not is_plain or next(network.parameters()).device.type != "cpu":
        yield
        return
    leading = modules_before_text(layer for block in network.input_blocks for layer in block)
    call = ExitStack()

    def enter(_network, inputs, options) -> None:
        transformer_options = options.get("transformer_options") or {}
        patches = transformer_options.get("patches", {})
        num_parts = len(transformer_options.get("cond_or_uncond", ()))
        is_alone = options.get("control") is None and not any(name in patches for name in ROW_PATCHES)
        if is_alone and num_parts == NUM_SHARED and not torch.compiler.is_compiling():
            call.enter_context(shared_rows(leading, first_equal_parts(inputs[0], num_parts)))

    def leave(*_) -> None:
        call.close()

    with ExitStack() as hooks:
        hooks.callback(network.register_forward_pre_hook(enter, with_kwargs=True).remove)
        hooks.callback(network.register_forward_hook(leave, always_call=True).remove)
        yield
