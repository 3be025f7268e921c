"""What generated pairs do not teach: moves and changes of the view, beside changes of attributes (the paper's Figure 13)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ...ip2p_core.image_tensor import load_image
from ..shape_world.layout import changes_layout, is_laid_out
from .config import ATTRIBUTE_EDITS, STUDIES
from .edits import TESTING, Named, held_out_edits, read_rows, spatial_training_edits, write_rendered_pairs
from .findings import Estimate, estimate, of_numbers
from .markdown import markdown_table
from .stages import Run, dataset, filter_pairs, pairs_stage
from .trials import Scales, Trial, edit_study, example_name, trials_of

FAILURES = "failures"
STUDY_SAMPLES = 2
"""Pairs of each prompt at most, before the filter."""
EXAMPLES = {
    "move": 'moves ("move the star to the left")',
    "viewpoint": 'views ("zoom in", "show it as in a mirror")',
    "count": 'numbers ("make it two stars")',
    "swap": 'two objects that change places ("swap the star and the heart")',
}
WORDS = {"spatial": "on generated pairs", "spatial_rendered": "on exact renders"}


def write_failure_pairs(run: Run) -> None:
    """Make both datasets of the study: generated pairs that the filter left, and exact renders of the same edits."""
    config = run.config
    edits = spatial_training_edits(config)
    samples = min(STUDY_SAMPLES, config.num_samples)
    run.stage("spatial_pairs", lambda: pairs_stage(run, "spatial_all", edits, sharing="both", num_samples=samples))
    run.stage("spatial_filter", partial(filter_pairs, run, "spatial", "spatial_all"))
    write_rendered_pairs(dataset(run, "spatial_rendered"), edits, config.size)


class Failures(NamedTuple):
    """What the study finds: by how the editor was trained and what was asked for."""

    done: dict[str, dict[str, Estimate]]
    """Shares of edits done."""
    laid_out: dict[str, dict[str, Estimate]]
    """Shares of those in which places, colours and numbers are right, whatever the outlines; see `shape_world.layout`."""


def study_failures(run: Run, scales: Scales) -> Failures:
    """Edit renders by both editors of the study, and judge the edits."""
    config = run.config
    named = held_out_edits(config, TESTING, config.num_tests, ATTRIBUTE_EDITS + config.spatial_edits)
    output = edit_study(run, FAILURES, named, scales)
    return Failures(failure_table(trials_of(run, output, named, config.seeds[0])), layout_table(output, named))


def layout_table(output: Path, named: Sequence[Named]) -> dict[str, dict[str, Estimate]]:
    """Shares of edits after which everything is in its place.

    Args:
        output: run folder of the evaluation.
        named: its edits.

    Returns:
        By system and kind of edit; edits that change no layout are left out.
    """
    edits = {one.name: one.edit for one in named if changes_layout(one.edit)}
    shares: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in read_rows(output):
        edit = edits.get(example_name(row))
        if edit is not None:
            picture = load_image(output / row["picture"]).pixels.numpy()
            shares[row["system"]][edit.edit_type].append(float(is_laid_out(edit, picture)))
    return {name: {kind: of_numbers(some) for kind, some in kinds.items()} for name, kinds in shares.items()}


def failure_table(trials: Sequence[Trial]) -> dict[str, dict[str, Estimate]]:
    """Shares of edits done, by how the editor was trained and what was asked for."""
    others = dict.fromkeys(one.kind for one in trials if one.kind not in ATTRIBUTE_EDITS)
    kinds = {"attributes": ATTRIBUTE_EDITS, **{kind: (kind,) for kind in others}}
    return {
        variant: {
            name: estimate(
                [one for one in trials if one.system == variant and one.kind in some], lambda one: one.is_edited
            )
            for name, some in kinds.items()
        }
        for variant in STUDIES[FAILURES]
    }


def failure_section(found: Failures) -> str:
    """The part of the report about failures."""
    columns = list(next(iter(found.done.values())))
    asked = ", ".join(EXAMPLES[name] for name in columns if name in EXAMPLES)
    return f"""## What generated pairs do not teach (Figure 13)

![Shares of edits done](failures.png)

{share_table(found.done, "done", WORDS)}

Both editors learned the same edits: changes of the colour and of the background; {asked}. Prompt-to-Prompt keeps the layout of the original, so that its pairs rarely show a move.

The judge knows objects by their outlines. Whatever these are, objects are in their places, in their colours and number (of edits that
change this):

{share_table(found.laid_out, "laid out", WORDS)}"""


def share_table(table: Mapping[str, Mapping[str, Estimate]], what: str, words: Mapping[str, str]) -> str:
    """Shares by how an editor was trained, a column for each kind of edit.

    Args:
        table: by system and kind.
        what: they are shares of, for the heads of the columns.
        words: what the systems are called.

    Returns:
        The table in Markdown.
    """
    columns = list(next(iter(table.values())))
    rows = [[words[name], *(row[column].percent() for column in columns)] for name, row in table.items()]
    return markdown_table(["trained", *(f"{name} {what}" for name in columns)], rows)
