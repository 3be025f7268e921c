"""What generated pairs do not teach: moves and changes of the view, beside changes of attributes (the paper's Figure 13)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from .config import ATTRIBUTE_EDITS, STUDIES
from .edits import TESTING, held_out_edits, spatial_training_edits, write_rendered_pairs
from .findings import Estimate, estimate
from .stages import Run, dataset, filter_pairs, pairs_stage
from .trials import Scales, Trial, edit_study, trials_of

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


def failure_trials(run: Run, scales: Scales) -> list[Trial]:
    """Judge edits of renders by both editors of the study."""
    config = run.config
    named = held_out_edits(config, TESTING, config.num_tests, ATTRIBUTE_EDITS + config.spatial_edits)
    return trials_of(run, edit_study(run, FAILURES, named, scales), named, config.seeds[0])


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


def failure_section(table: Mapping[str, Mapping[str, Estimate]]) -> str:
    """The part of the report about failures."""
    columns = list(next(iter(table.values())))
    asked = ", ".join(EXAMPLES[name] for name in columns if name in EXAMPLES)
    lines = ["| trained | " + " | ".join(f"{name} done" for name in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += [
        f"| {WORDS[variant]} | " + " | ".join(row[name].percent() for name in columns) + " |"
        for variant, row in table.items()
    ]
    return f"""## What generated pairs do not teach (Figure 13)

![Shares of edits done](failures.png)

{chr(10).join(lines)}

Both editors learned the same edits: changes of the colour and of the background; {asked}. Prompt-to-Prompt keeps the layout of the original, so that its pairs rarely show a move."""
