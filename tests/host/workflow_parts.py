"""The pieces of a workflow: nodes and notes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

ACTIVE, BYPASSED = 0, 4
EMBEDDED = "embedded: editor"
INPUT_PICTURE = "example.png"
"""The picture that every ComfyUI brings along in its input folder."""


@dataclass
class Node:
    """A node: inputs not named here keep their defaults; [id, output] is a link."""

    id: int
    type: str
    pos: tuple[int, int]
    size: tuple[int, int]
    inputs: dict[str, Any] = field(default_factory=dict)
    title: str = ""
    mode: int = ACTIVE


@dataclass
class Workflow:
    """A workflow and its notes; a note is a node of the front end that is not run."""

    name: str
    nodes: list[Node]
    instruction: str
    model: str = EMBEDDED


def note(node_id: int, text: str, pos: tuple[int, int], size: tuple[int, int]) -> Node:
    """A note in Markdown; it has no part in the run."""
    return Node(node_id, "MarkdownNote", pos, size, {"text": text}, title="Read me")
