"""Edits of scenes with the captions of both sides, for models that learn from captions and renders."""

from __future__ import annotations

import random
from typing import NamedTuple

from .edits import EDIT_TYPES, SceneEdit, random_edit
from .scene import random_scene

CAPTIONS = ("{}", "{}", "a picture of {}", "a drawing of {}")
"""Ways to say what a scene shows; the same for both sides of an edit."""


class CaptionedEdit(NamedTuple):
    """An edit of a scene, and what its two sides show."""

    edit: SceneEdit
    caption: str
    edited_caption: str


def captioned_edit(
    rng: random.Random, edit_type: str | None = None, *, allow_held_out: bool = False, max_objects: int = 2
) -> CaptionedEdit:
    """A random edit of a random scene; without held-out combinations where they are not allowed.

    Args:
        rng: source of all draws.
        edit_type: a key of edits.WORDINGS; any by default.
        allow_held_out: combinations that training never sees may occur.
        max_objects: of the scene.

    Returns:
        The edit and its captions, which differ.
    """
    while True:
        scene = random_scene(rng, rng.randint(1, max_objects), allow_held_out=allow_held_out)
        edit = random_edit(rng, scene, edit_type or rng.choice(EDIT_TYPES))
        if allow_held_out or not edit.is_held_out():
            break
    wording = rng.choice(CAPTIONS)
    return CaptionedEdit(edit, wording.format(edit.before.caption()), wording.format(edit.after.caption()))
