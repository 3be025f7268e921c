"""Every random draw as a pure function of (seed, item, purpose).

Item i of a batch uses seed + i, so an image keeps its noise whether it is edited alone or in a batch.
All draws happen on the CPU, so they do not depend on the device.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

NUM_SEEDS = 2**64


def hash64(*parts: int | str | float | bytes) -> int:
    """Mix the parts into one 64-bit number, the same on every machine and in every version.

    Args:
        *parts: integers, strings, floats or bytes; type, order and boundaries all count.

    Returns:
        The first 8 bytes of a SHA-256, in [0, 2**64).
    """
    digest = hashlib.sha256()
    for part in parts:
        kind, encoded = _encode(part)
        digest.update(f"{kind}:{len(encoded)}:".encode())
        digest.update(encoded)
    return int.from_bytes(digest.digest()[:8], "big")


def _encode(part: int | str | float | bytes) -> tuple[str, bytes]:
    if isinstance(part, bytes):
        return "bytes", part
    if isinstance(part, str):
        return "str", part.encode("utf-8")
    if isinstance(part, float):
        return "float", float(part).hex().encode()
    return "int", str(int(part)).encode()


def generator(seed: int, *purpose: int | str | float | bytes) -> torch.Generator:
    """Make a CPU generator for one purpose of one seed."""
    return torch.Generator("cpu").manual_seed(hash64(seed % NUM_SEEDS, *purpose))


def start_noise(seed: int, num_items: int, shape: Sequence[int]) -> Tensor:
    """Draw the noise that sampling starts from.

    Args:
        seed: seed of the first item.
        num_items: batch size B.
        shape: C, H, W of one item.

    Returns:
        Unit noise [B, C, H, W], float32. Item i equals ComfyUI's noise for a single image and seed + i.
    """
    draws = [
        torch.randn(tuple(shape), generator=torch.Generator("cpu").manual_seed((seed + i) % NUM_SEEDS))
        for i in range(num_items)
    ]
    return torch.stack(draws)


class StepNoise:
    """The fresh noise of ancestral sampling: item i, call k is a pure function of (seed + i, k).

    Make a new object for every sampling run.

    Args:
        seed: seed of the first item.
        num_items: batch size B.
        shape: C, H, W of one item.
    """

    def __init__(self, seed: int, num_items: int, shape: Sequence[int]) -> None:
        self.seed = seed
        self.num_items = num_items
        self.shape = tuple(shape)
        self.num_calls = 0

    def __call__(self, _sigma: object, _sigma_next: object) -> Tensor:
        """Return unit noise [B, C, H, W], float32, on the CPU; the noise levels play no part."""
        step, self.num_calls = self.num_calls, self.num_calls + 1
        draws = [
            torch.randn(self.shape, generator=generator(self.seed + i, "ancestral", step))
            for i in range(self.num_items)
        ]
        return torch.stack(draws)
