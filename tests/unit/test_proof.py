"""The numbers of the proof: thresholds by survival, estimates, curves, and what pairs keep."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest

from ip2p.ip2p_core.errors import ConfigError
from ip2p.ip2p_core.pair_record import PairScores
from ip2p.trainer.proof.config import EDIT_TYPES, ProofConfig, read_proof_config
from ip2p.trainer.proof.edits import TESTING, TUNING, captions_of, held_out_edits, training_edits
from ip2p.trainer.proof.findings import curve_of, equal_attributes, estimate
from ip2p.trainer.proof.selection import calibrate
from ip2p.trainer.proof.trials import Trial
from ip2p.trainer.shape_world.attribute_judge import Seen, SeenShape

CONFIG = ProofConfig(output="-", num_prompts=60)


class Scored(NamedTuple):
    prompt_id: str
    seed: int
    scores: PairScores

    @property
    def key(self) -> tuple[str, int]:
        return self.prompt_id, self.seed


def scored(number: int) -> list[Scored]:
    """Two pairs of each prompt, the second better; later prompts are better in everything."""
    return [
        Scored(f"p{i:03d}", k, PairScores(*(0.1 + 0.008 * i + 0.0001 * k for _ in range(4))))
        for i in range(number)
        for k in (0, 1)
    ]


@pytest.mark.parametrize("survival", [0.25, 0.69, 1.0])
def test_the_filter_leaves_the_wanted_share_of_the_prompts(survival):
    pairs = scored(100)
    thresholds = calibrate(pairs, survival)
    left = {
        one.prompt_id
        for one in pairs
        if one.scores.image >= thresholds.image and one.scores.directional >= thresholds.directional
    }
    assert survival <= len(left) / 100 <= survival + 0.02
    assert "p099" in left


def test_pairs_without_scores_cannot_be_filtered():
    with pytest.raises(ConfigError, match="no scores"):
        calibrate([], 0.69)


def test_training_has_neither_held_out_combinations_nor_wordings_nor_the_same_captions_twice():
    edits = training_edits(CONFIG)
    assert len(edits) == len({captions_of(one) for one in edits}) == 60
    assert not any(one.is_held_out() for one in edits)
    assert {one.edit_type for one in edits} == set(EDIT_TYPES)
    told = {one.instruction for one in edits} | {text for one in edits for text in one.training_instructions()}
    tested = [one.edit for one in held_out_edits(CONFIG, TESTING, 40)]
    assert not told & {one.instruction for one in tested}
    assert any(one.is_held_out() for one in tested)


def test_scales_are_chosen_on_other_renders_than_those_of_the_test():
    tested, tuned = (held_out_edits(CONFIG, purpose, 30) for purpose in (TESTING, TUNING))
    assert not {one.edit.before for one in tested} & {one.edit.before for one in tuned}
    assert [one.edit for one in tested] == [one.edit for one in held_out_edits(CONFIG, TESTING, 30)]


def trial(example: str, scale: float, *, done: bool, image: float = 0.5, seed: int = 0) -> Trial:
    return Trial("a", scale, 1.0, math.nan, seed, example, "recolour", "star", done, not done, 0.3, image, 0.1)


def test_estimates_average_the_trainings_of_an_example_first():
    trials = [trial("x", 1, done=True), trial("x", 1, done=False, seed=1), trial("y", 1, done=True)]
    found = estimate(trials, lambda one: one.is_edited)
    assert found.value == pytest.approx(0.75)
    assert found.number == 2
    assert 0.5 <= found.low <= found.value <= found.high <= 1.0
    assert math.isnan(estimate([], lambda one: one.image).value)


def test_curves_are_sorted_and_their_rank_correlation_may_end_before_saturation():
    trials = [trial(f"e{i}", scale, done=i < share) for scale, share in ((4, 2), (1, 1), (2, 3)) for i in range(4)]
    curve = curve_of(trials, "a", "text_scale")
    assert curve.scales == [1, 2, 4]
    assert [one.value for one in curve.done] == [0.25, 0.75, 0.5]
    assert curve.rho("done") == pytest.approx(0.5)
    assert curve.rho("done", 2) == pytest.approx(1.0)
    assert math.isnan(curve.rho("image"))
    assert len(curve_of(trials, "a").done) == 1


def seen(shape: str, colour: str, background: str, x: float) -> Seen:
    one = SeenShape(1, colour, "plain", 0.2, (x, 0.5))
    return Seen(background, "clear", "flat", {shape: one})


def test_attributes_that_the_edit_names_do_not_count():
    one = seen("star", "red", "white", 0.3)
    other = seen("star", "blue", "white", 0.32)
    assert equal_attributes(one, other, "recolour") == [True, True, True]
    assert equal_attributes(one, other, "background") == [True, False, True]
    assert equal_attributes(one, other, "replace") == [True, False, True]
    assert equal_attributes(one, seen("star", "red", "white", 0.6), "recolour") == [True, True, False]
    assert equal_attributes(one, Seen("white", "clear", "flat", {}), "replace") == [True, False, False]


def test_of_two_objects_shapes_colours_and_places_are_compared_together():
    def two(first: tuple[str, str, float], second: tuple[str, str, float]) -> Seen:
        shapes = {shape: SeenShape(1, colour, "plain", 0.2, (x, 0.5)) for shape, colour, x in (first, second)}
        return Seen("white", "clear", "flat", shapes)

    one = two(("star", "red", 0.3), ("heart", "blue", 0.7))
    assert equal_attributes(one, two(("star", "red", 0.3), ("circle", "blue", 0.7)), "replace") == [True] * 3
    assert equal_attributes(one, two(("star", "green", 0.3), ("heart", "blue", 0.9)), "recolour") == [True, True, False]
    assert equal_attributes(one, seen("star", "red", "white", 0.3), "background") == [False] * 3


def test_presets_give_way_to_settings_and_mistakes_are_named():
    assert read_proof_config(None, ["preset=smoke", "output=x", "num_tests=3"]).num_tests == 3
    assert read_proof_config(None, ["preset=smoke", "output=x"]).judge_seconds < 10
    with pytest.raises(ConfigError, match="The preset is 'fast'"):
        read_proof_config(None, ["preset=fast", "output=x"])
    with pytest.raises(ConfigError, match="name 'main'"):
        read_proof_config(None, ["output=x", 'variants=["tenth"]'])
