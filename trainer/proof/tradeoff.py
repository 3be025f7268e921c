"""How much of the picture is kept against how much of the edit is done: the editor, SDEdit and Text2LIVE (the paper's Figure 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy

from .ceiling import CEILING
from .findings import Curve, curve_of
from .trials import IMAGE_SWEEP, SDEDIT, TEXT2LIVE, TEXT_SWEEP, Trial

EDITOR, EDITOR_TEXT, SDEDIT_CURVE = "editor, image scale swept", "editor, text scale swept", "SDEdit, strength swept"
EXACT = "exact results"
LEAST_TEXT = 0.75
"""Lowest text scale of the curve; below it most edits are not done."""


def tradeoffs(trials: Sequence[Trial]) -> dict[str, Curve]:
    """What every system trades as its own setting is swept, by the name in the plot."""
    settings = {IMAGE_SWEEP: "image_scale", TEXT_SWEEP: "text_scale", SDEDIT: "strength", TEXT2LIVE: "", CEILING: ""}
    names = {IMAGE_SWEEP: EDITOR, TEXT_SWEEP: EDITOR_TEXT, SDEDIT: SDEDIT_CURVE, CEILING: EXACT}
    shown = [one for one in trials if one.system != TEXT_SWEEP or one.text_scale >= LEAST_TEXT]
    there = {one.system for one in shown}
    return {
        names.get(system, system): curve_of(shown, system, field)
        for system, field in settings.items()
        if system in there
    }


def lead(curve: Curve, other: Curve) -> dict[float, float]:
    """Say by how much more of the picture is kept where as much of the edit is done.

    Args:
        curve: of a system.
        other: of another one.

    Returns:
        By the scales of the first whose directional similarity the other reaches: its image similarity less that of the
        other, between whose points lie straight lines.
    """
    points = sorted((a.value, b.value) for a, b in zip(other.directional, other.image, strict=True))
    x, y = zip(*points, strict=True)
    return {
        scale: b.value - float(numpy.interp(a.value, x, y))
        for scale, a, b in zip(curve.scales, curve.directional, curve.image, strict=True)
        if x[0] <= a.value <= x[-1]
    }


def tradeoff_section(curves: Mapping[str, Curve]) -> str:
    """The part of the report about the trade-off."""
    editor, alone = curves[EDITOR], curves.get(TEXT2LIVE)
    falls = sum(b.value < a.value for a, b in zip(editor.image, editor.image[1:], strict=False))
    sentences = [
        f"Over the {len(editor.scales)} image scales image similarity falls {falls} times from one to the next.",
        *(_above(name, lead(curves[name], curves[SDEDIT_CURVE])) for name in (EDITOR_TEXT, EDITOR) if name in curves),
    ]
    if EXACT in curves:
        sentences.append(_where_exact_results_lie(curves[EXACT], curves[SDEDIT_CURVE]))
    if alone is not None:
        sentences.append(f"Text2LIVE optimises for each picture, and edits only {alone.image[0].number} of them.")
    return f"""## Against SDEdit and Text2LIVE (Figure 8)

![Trade-off](tradeoff.png)

The same of edits of attributes alone:

![Trade-off of edits of attributes](tradeoff_attributes.png)

{chr(10).join(sentences)}"""


def _where_exact_results_lie(exact: Curve, sdedit: Curve) -> str:
    right = exact.directional[0].value, exact.image[0].value
    nearest = max(zip(sdedit.directional, sdedit.image, strict=True), key=lambda point: point[0].value)
    return (
        f"The exact results lie at a directional similarity of {right[0]:.3f} and an image similarity of {right[1]:.3f}, SDEdit "
        f"comes to {nearest[0].value:.3f} and {nearest[1].value:.3f}: an editor without a fault would lie where the former do."
    )


def _above(name: str, leads: Mapping[float, float]) -> str:
    above = [f"{scale:g}" for scale, one in leads.items() if one > 0]
    which = f" (scales {', '.join(above)})" if above else ""
    return (
        f"{name[0].upper()}{name[1:]}: of {len(leads)} points whose directional similarity SDEdit reaches, {len(above)} lie "
        f"above its line{which}."
    )
