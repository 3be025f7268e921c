"""`python -m ip2p.benchmarks.triplets [CAPTIONS]`: as many captions as the paper's through the text stage, and its parts.

Goal for 454,445 captions: deduplicated, edited by the grammar and filtered in minutes, under 2 GB. Near duplicates are found side
by side with datasketch (MinHash, LSH) on the first ten thousand, in turns.
"""

from __future__ import annotations

import itertools
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ..ip2p_core.instruction_writer import grammar_words as words
from ..trainer.triplets.near_duplicates import NearDuplicates
from .timing import say

PAPER = 454_445
COMPARED, ROUNDS, THRESHOLD = 10_000, 2, 0.8
_START = ("a photo of", "portrait of", "", "", "an oil painting of", "close-up of", "watercolor of")
_LOOK = (
    "old",
    "young",
    "small",
    "broken",
    "elegant",
    "wooden",
    "sleepy",
    "giant",
    "wet",
    "modern",
    "abandoned",
    "smiling",
    "tiny",
)
_END = (
    "",
    "by the sea",
    "with a red umbrella",
    "in the fog",
    "at night",
    "in Tokyo",
    "trending",
    "in the morning sun",
    "1890",
)


def synthetic_caption(number: int) -> str:
    """A caption that is a pure function of its number; some repeat, some nearly."""
    rng = random.Random(number if number % 20 else number // 2)
    things = [rng.choice(rng.choice(words.FAMILIES)[0]) for _ in range(2)]
    middle = rng.choice(("and a", "beside a", "with a", "in front of a"))
    parts = [rng.choice(_START), "a", rng.choice(_LOOK), things[0], middle, rng.choice(_LOOK), things[1]]
    parts += [rng.choice(words.PLACES), rng.choice(_END)]
    if number % 7:
        parts.append(f"no. {rng.randrange(5000)}")
    return " ".join(part for part in parts if part)


def main(num_captions: int) -> None:
    """Run the whole stage in a child process, then compare the search for near duplicates.

    Args:
        num_captions: synthetic ones.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        captions = folder / "captions.jsonl"
        with captions.open("w", encoding="utf-8") as opened:
            for number in range(num_captions):
                opened.write(
                    json.dumps({"TEXT": synthetic_caption(number), "URL": f"https://example.org/{number}"}) + "\n"
                )
        settings = {"captions": str(captions), "output": str(folder / "run"), "near_captions": 0.9}
        settings |= {"near_duplicate": 0.9, "max_per_instruction": 1000, "quotas": {"add": 0.2}}
        (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
        command = [sys.executable, "-m", "ip2p.trainer", "triplets", str(folder / "config.json")]
        start = time.perf_counter()
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)  # noqa: S603 - this program
        minutes = (time.perf_counter() - start) / 60
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        report = json.loads((folder / "run" / "report.json").read_text(encoding="utf-8"))
        say(f"{num_captions} captions: {minutes:.1f} min, {peak:.0f} MiB at the peak; {report['kept']} triplets")
        say(f"left out before: {report['left_out_before']}; rejected: {report['rejected']}")
        start = time.perf_counter()
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)  # noqa: S603 - this program
        say(f"the same again, with every answer known: {(time.perf_counter() - start) / 60:.1f} min")
    _compare(min(COMPARED, num_captions))


def _compare(count: int) -> None:
    texts = [synthetic_caption(number) for number in range(count)]
    contenders: dict[str, Callable[[list[str]], int]] = {"ours": _ours}
    try:
        import datasketch  # noqa: F401 - only whether it is there

        contenders["datasketch"] = _datasketch
    except ImportError:
        say("datasketch is not installed; nothing to compare with")
    seconds = {name: float("inf") for name in contenders}
    found = dict.fromkeys(contenders, 0)
    for _ in range(ROUNDS):
        for name, search in contenders.items():
            start = time.perf_counter()
            found[name] = search(texts)
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    for name in contenders:
        ratio = seconds["ours"] / seconds[name]
        say(
            f"{name:11} {count / seconds[name]:8.0f} captions/s, {found[name]} near duplicates; ours takes {ratio:.2f} of its time"
        )


def _ours(texts: list[str]) -> int:
    near = NearDuplicates(THRESHOLD)
    return sum(near.find_or_add(text) is not None for text in texts)


def _datasketch(texts: list[str]) -> int:
    from datasketch import MinHash, MinHashLSH

    index, found = MinHashLSH(threshold=THRESHOLD, num_perm=64), 0
    for number, text in enumerate(texts):
        parts = text.casefold().split()
        hashed = MinHash(num_perm=64)
        hashed.update_batch([one.encode() for one in [*parts, *map(" ".join, itertools.pairwise(parts))]])
        if index.query(hashed):
            found += 1
        else:
            index.insert(str(number), hashed)
    return found


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else PAPER)
