"""The search over scales and seeds, and what it goes by."""

from __future__ import annotations

import math

import pytest
import torch

from ip2p.ip2p_core.clip_scorer import CLIPScorer
from ip2p.ip2p_core.edit_tradeoff import EditTexts, Tradeoff, draw_trials, mean_relevance, weigh
from ip2p.ip2p_core.errors import ConfigError
from ip2p.ip2p_core.guidance_search import Edited, Found, Place, SearchSettings, Trial, Worth, coarse_grid, search
from ip2p.tests.tiny_clip import tiny_scorer


def settings(**changes) -> SearchSettings:
    return SearchSettings(
        **{
            "budget": 12,
            "text_scales": (0.0, 10.0),
            "image_scales": (1.0, 2.0),
            "seeds": [5, 6, 7, 8],
            "own": (5.0, 1.5),
            "margin": 0.0,
            **changes,
        }
    )


class Hill:
    """Edits whose picture is their place, and a judge that wants them near a top."""

    def __init__(self, top: tuple[float, float, int]) -> None:
        self.top, self.tried = top, []

    def edit(self, text_scale: float, image_scale: float, seed: int) -> Edited:
        self.tried.append((text_scale, image_scale, seed))
        return Edited(torch.tensor([text_scale, image_scale, float(seed)]))

    def judge(self, edits) -> list[Worth]:
        worths = []
        for one in edits:
            text_scale, image_scale, seed = one.picture.tolist()
            away = abs(text_scale - self.top[0]) / 10 + abs(image_scale - self.top[1]) + 0.1 * (seed != self.top[2])
            worths.append(Worth(-away, 0.0, 0.0))
        return worths


@pytest.mark.parametrize("budget", [2, 3, 5, 12, 40])
def test_the_budget_is_used_up_and_no_place_is_tried_twice(budget):
    hill = Hill((3.0, 1.2, 7))
    found = search(hill.edit, hill.judge, settings(budget=budget))
    assert len(hill.tried) == len(set(hill.tried)) == len(found.trials) == budget
    assert all(0 <= one.place.text_scale <= 10 and 1 <= one.place.image_scale <= 2 for one in found.trials)


@pytest.mark.parametrize("top", [(3.0, 1.2, 7), (9.0, 1.9, 5), (0.4, 1.5, 6)])
def test_the_search_comes_nearer_than_its_grid_and_takes_the_better_seed(top):
    hill = Hill(top)
    best = search(hill.edit, hill.judge, settings(budget=24)).best
    places, _ = coarse_grid(settings(), 12)
    nearest = max(one.score for one in hill.judge([hill.edit(*place) for place in places]))
    assert best.place.seed == top[2]
    assert best.worth.score > nearest + 0.05


def test_the_same_search_is_the_same():
    runs = [search(hill.edit, hill.judge, settings()).table() for hill in (Hill((3.0, 1.2, 7)), Hill((3.0, 1.2, 7)))]
    assert runs[0] == runs[1]


def test_scales_that_are_fixed_stay_and_one_seed_is_enough():
    hill = Hill((3.0, 1.5, 5))
    found = search(hill.edit, hill.judge, settings(image_scales=(1.5, 1.5), seeds=[5]))
    assert {one.place[1:] for one in found.trials} == {(1.5, 5)}
    assert abs(found.best.place.text_scale - 3) < 0.3
    both = search(hill.edit, hill.judge, settings(image_scales=(1.5, 1.5), text_scales=(3.0, 3.0)))
    assert [one.place.seed for one in both.trials] == [5, 6, 7, 8]


@pytest.mark.parametrize(("margin", "scales"), [(0.0, (3.0, 1.2)), (0.3, (3.0, 1.2)), (1.0, (5.0, 1.5))])
def test_the_models_own_scales_come_first_and_others_must_be_better_by_the_margin(margin, scales):
    worths = {(5.0, 1.5): 0.5, (3.0, 1.2): 0.7}
    trials = [Trial(Place(*place, 5), Edited(torch.zeros(1)), Worth(score, 0, 0)) for place, score in worths.items()]
    assert Found(tuple(trials), margin).best.place[:2] == scales
    hill = Hill((3.0, 1.2, 7))
    found = search(hill.edit, hill.judge, settings(own=(70.0, 1.5)))
    assert hill.tried[0] == found.trials[0].place == (10.0, 1.5, 5)


def test_a_score_that_is_no_number_never_wins():
    trials = [
        Trial(Place(1, 1, seed), Edited(torch.zeros(1)), Worth(score, 0, 0))
        for seed, score in enumerate((math.nan, -1.0, 0.5, 0.5))
    ]
    assert Found(tuple(trials)).best.place.seed == 2
    assert [one.place.seed for one in Found(tuple(trials)).ranked()] == [2, 3, 1, 0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"budget": 1}, "needs 2 to 400"),
        ({"text_scales": (2.0, 1.0)}, "text scales go from 2 to 1"),
        ({"image_scales": (-1.0, 1.0)}, "image scales go from -1 to 1"),
        ({"image_scales": (1.0, math.nan)}, "image scales"),
        ({"seeds": []}, "no seeds"),
    ],
)
def test_settings_that_make_no_search_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        settings(**changes)


def test_every_edit_is_reported_once():
    hill, seen = Hill((3.0, 1.2, 7)), []
    search(hill.edit, hill.judge, settings(), lambda edited: seen.append(tuple(edited.picture.tolist())))
    assert seen == [pytest.approx(one) for one in hill.tried]


def test_the_weight_goes_from_the_edit_to_what_stays():
    assert weigh(0.2, 0.9, 0.0) == 0.2
    assert weigh(0.2, 0.9, 1.0) == 0.9
    assert weigh(0.4, 0.9, 0.5) == pytest.approx(math.sqrt(0.36))
    assert weigh(-0.3, 0.9, 0.5) == 0
    assert weigh(-0.3, 0.9, 1.0) == 0.9
    assert weigh(1.0001, 1.0001, 0.5) == 1


@pytest.fixture(scope="module")
def scorer(tmp_path_factory) -> CLIPScorer:
    path = tmp_path_factory.mktemp("clip") / "scorer.safetensors"
    tiny_scorer(path)
    return CLIPScorer.from_file(path)


PICTURES = torch.rand(3, 24, 32, 3, generator=torch.Generator().manual_seed(0))


def test_with_captions_the_parts_of_the_score_are_those_of_the_scorer(scorer):
    texts = EditTexts(instruction="make it blue", caption="a red square", edited_caption="a blue square")
    tradeoff = Tradeoff(lambda: scorer, PICTURES[0], texts, 0.3)
    edits = [Edited(one) for one in PICTURES[1:]]
    first = tradeoff(edits[:1])
    worths = tradeoff(edits)
    assert worths[0] == pytest.approx(first[0], abs=1e-5)
    expected = scorer.score(
        PICTURES[:1].expand(2, -1, -1, -1), PICTURES[1:], ["a red square"] * 2, ["a blue square"] * 2
    )
    for worth, one in zip(worths, expected, strict=True):
        assert worth == pytest.approx((weigh(one.directional, one.image, 0.3), one.directional, one.image), abs=1e-5)


def test_without_captions_only_a_change_where_the_instruction_does_not_act_counts(scorer):
    tradeoff = Tradeoff(lambda: scorer, PICTURES[0], EditTexts(instruction="make it blue"), 1.0)
    relevance = torch.zeros(24, 32)
    relevance[:12] = 1
    inside, outside = PICTURES[0].clone(), PICTURES[0].clone()
    inside[:12] = 1 - inside[:12]
    outside[12:] = 1 - outside[12:]
    kept, changed = tradeoff([Edited(inside, relevance), Edited(outside, torch.zeros(24, 32))])
    assert kept.keeps == pytest.approx(1)
    assert changed.keeps < 0.7
    match = float(scorer.embed_images(inside[None])[0] @ scorer.embed_texts(["make it blue"])[0])
    assert kept.follows == pytest.approx(match, abs=1e-5)


def test_relevance_is_the_mean_of_the_maps_that_are_there():
    maps = [None, torch.zeros(2, 2), torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[1.0, 1.0], [0.0, 0.0]])]
    found = mean_relevance([Edited(PICTURES[0], one) for one in maps], (2, 2))
    torch.testing.assert_close(found, torch.tensor([[[1.0, 0.5], [0.0, 0.0]]]))
    assert mean_relevance([Edited(PICTURES[0])], (4, 5)).shape == (1, 4, 5)


@pytest.mark.parametrize("texts", [{"caption": "a"}, {"edited_caption": "a"}])
def test_one_caption_alone_is_refused(texts):
    with pytest.raises(ConfigError, match="Write both, or neither"):
        EditTexts(instruction="make it blue", **texts)


def test_the_sheet_shows_the_original_and_the_best_edit_first():
    grey = torch.full((32, 48, 3), 0.5)
    colours = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])
    trials = [
        Trial(Place(1, 1, i), Edited(colour.expand(32, 48, 3)), Worth(0.1 * i, 0, 0))
        for i, colour in enumerate(colours)
    ]
    sheet = draw_trials(Found(tuple(trials)), grey, "make it blue")

    def first_column(colour: torch.Tensor) -> int:
        return int((sheet - colour).abs().amax(-1).lt(0.02).float().sum(0).gt(20).nonzero()[0])

    places = [first_column(colour) for colour in (grey[0, 0], *colours.flip(0))]
    assert places == sorted(places)
    assert len(set(places)) == 4
