"""The study of the filter: a third of the pairs is made wrong, the filter finds them, and the report says what that changes."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from ip2p.ip2p_core.clip_scorer import CLIPScorer
from ip2p.ip2p_core.pair_filter import score_records
from ip2p.ip2p_core.pair_store import PairStore, PairWriter, Unit
from ip2p.tests.unit.proof_samples import judged
from ip2p.trainer.edit_models import resolve_model
from ip2p.trainer.proof.config import read_proof_config
from ip2p.trainer.proof.edits import training_edits, write_rendered_pairs
from ip2p.trainer.proof.spoiled import POOL, error_curves, error_section, error_table, spoil, spoiled_stage
from ip2p.trainer.proof.stages import Run, dataset


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """A run whose pairs, one of each prompt, are exact renders with their scores."""
    folder = tmp_path_factory.mktemp("run")
    run = Run(
        read_proof_config(None, ["preset=smoke", f"output={folder}", "num_prompts=150", "size=64", "survival=0.6"]),
        print,
    )
    write_rendered_pairs(dataset(run, "unscored"), training_edits(run.config), run.config.size)
    scorer = CLIPScorer.from_file(resolve_model("clip", run.models))
    with PairWriter(dataset(run, "shared"), {"made_by": "test"}) as writer:
        for one in score_records(list(PairStore(dataset(run, "unscored")).records()), scorer):
            writer.add(Unit(one.prompt_id, 0, 1), [one])
    return run


def pictures(records):
    return {one.key: one.edited.tensor() for one in records}


def test_a_third_of_the_pairs_gets_the_edited_picture_of_another(rendered):
    records = list(PairStore(dataset(rendered, "shared")).records())
    spoiled = spoil(records, seed=3)
    assert [one.key for one in spoiled] == [one.key for one in records]
    assert [one.triplet for one in spoiled] == [one.triplet for one in records]
    wrong = [(old, new) for old, new in zip(records, spoiled, strict=True) if new.scores is None]
    assert len(wrong) == len(records) / 3
    assert all(old.edited != new.edited and old.original == new.original for old, new in wrong)
    assert len({id(new.edited) for _, new in wrong}) == len(wrong), "every picture is taken once"
    assert all(old == new for old, new in zip(records, spoiled, strict=True) if new.scores is not None)
    assert spoil(records, seed=3) == spoiled
    assert spoil(records, seed=4) != spoiled


def test_the_filter_leaves_few_of_the_wrong_pairs_and_chance_a_third(rendered):
    found = spoiled_stage(rendered)
    assert (found["pairs"], found["wrong"]) == (150, 50)
    assert found["wrong_left"] / found["left"] < 0.1
    pool, screened, chance = (
        pictures(PairStore(dataset(rendered, name)).records()) for name in (POOL, "screened", "spoiled")
    )
    right = pictures(PairStore(dataset(rendered, "shared")).records())
    wrong = {key for key, picture in pool.items() if not picture.equal(right[key])}
    assert len(wrong & screened.keys()) == found["wrong_left"]
    assert len(screened) == len(chance) == found["left"]
    assert len(wrong & chance.keys()) / len(chance) > 0.2
    assert all(one.scores is not None for one in PairStore(dataset(rendered, POOL)).records())


def test_datasets_that_were_begun_go_on(rendered, tmp_path):
    """As a killed run leaves them: some units are there, others are not."""
    run = Run(replace(rendered.config, output=str(tmp_path)), print)
    records = list(PairStore(dataset(rendered, "shared")).records())
    with PairWriter(dataset(run, "shared"), {"made_by": "test"}) as writer:
        for one in records:
            writer.add(Unit(one.prompt_id, 0, 1), [one])
    edits = training_edits(run.config)
    write_rendered_pairs(dataset(run, "unscored"), edits[:40], run.config.size)
    write_rendered_pairs(dataset(run, "unscored"), edits, run.config.size)
    again = list(PairStore(dataset(run, "unscored")).pair_keys())
    assert again == list(PairStore(dataset(rendered, "unscored")).pair_keys())
    assert spoiled_stage(run) == spoiled_stage(rendered)
    for name in (POOL, "screened", "spoiled"):
        whole = pictures(PairStore(dataset(run, name)).records())
        keep_half(dataset(run, name), tmp_path / "half")
        assert len(PairStore(dataset(run, name))) == len(whole) // 2
    assert spoiled_stage(run) == spoiled_stage(rendered)
    for name in (POOL, "screened", "spoiled"):
        found, expected = (pictures(PairStore(dataset(one, name)).records()) for one in (run, rendered))
        assert found.keys() == expected.keys()
        assert all(picture.equal(expected[key]) for key, picture in found.items())


def keep_half(folder, beside):
    """Put a dataset of the first half of the pairs in the place of another, with the same configuration."""
    store = PairStore(folder)
    with PairWriter(beside, store.manifest.config) as writer:
        for one in list(store.records())[: len(store) // 2]:
            writer.add(Unit(one.prompt_id, one.sample_index, one.sample_index + 1), [one])
    shutil.rmtree(folder)
    beside.rename(folder)


def trial(system, text_scale, directional, image, is_kept=True):
    return judged(system, directional, image, text_scale=text_scale, example=f"x{is_kept}", is_kept=is_kept)


def test_the_report_compares_both_editors_where_directional_similarity_is_the_same():
    trials = [
        trial("spoiled", 1.0, 0.4, 0.8),
        trial("spoiled", 2.0, 0.8, 0.4, is_kept=False),
        trial("screened", 1.0, 0.6, 0.75),
        trial("screened", 2.0, 0.9, 0.6),
    ]
    table = error_table(trials, 2.0)
    assert (table["spoiled"]["all else kept"].value, table["screened"]["all else kept"].value) == (0, 1)
    text = error_section(
        {"pairs": 90, "wrong": 30, "left": 50, "wrong_left": 1}, table, error_curves(trials)
    )  # fmt: skip
    assert "(30 of 90) got the edited picture of another pair" in text
    assert "The filter left 50, 1 of them wrong\n(2.0 %)" in text
    assert "by the text scale: +0.150 at 1 (+0.150 on average)." in text
    assert "| with it | 100.0 % (100.0 to 100.0) |" in text
    assert "no scale has a counterpart" in error_section(
        {"pairs": 90, "wrong": 30, "left": 0, "wrong_left": 0}, table, error_curves([*trials[:2], trial("screened", 1.0, 0.1, 0.9)])
    )  # fmt: skip
