"""Say whether everything is where it should be, in its colour and number, whatever the outlines are.

The judge of attributes finds objects by their shape: one that was redrawn with another outline is neither done nor kept there.
Here objects are regions of a colour.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from .edit_verdicts import CENTRE_TOLERANCE
from .render import render
from .scene import BACKGROUNDS, PALETTE, FloatImage
from .world_edits import WorldEdit

LAYOUT_EDITS = ("move", "count", "swap")
"""Edits of plain objects before a plain background that change where they are, or how many."""
SMALLEST_SHARE = 0.01
"""Of the picture; smaller regions are no objects."""


class Region(NamedTuple):
    """A connected region of a colour."""

    colour: str
    centre: tuple[float, float]
    """Of gravity, across and down, fractions of the picture's side."""


def regions(picture: FloatImage, background: str, colours: Collection[str]) -> list[Region]:
    """Find the objects of a picture.

    Args:
        picture: [H, W, 3] in [0, 1].
        background: a key of BACKGROUNDS.
        colours: of the objects that may be there, keys of PALETTE; every pixel counts as the nearest of these or as background.

    Returns:
        The regions that are large enough, without threads of one or two pixels, as soft edges have them.
    """
    names = sorted(set(colours))
    values = np.array([BACKGROUNDS[background], *(PALETTE[name] for name in names)]) / 255
    nearest = np.square(picture[:, :, None] - values).sum(-1).argmin(-1)
    found = []
    for number, name in enumerate(names, 1):
        labels, count = ndimage.label(ndimage.binary_opening(nearest == number))
        for label in range(1, count + 1):
            y, x = np.nonzero(labels == label)
            if len(x) >= SMALLEST_SHARE * nearest.size:
                centre = (float(x.mean() + 0.5) / nearest.shape[1], float(y.mean() + 0.5) / nearest.shape[0])
                found.append(Region(name, centre))
    return found


def is_laid_out(edit: WorldEdit, picture: FloatImage) -> bool:
    """Say whether a picture has as many objects of each colour as the exact result, in their places.

    Args:
        edit: one of LAYOUT_EDITS; where objects that a change of their number adds are to be is left open.
        picture: [H, W, 3] in [0, 1].

    Returns:
        Whether it has.
    """
    things = (*edit.before.objects, *edit.after.objects)
    colours = {thing.colour for thing in things}
    counted = {thing.colour for thing in things if thing.shape in edit.change.subjects and edit.edit_type == "count"}
    exact = render(edit.after, picture.shape[0])
    wanted, found = (regions(one, edit.after.background, colours) for one in (exact, picture))
    for colour in colours:
        a, b = ([one.centre for one in some if one.colour == colour] for some in (wanted, found))
        if len(a) != len(b) or (colour not in counted and not _are_near(a, b)):
            return False
    return True


def changes_layout(edit: WorldEdit) -> bool:
    """Say whether the picture as it was is not laid out as the exact result; two objects of one colour may be swapped unseen."""
    return edit.edit_type in LAYOUT_EDITS and not is_laid_out(edit, render(edit.before, 64))


def _are_near(places: Sequence[tuple[float, float]], others: Sequence[tuple[float, float]]) -> bool:
    return any(
        all(math.dist(*pair) <= CENTRE_TOLERANCE for pair in zip(places, order, strict=True))
        for order in permutations(others)
    )
