"""The host's node API, pinned here and nowhere else, with what the oldest supported host lacks left out."""

import dataclasses
import inspect

from comfy_api.v0_0_2 import ComfyExtension, io

__all__ = ["CATEGORY", "SEARCH_ALIASES", "ComfyExtension", "io", "schema", "socket"]

CATEGORY = "InstructPix2Pix"
SEARCH_ALIASES = ["ip2p", "instruct pix2pix", "instruction edit", "edit image with text"]
_SCHEMA_FIELDS = {field.name for field in dataclasses.fields(io.Schema)}


def schema(**fields) -> io.Schema:
    """Make a node schema, dropping the fields that this host does not know yet."""
    return io.Schema(**{name: value for name, value in fields.items() if name in _SCHEMA_FIELDS})


def socket(kind: type, *args, **options):
    """Make an input, dropping the options that this host does not know yet."""
    known = inspect.signature(kind.__init__).parameters
    return kind(*args, **{name: value for name, value in options.items() if name in known})
