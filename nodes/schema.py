"""The host's node API, pinned here and nowhere else, with what the oldest supported host lacks left out."""

import dataclasses
import inspect

from comfy_api.v0_0_2 import ComfyExtension, io, ui
from comfy_execution.graph_utils import ExecutionBlocker as Blocker

__all__ = [
    "CATEGORY", "PAIR_ALIASES", "SEARCH_ALIASES", "Blocker", "ClipScorer", "ComfyExtension", "Dataset", "Pairs", "io", "schema",
    "socket", "ui",
]  # fmt: skip

CATEGORY = "InstructPix2Pix"
SEARCH_ALIASES = ["ip2p", "instruct pix2pix", "instruction edit", "edit image with text"]
PAIR_ALIASES = ["ip2p pairs", "prompt to prompt", "p2p", "training pairs", "dataset"]
Pairs, Dataset, ClipScorer = (io.Custom(f"IP2P_{name}") for name in ("PAIRS", "DATASET", "CLIP_SCORER"))
_SCHEMA_FIELDS = {field.name for field in dataclasses.fields(io.Schema)}


def schema(**fields) -> io.Schema:
    """Make a node schema, dropping the fields that this host does not know yet."""
    return io.Schema(**{name: value for name, value in fields.items() if name in _SCHEMA_FIELDS})


def socket(kind: type, *args, **options):
    """Make an input, dropping the options that this host does not know yet."""
    known = inspect.signature(kind.__init__).parameters
    return kind(*args, **{name: value for name, value in options.items() if name in known})
