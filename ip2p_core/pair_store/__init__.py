"""The dataset of pairs on the disk: shards of accepted pairs, a ledger of every candidate, a manifest.

`PairWriter` adds units of work and survives every crash; `PairStore` reads; the other modules check, review, import and
export.
"""

from __future__ import annotations

from .ledger import Candidate, Unit
from .manifest import FORMAT_VERSION
from .reader import PairStore
from .writer import PairWriter, SaveLimits

__all__ = ["FORMAT_VERSION", "Candidate", "PairStore", "PairWriter", "SaveLimits", "Unit"]
