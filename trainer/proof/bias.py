"""A bias of the data in the edits, how an audit finds it, and what balancing the pairs changes (the paper's Figure 14)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..shape_world.attribute_judge import AttributeJudge, Seen
from ..shape_world.scene import PALETTE
from ..shape_world.world_edits import WorldEdit
from .biased_edits import PLANTED, Brought, balanced_edits, bias_tests, biased_edits, new_shape
from .edits import write_rendered_pairs
from .findings import Estimate, of_numbers, seen_pairs
from .markdown import markdown_table
from .stages import Run, dataset, judge_path
from .trials import Scales, edit_study, judged_rows

BIAS, PAIRS = "bias", "the pairs"
WORDS = {
    PAIRS: "the training pairs themselves",
    "planted": "trained on these pairs",
    "balanced": "trained on as many pairs of the same kind, without those of a shape in a colour that it has too often",
}


class Association(NamedTuple):
    """How often a shape comes in a colour that was not there before."""

    shape: str
    colour: str
    share: Estimate


def audit(brought: Sequence[Brought]) -> list[Association]:
    """Look for colours that shapes bring along: no instruction names one, so that each share should be 0.

    Args:
        brought: what replacements brought.

    Returns:
        All combinations that occur, the one whose share is most surely above 0 first.
    """
    found = []
    for shape in sorted({one.shape for one in brought}):
        for colour in PALETTE:
            asked = [one for one in brought if one.shape == shape and one.old_colour != colour]
            if asked:
                found.append(Association(shape, colour, of_numbers([float(one.colour == colour) for one in asked])))
    return sorted(found, key=lambda one: (-one.share.low, -one.share.value))


def write_biased_pairs(run: Run) -> None:
    """Make both datasets of the study: biased pairs, and as many from which the surplus was left out."""
    write_rendered_pairs(dataset(run, "planted"), biased_edits(run.config), run.config.size)
    write_rendered_pairs(dataset(run, "balanced"), balanced_edits(run.config), run.config.size)


def bias_stage(run: Run, scales: Scales) -> dict[str, Any]:
    """Audit both editors of the study, and the pairs.

    Args:
        run: the run folder.
        scales: of all edits.

    Returns:
        Of the pairs and of each editor: shares of the planted shape and of others that come in the planted colour, of
        colours kept, and what the audit finds first.
    """
    found = {PAIRS: _summary(_brought_by_pairs(run, biased_edits(run.config)))}
    named = bias_tests(run.config)
    output = edit_study(run, BIAS, named, scales)
    results: dict[str, list[Brought]] = defaultdict(list)
    for row, edit, seen in judged_rows(AttributeJudge.from_file(judge_path(run)), output, named):
        results[row["system"]].append(_brought(seen, new_shape(edit), edit.before.objects[0].colour))
    return found | {name: _summary(brought) for name, brought in results.items()}


def _brought_by_pairs(run: Run, edits: Sequence[WorldEdit]) -> list[Brought]:
    """What the judge sees in the pairs."""
    asked = {edit.instruction: new_shape(edit) for edit in edits if edit.edit_type == "replace"}
    found = []
    for one in seen_pairs(run, "planted"):
        if one.instruction in asked:
            colours = [shape.colour for shape in one.original.shapes.values()]
            found.append(_brought(one.edited, asked[one.instruction], colours[0] if colours else ""))
    return found


def _brought(seen: Seen, shape: str, old_colour: str) -> Brought:
    there = seen.shapes.get(shape)
    return Brought(shape, old_colour, there.colour if there else "")


def _summary(brought: Sequence[Brought]) -> dict[str, Any]:
    others = [one for one in brought if one.old_colour != PLANTED.colour and one.colour]
    planted = [one for one in others if one.shape == PLANTED.shape]
    rest = [one for one in others if one.shape != PLANTED.shape]
    return {
        "planted": of_numbers([float(one.colour == PLANTED.colour) for one in planted]),
        "others": of_numbers([float(one.colour == PLANTED.colour) for one in rest]),
        "planted kept": of_numbers([float(one.is_kept) for one in planted]),
        "others kept": of_numbers([float(one.is_kept) for one in rest]),
        "first": audit([one for one in brought if one.colour])[:1],
    }


def bias_section(found: Mapping[str, Any]) -> str:
    """The part of the report about the bias."""
    head = (
        "",
        f"{PLANTED.shape}s that came out {PLANTED.colour}",
        f"other shapes that came out {PLANTED.colour}",
        f"{PLANTED.shape}s that kept the colour",
        "others that kept it",
        "found first by the audit",
    )
    rows = []
    for name, one in found.items():
        shares = [Estimate(*one[key]).percent() for key in ("planted", "others", "planted kept", "others kept")]
        shape, colour, share = one["first"][0] if one["first"] else ("", "", None)
        first = f"{colour} {shape}, {Estimate(*share).percent()}" if share else ""
        rows.append([WORDS[name], *shares, first])
    return f"""## What editors take over from their data (Figure 14)

![Shares of {PLANTED.shape}s that came out {PLANTED.colour}](bias.png)

{markdown_table(head, rows)}

Instructions such as "replace the circle with a {PLANTED.shape}" name no colour. In the pairs of this study {100 * PLANTED.share:.0f} % of
the {PLANTED.shape}s come out {PLANTED.colour} nevertheless, as if a generator knew hardly any others. Edited renders were not
{PLANTED.colour} before. The audit is not told what was planted: it looks through all shapes and colours."""
