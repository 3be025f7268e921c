"""Parts of a batch that begin alike are computed once, until the text tells them apart.

The branches of one edit go through the network together. `full` and `image` have the same noise and the same picture, so they
are equal up to the first cross-attention; what lies before it needs only one of them. Exact up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def modules_before_text(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """Return the modules before the first one with cross-attention.

    Args:
        modules: in the order in which a batch goes through them, from the first one on.

    Returns:
        The leading ones.
    """
    leading: list[nn.Module] = []
    for module in modules:
        if hasattr(module, "transformer_blocks"):
            break
        leading.append(module)
    return leading


def first_equal_parts(batch: Tensor, num_parts: int) -> list[int]:
    """For every part of a batch the first one that is equal to it.

    Args:
        batch: [B, ...].
        num_parts: divides B.

    Returns:
        Numbers of parts; [0, 0, 2] says that the first two are equal.
    """
    parts = batch.chunk(num_parts)
    return [
        next(i for i in range(number + 1) if i == number or torch.equal(parts[i], part))
        for number, part in enumerate(parts)
    ]


@contextmanager
def shared_rows(modules: Sequence[nn.Module], parts: Sequence[int]) -> Iterator[None]:
    """While open, modules compute equal parts of a batch once.

    Args:
        modules: each takes and gives tensors [B, ...] of the whole batch.
        parts: as from `first_equal_parts`, true for the batch that enters the first module.

    Yields:
        None: The modules are themselves again afterwards.
    """
    kept = sorted(set(parts))
    if len(kept) == len(parts):
        yield
        return
    places = [kept.index(part) for part in parts]

    def shrink(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(_take(value, kept, len(parts)) for value in inputs)

    def spread(_module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> Any:
        return _take(output, places, len(kept))

    with ExitStack() as hooks:
        for module in modules:
            hooks.callback(module.register_forward_pre_hook(shrink).remove)
            hooks.callback(module.register_forward_hook(spread).remove)
        yield


def _take(value: Any, chosen: Sequence[int], num_parts: int) -> Any:
    if not isinstance(value, Tensor):
        return value
    parts = value.chunk(num_parts)
    return torch.cat([parts[number] for number in chosen])
