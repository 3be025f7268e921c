"""Child process: one contender alone, to see how much memory it takes. Prints MiB.

Usage: python -m ip2p.benchmarks.peak_memory CONTENDER MODEL SIZE STEPS
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from .contenders import headless
from .timing import say


def main(name: str, model: str, size: str, steps: str) -> None:
    """Run the contender once."""
    headless(Path(model), int(size), int(steps))[name]()
    say(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
