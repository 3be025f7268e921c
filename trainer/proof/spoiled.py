"""What the filter is for: the same editor on pairs of which a third is wrong, with and without it (the paper's Figure 10)."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy

from ...ip2p_core.clip_scorer import CLIPScorer
from ...ip2p_core.pair_filter import score_records
from ...ip2p_core.pair_record import PairRecord
from ...ip2p_core.pair_store import PairStore, PairWriter, Unit
from ..edit_models import resolve_model
from .config import STUDIES
from .edits import TESTING, held_out_edits
from .findings import SIMILARITIES, Curve, Estimate, curve_of, estimate
from .markdown import markdown_table
from .stages import SCORER, Run, dataset, filter_pairs, random_keys, write_subset
from .tradeoff import lead
from .trials import Scales, Trial, edit_all, editor_system, trials_of

ERRORS, POOL = "errors", "spoiled_all"
UNFILTERED, FILTERED = STUDIES[ERRORS]
SHARE = 1 / 3
"""Of the pairs that are wrong."""
WORDS = {UNFILTERED: "without the filter", FILTERED: "with it"}
COLUMNS = ("edits done", "all else kept", "done and kept")


def spoil(records: Sequence[PairRecord], seed: int) -> list[PairRecord]:
    """Give a third of the pairs the edited picture of another of them, as if the second picture had gone wrong.

    Args:
        records: pairs.
        seed: says which.

    Returns:
        The same pairs in the same order; those that were changed have no scores.
    """
    chosen = random.Random(f"spoiled/{seed}").sample(range(len(records)), round(SHARE * len(records)))
    spoiled = list(records)
    for row, other in zip(chosen, chosen[1:] + chosen[:1], strict=True):
        spoiled[row] = replace(records[row], edited=records[other].edited, scores=None)
    return spoiled


def spoiled_stage(run: Run) -> dict[str, int]:
    """Make both datasets of the study, equally large: pairs of which a third is wrong, and what the filter leaves of them.

    Args:
        run: the run folder, with the pairs that the chain made.

    Returns:
        How many pairs there are, how many the filter left, and how many of each are wrong.
    """
    spoiled = spoil(list(PairStore(dataset(run, "shared")).records()), run.config.seed)
    wrong = {one.key for one in spoiled if one.scores is None}
    _write_scored(run, spoiled)
    filter_pairs(run, FILTERED, POOL)
    pairs, left = (list(PairStore(dataset(run, name)).pair_keys()) for name in (POOL, FILTERED))
    write_subset(run, UNFILTERED, POOL, random_keys(pairs, len(left), run.config.seed))
    return {"pairs": len(pairs), "wrong": len(wrong), "left": len(left), "wrong_left": len(wrong & set(left))}


def _write_scored(run: Run, pairs: Sequence[PairRecord]) -> None:
    """Write pairs, those without scores with them; a dataset that was begun goes on."""
    scorer = CLIPScorer.from_file(resolve_model(SCORER, run.models))
    with PairWriter(dataset(run, POOL), {"made_by": "ip2p proof", "spoiled": SHARE}) as writer:
        missing = {one.key: one for one in pairs if not writer.is_done(_unit(one))}
        unscored = [one for one in missing.values() if one.scores is None]
        missing |= {one.key: one for one in score_records(unscored, scorer)}
        for one in missing.values():
            writer.add(_unit(one), [one])


def _unit(pair: PairRecord) -> Unit:
    return Unit(pair.prompt_id, pair.sample_index, pair.sample_index + 1)


def error_trials(run: Run, scales: Scales) -> list[Trial]:
    """Judge edits of renders by both editors of the study, over the text scale."""
    config, seed = run.config, run.config.seeds[0]
    named = held_out_edits(config, TESTING, config.num_tests)
    swept = {"text_scales": sorted({*map(float, config.text_scales), scales.text})}
    systems = [editor_system(run, variant, seed, scales) | swept for variant in STUDIES[ERRORS]]
    return trials_of(run, edit_all(run, ERRORS, named, systems, seed=seed, shown=0), named, seed)


def error_table(trials: Sequence[Trial], text_scale: float) -> dict[str, dict[str, Estimate]]:
    """What both editors do at one text scale."""
    table = {}
    for variant in STUDIES[ERRORS]:
        own = [one for one in trials if one.system == variant and one.text_scale == text_scale]
        table[variant] = {
            "edits done": estimate(own, lambda one: one.is_edited),
            "all else kept": estimate(own, lambda one: one.is_kept),
            "done and kept": estimate(own, lambda one: one.is_edited and one.is_kept),
            "directional similarity": estimate(own, lambda one: one.directional),
            "image similarity": estimate(own, lambda one: one.image),
        }
    return table


def error_curves(trials: Sequence[Trial]) -> dict[str, Curve]:
    """What both editors trade over the text scale, by their words."""
    return {words: curve_of(trials, variant, "text_scale") for variant, words in WORDS.items()}


def error_section(
    counts: Mapping[str, Any], table: Mapping[str, Mapping[str, Estimate]], curves: Mapping[str, Curve]
) -> str:
    """The part of the report about the filter."""
    rows = [
        [WORDS[variant], *(row[name].percent() for name in COLUMNS), *(row[name].plain() for name in SIMILARITIES)]
        for variant, row in table.items()
    ]
    leads = lead(curves[WORDS[FILTERED]], curves[WORDS[UNFILTERED]])
    told = ", ".join(f"{one:+.3f} at {scale:g}" for scale, one in leads.items()) or "no scale has a counterpart"
    mean = f" ({numpy.mean(list(leads.values())):+.3f} on average)" if leads else ""
    return f"""## What the filter is for

![Both editors over the text scale](errors.png)

{markdown_table(("trained", *COLUMNS, *SIMILARITIES), rows)}

The generator of this world hardly ever draws a wrong pair, so that there is little to filter above. Here a third of its pairs
({counts["wrong"]} of {counts["pairs"]}) got the edited picture of another pair. The filter left {counts["left"]}, {counts["wrong_left"]} of them wrong
({100 * counts["wrong_left"] / max(1, counts["left"]):.1f} %); the other editor learned from as many at random. Image similarity with the filter, less that without it
where directional similarity is the same, by the text scale: {told}{mean}."""
