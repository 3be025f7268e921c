"""Judged edits for the tests of the proof."""

from __future__ import annotations

import math

from ip2p.trainer.proof.trials import Trial


def judged(system, directional, image, **others):
    """An edit that was done with all else kept, at scales of 2 and 1.5, unless told otherwise."""
    usual = {
        "text_scale": 2.0,
        "image_scale": 1.5,
        "strength": math.nan,
        "seed": 0,
        "example": "x",
        "kind": "recolour",
        "shape": "star",
        "is_edited": True,
        "is_kept": True,
        "target_l1": 0.1,
    }
    return Trial(system=system, directional=directional, image=image, **(usual | others))
