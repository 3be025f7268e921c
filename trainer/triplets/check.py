"""Checks a file of triplets that people wrote, before a model learns from it."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from ...ip2p_core.instruction_writer import tags_of
from ...ip2p_core.triplet import Triplet, describe_malformed, normalise, read_triplets
from .filters import Limits, edit_type_of, find_own_fault
from .near_duplicates import NearDuplicates

STARTER = Path(__file__).parent / "starter" / "triplets.jsonl"
"""The set that comes with the program: 700 triplets, as many as the paper's."""
NEAR_CAPTIONS = 0.7
MOST_OF_ONE_INSTRUCTION = 3


class Finding(NamedTuple):
    """Something wrong with a triplet."""

    number: int  # of the triplet, from 1
    text: str


def find_faults(triplets: tuple[Triplet, ...]) -> list[Finding]:
    """Look for what would spoil a fine-tuning.

    Args:
        triplets: of one set.

    Returns:
        Faults of single triplets, captions that nearly repeat, and instructions that occur too often.
    """
    findings: list[Finding] = []
    near, instructions = NearDuplicates(NEAR_CAPTIONS), Counter[str]()
    places: list[int] = []
    for number, one in enumerate(triplets, 1):
        if fault := find_own_fault(one.caption, one.instruction, one.edited_caption, Limits()):
            findings.append(Finding(number, f"{fault}: {one.caption} | {one.instruction} | {one.edited_caption}"))
        if tags := tags_of(one.instruction):
            findings.append(Finding(number, f"Prompt-to-Prompt cannot do this ({', '.join(tags)}): {one.instruction}"))
        earlier = near.find_or_add(one.caption)
        if earlier is None:
            places.append(number)
        else:
            findings.append(Finding(number, f"its caption nearly repeats that of {places[earlier]}: {one.caption}"))
        instructions[normalise(one.instruction)] += 1
        if instructions[normalise(one.instruction)] == MOST_OF_ONE_INSTRUCTION + 1:
            findings.append(Finding(number, f"more than {MOST_OF_ONE_INSTRUCTION} times the same: {one.instruction}"))
    return findings


def check_file(path: Path) -> int:
    """Print what is wrong with a file, and what kinds of edits it holds.

    Args:
        path: JSONL file; fields as ours or as the published ones.

    Returns:
        Exit code: 0 if nothing is wrong, else 1.
    """
    content = read_triplets(path)
    findings = find_faults(content.triplets)
    kinds = Counter(edit_type_of(one) for one in content.triplets)
    lines = [
        f"{len(content.triplets)} triplets: {', '.join(f'{count} {kind}' for kind, count in kinds.most_common())}."
    ]
    if content.malformed:
        lines.append(describe_malformed(content.malformed))
    lines += [f"triplet {one.number}: {one.text}" for one in findings]
    lines.append("Nothing is wrong." if len(lines) == 1 else f"{len(findings) + len(content.malformed)} findings.")
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if findings or content.malformed else 0
