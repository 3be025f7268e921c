from __future__ import annotations

import itertools
import math

import pytest
import torch

from ip2p.ip2p_core.errors import ConfigError
from ip2p.ip2p_core.pair_record import PairScores
from ip2p.ip2p_core.score_report import SCORE_LABELS, histograms, report
from ip2p.ip2p_core.similarity import (
    PRESETS,
    PairFeatures,
    Percentiles,
    Thresholds,
    choose_thresholds,
    keep_best,
    passes,
    score_pairs,
)

GOOD = PairScores(caption_0=0.3, caption_1=0.3, image=0.9, directional=0.3)


def unit_features(*shape: int, seed: int = 0) -> torch.Tensor:
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn / drawn.norm(dim=-1, keepdim=True)


def random_pairs(count: int = 5) -> PairFeatures:
    return PairFeatures(*unit_features(4, count, 16))


def random_scores(count: int, seed: int = 0) -> list[PairScores]:
    drawn = torch.rand(count, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return [PairScores(*row) for row in drawn.tolist()]


def keep(scores: list[PairScores], keep: int = 4, seeds: list[int] | None = None, prompts: str = "") -> list[int]:
    return keep_best(prompts or "p" * len(scores), seeds or list(range(len(scores))), scores, PRESETS["paper"], keep)


def directionals(*values: float) -> list[PairScores]:
    return [GOOD._replace(directional=value) for value in values]


def test_an_edit_along_the_change_of_the_captions_scores_1():
    pairs = random_pairs()
    edited = pairs.original + 0.3 * (pairs.edited_caption - pairs.caption)
    for scores in score_pairs(pairs._replace(edited=edited)):
        assert scores.directional == pytest.approx(1.0, abs=1e-12)


def test_undoing_the_edit_turns_the_sign_of_the_directional_similarity():
    pairs = random_pairs()
    undone = score_pairs(pairs._replace(original=pairs.edited, edited=pairs.original))
    for one, other in zip(score_pairs(pairs), undone, strict=True):
        assert other.directional == pytest.approx(-one.directional, abs=1e-12)


def test_swapping_images_and_captions_together_keeps_the_directional_similarity():
    pairs = random_pairs()
    swapped = score_pairs(PairFeatures(pairs.edited, pairs.original, pairs.edited_caption, pairs.caption))
    for one, other in zip(score_pairs(pairs), swapped, strict=True):
        assert other == pytest.approx((one.caption_1, one.caption_0, one.image, one.directional), abs=1e-12)


def test_the_three_plain_similarities_are_dot_products_of_features_of_length_1():
    pairs = random_pairs(1)
    original, edited, caption, edited_caption = (value[0] for value in pairs)
    wanted = (original @ caption, edited @ edited_caption, original @ edited)
    assert score_pairs(pairs)[0][:3] == pytest.approx([float(value) for value in wanted], abs=1e-12)


@pytest.mark.parametrize("pair", [("original", "edited"), ("caption", "edited_caption")])
@pytest.mark.parametrize("noise", [0.0, 1e-8])
def test_without_a_change_there_is_no_direction(pair, noise):
    features = PairFeatures(*(value.float() for value in random_pairs()))
    same = getattr(features, pair[0]) + noise * unit_features(5, 16, seed=1).float()
    assert [one.directional for one in score_pairs(features._replace(**{pair[1]: same}))] == [0.0] * 5


def test_features_that_are_no_numbers_give_scores_that_pass_nothing():
    pairs = random_pairs(1)
    scores = score_pairs(pairs._replace(edited=torch.full_like(pairs.edited, math.nan)))[0]
    lowest = Thresholds(image=-1.0, caption=-1.0, directional=-1.0)
    assert (math.isnan(scores.directional), passes(scores, lowest)) == (True, False)


def test_half_precision_features_are_scored_in_single_precision():
    pairs = random_pairs()
    halves = PairFeatures(*(value.half() for value in pairs))
    singles = PairFeatures(*(value.half().float() for value in pairs))
    assert score_pairs(halves) == score_pairs(singles)


def test_different_numbers_of_features_are_refused():
    pairs = random_pairs()
    with pytest.raises(ConfigError, match=r"5 features of original, 4 features of edited.*Make the numbers equal"):
        score_pairs(pairs._replace(edited=pairs.edited[:4]))


def test_the_presets_are_those_of_the_paper_and_of_the_published_code():
    seen = {name: (one.image, one.caption, one.directional) for name, one in PRESETS.items()}
    assert seen == {"paper": (0.75, 0.2, 0.2), "published_code": (0.7, 0.2, 0.2)}


def test_scores_exactly_on_the_thresholds_pass():
    assert passes(PairScores(0.2, 0.2, 0.75, 0.2), PRESETS["paper"])


@pytest.mark.parametrize("name", PairScores._fields)
def test_one_score_just_below_its_threshold_fails_the_pair(name):
    scores = PairScores(0.2, 0.2, 0.75, 0.2)
    assert not passes(scores._replace(**{name: math.nextafter(getattr(scores, name), 0.0)}), PRESETS["paper"])


def test_all_thresholds_out_of_range_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        Thresholds(image=1.5, caption=math.nan, directional=-2.0)
    assert len(caught.value.mistakes) == 3
    assert "The image threshold is 1.5; it is a cosine and must lie between -1 and 1." in caught.value.mistakes


def test_all_percentiles_out_of_range_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        Percentiles(image=-1.0, caption=101.0)
    assert len(caught.value.mistakes) == 2
    assert "The caption percentile is 101; it is a percentage and must lie between 0 and 100." in caught.value.mistakes


@pytest.mark.parametrize("name", ["image", "caption", "directional"])
@pytest.mark.parametrize(("percent", "num_passing"), [(0, 40), (25, 30), (50, 20), (90, 4), (100, 1)])
def test_a_percentile_takes_out_its_share_of_the_pairs(name, percent, num_passing):
    scores = random_scores(40)
    asked = {"image": 0.0, "caption": 0.0, "directional": 0.0, name: percent}
    thresholds = Percentiles(**asked).thresholds(scores)
    assert sum(passes(one, thresholds) for one in scores) == num_passing


def test_percentiles_leave_out_scores_that_are_no_numbers():
    scores = random_scores(10)
    broken = [*scores, GOOD._replace(image=math.nan)]
    assert Percentiles().thresholds(broken) == Percentiles().thresholds(scores)


def test_percentiles_of_no_scores_are_refused():
    with pytest.raises(ConfigError, match="There are no scores to take percentiles of"):
        choose_thresholds("percentile", [])


def test_a_percentile_of_a_cosine_above_1_by_rounding_is_a_valid_threshold():
    assert Percentiles(image=100).thresholds([GOOD._replace(image=1.0000001)]).image == 1.0


@pytest.mark.parametrize("preset", ["paper", "published_code"])
def test_a_preset_does_not_read_the_custom_values(preset):
    assert choose_thresholds(preset, [], custom=Thresholds(image=0.1)) == PRESETS[preset]


def test_custom_thresholds_are_taken_as_they_are():
    assert choose_thresholds("custom", [], custom=Thresholds(image=0.1)).image == 0.1


def test_an_unknown_preset_is_refused_with_the_known_names():
    with pytest.raises(
        ConfigError, match="'best' does not exist; choose one of paper, published_code, custom, percentile"
    ):
        choose_thresholds("best", [])


def test_the_best_four_by_directional_similarity_are_kept_best_first():
    assert keep(directionals(0.3, 0.9, 0.25, 0.5, 0.7, 0.4)) == [1, 4, 3, 5]


def test_of_equal_directional_similarities_the_higher_seed_comes_first():
    assert keep(directionals(0.3, 0.3, 0.3), keep=2, seeds=[5, 9, 7]) == [1, 2]


def test_pairs_that_fail_one_test_are_not_kept_however_well_they_point():
    scores = [*directionals(0.3, 0.9), GOOD._replace(directional=0.99, image=0.7)]
    assert keep(scores) == [1, 0]


def test_every_prompt_has_its_own_quota():
    assert keep(directionals(0.5, 0.3, 0.4, 0.9, 0.1), keep=1, prompts="abaab") == [3, 1]


@pytest.mark.parametrize("seed", range(5))
def test_the_kept_pairs_are_those_of_the_published_loop(seed):
    scores, prompts = random_scores(60, seed), "abc" * 20
    thresholds = Thresholds(image=0.3, caption=0.2, directional=0.2)
    wanted = []
    for prompt in "abc":
        rows = [(one.directional, i) for i, one in enumerate(scores) if prompts[i] == prompt]
        rows = [row for row in rows if scores[row[1]].image >= 0.3 and row[0] >= 0.2]
        rows = [row for row in rows if scores[row[1]].caption_0 >= 0.2 and scores[row[1]].caption_1 >= 0.2]
        wanted += [index for _, index in sorted(rows, reverse=True)[:4]]
    assert keep_best(prompts, range(60), scores, thresholds) == wanted


def test_the_order_of_the_pairs_does_not_change_what_is_kept():
    scores = directionals(0.3, 0.9, 0.5)
    for order in itertools.permutations(range(3)):
        kept = keep([scores[i] for i in order], keep=2, seeds=list(order))
        assert [order[i] for i in kept] == [1, 2]


def test_different_numbers_of_prompts_seeds_and_scores_are_refused():
    with pytest.raises(ConfigError, match="There are 2 prompts, 3 seeds, 3 scores"):
        keep_best("ab", [1, 2, 3], directionals(0.3, 0.3, 0.3), Thresholds())


def test_keeping_less_than_one_pair_is_refused():
    with pytest.raises(ConfigError, match="keep is 0; it must be at least 1"):
        keep(directionals(0.3), keep=0)


def tell(scores: list[PairScores], prompts: str) -> str:
    kept = keep_best(prompts, range(len(scores)), scores, PRESETS["paper"])
    return report(prompts, scores, PRESETS["paper"], kept)


def test_the_report_counts_pairs_and_prompts():
    text = tell([*directionals(0.3, 0.4, 0.1, 0.5, 0.6, 0.7)], "aaabcc")
    assert text.splitlines()[0] == "5 of 6 pairs pass every threshold; 5 kept, from 3 of 3 prompts."


def test_the_report_counts_every_threshold_by_itself():
    scores = [GOOD, GOOD._replace(image=0.7), GOOD._replace(image=0.1, directional=0.1), GOOD._replace(caption_1=0.1)]
    lines = tell(scores, "aaaa").splitlines()[1:]
    assert [line.split(": ")[1].split(";")[0] for line in lines] == ["4 of 4", "3 of 4", "2 of 4", "3 of 4"]


def test_with_nothing_passing_the_report_names_the_nearest_pair_and_what_it_lacks():
    scores = [GOOD._replace(directional=-0.4), GOOD._replace(image=0.7, directional=0.19), GOOD._replace(image=0.2)]
    assert tell(scores, "abc").splitlines()[-1] == (
        "The nearest is pair 2, of prompt b: original and edited image 0.700, 0.050 short; directional similarity 0.190, "
        "0.010 short. Lower these thresholds, or make more pairs."
    )


def test_a_best_score_below_its_threshold_says_how_much_is_missing():
    lines = tell(directionals(0.15, -0.3), "aa").splitlines()
    assert "- directional similarity >= 0.2: 0 of 2; median -0.075, best 0.150, 0.050 short" in lines


def test_a_hair_is_not_reported_as_zero():
    assert "best 0.200, less than 0.001 short" in tell(directionals(0.19999), "a")


def test_scores_that_are_no_numbers_are_counted():
    assert "1 not a finite number" in tell([GOOD, GOOD._replace(image=math.nan)], "aa")


def test_only_scores_that_are_no_numbers_point_at_images_and_weights():
    assert "No pair has finite scores" in tell([PairScores(*[math.nan] * 4)], "a")


def test_a_report_on_nothing_says_so():
    assert tell([], "") == "There are no pairs to filter."


@pytest.mark.parametrize("threshold", [-0.31, 0.2, 0.75, 1.0])
def test_the_bars_on_the_right_of_the_cut_are_the_pairs_that_pass(threshold):
    scores = random_scores(200)
    thresholds = Thresholds(image=threshold, caption=threshold, directional=threshold)
    for histogram in histograms(scores, thresholds):
        first = histogram.edges.index(threshold)
        assert sum(histogram.counts[first:]) == sum(getattr(one, histogram.score) >= threshold for one in scores)


def test_every_finite_score_is_counted_once():
    scores = [*random_scores(50), PairScores(*[math.nan] * 4), PairScores(*[0.2, 0.2, 0.75, 0.2])]
    assert [sum(one.counts) for one in histograms(scores, Thresholds())] == [51] * 4


def test_bins_are_between_neighbouring_edges():
    for histogram in histograms(random_scores(100), Thresholds()):
        assert len(histogram.edges) == len(histogram.counts) + 1
        assert 2 <= len(histogram.counts) <= 42


def test_there_is_one_histogram_per_score():
    assert [one.score for one in histograms([], Thresholds())] == list(PairScores._fields) == list(SCORE_LABELS)
