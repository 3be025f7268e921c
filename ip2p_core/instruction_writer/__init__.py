"""Captions to instructions and edited captions: what a language model is asked, how its answers are read, and a grammar.

arXiv:2211.09800, section 3.1. Nodes and trainer share it; it knows no host and no model library.
"""

from .client import InstructionServer, ServerSettings
from .edit_types import EDIT_TYPES, classify_edit, tags_of
from .grammar import write_edit
from .prompts import CAPTION_GAP, TEMPLATE, VISION_TEMPLATE, Edit, parse_reply

__all__ = [
    "CAPTION_GAP", "EDIT_TYPES", "TEMPLATE", "VISION_TEMPLATE", "Edit", "InstructionServer", "ServerSettings", "classify_edit",
    "parse_reply", "tags_of", "write_edit",
]  # fmt: skip
