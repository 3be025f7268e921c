"""Datasets as `ip2p pairs` writes them, of plain pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from ip2p.ip2p_core.pair_record import ImageBytes, PairRecord
from ip2p.ip2p_core.pair_store import PairWriter
from ip2p.ip2p_core.triplet import Triplet


def write_generated(folder: Path, sides: Sequence[int]) -> Path:
    """Write one pair for each side in pixels; no two have the same instruction."""
    with PairWriter(folder, {"made_by": "a test"}) as writer:
        for number, side in enumerate(sides):
            values = number / len(sides), 1.0
            pictures = [ImageBytes.from_tensor(torch.full((side, side, 3), value)) for value in values]
            triplet = Triplet("a", f"make it white, number {number}", "b", "written")
            writer.add_record(PairRecord(f"prompt-{number}", 0, triplet, 0, 0.3, 3.0, "paper_text", None, *pictures))
    return folder
