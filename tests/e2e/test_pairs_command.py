"""`ip2p pairs`: from triplets to a dataset, whatever happens in between."""

from __future__ import annotations

import json
import signal

import pytest

from ip2p.ip2p_core.pair_store import PairStore
from ip2p.ip2p_core.pair_store.validation import validate
from ip2p.ip2p_core.triplet import Triplet, prompt_id
from ip2p.tests.e2e.pair_cases import KEEP, NUM_SAMPLES, TRIPLETS, assert_same_pictures, ledger, make_config, pictures
from ip2p.tests.forked import Limits, ip2p
from ip2p.trainer.__main__ import main


@pytest.fixture
def config(tmp_path, pair_models):
    return make_config(tmp_path, pair_models)


def test_triplets_become_the_best_pairs_of_every_prompt(config, tmp_path, capsys):
    assert main(["pairs", str(config)]) == 0
    rows = ledger(tmp_path / "pairs")
    assert len(rows) == len(TRIPLETS) * NUM_SAMPLES
    assert len({row[2] for row in rows}) == len(rows), "a seed repeats"
    best = {}
    for batch in PairStore(tmp_path / "pairs").ledger():
        for row in batch.to_pylist():
            best.setdefault(row["prompt_id"], []).append((row["score_directional"], row["is_accepted"]))
    for candidates in best.values():
        assert [accepted for _, accepted in sorted(candidates, reverse=True)] == [True] * KEEP + [False] * 3
    assert validate(tmp_path / "pairs").faults == []
    assert PairStore(tmp_path / "pairs").manifest.notes["safety"]["filter"] == "off"
    assert "3 of 3 prompts done, 15 pairs sampled, 6 accepted" in capsys.readouterr().err
    run = tmp_path / "pairs.run"
    assert {"config.json", "versions.json", "log.txt"} <= {path.name for path in run.iterdir()}
    assert list((run / "spool").iterdir()) == []


def test_a_second_run_makes_nothing_and_a_longer_file_is_continued(config, tmp_path, capsys):
    main(["pairs", str(config)])
    before = ledger(tmp_path / "pairs")
    main(["pairs", str(config)])
    assert "0 pairs sampled" in capsys.readouterr().err
    with (tmp_path / "triplets.jsonl").open("a", encoding="utf-8") as triplets:
        triplets.write('\n{"caption": "a star", "instruction": "add snow", "edited_caption": "a star in the snow"}')
    main(["pairs", str(config)])
    assert "4 of 4 prompts done, 5 pairs sampled" in capsys.readouterr().err
    assert set(before) < set(ledger(tmp_path / "pairs"))


def test_an_edit_type_may_share_less_self_attention(tmp_path, pair_models, capsys):
    """The file says what type one triplet is of; of the others their words do."""
    alike = {"p_min": 0, "p_max": 0, "guidance_min": 60, "guidance_max": 60}
    found = {}
    for name, changes in {
        "all": {"self_replace": 1.0},
        "none": {"self_replace": 0.0},
        "of": {"self_replace": 1.0, "self_replace_of": {"shape": 0.0}},
    }.items():
        (tmp_path / name).mkdir()
        config = make_config(tmp_path / name, pair_models, mode="paper_text", num_samples=1, **alike, **changes)
        first, *others = TRIPLETS
        lines = map(json.dumps, [{**first, "edit_type": "shape"}, *others])
        (tmp_path / name / "triplets.jsonl").write_text("\n".join(lines), encoding="utf-8")
        assert main(["pairs", str(config)]) == 0
        found[name] = pictures(tmp_path / name / "pairs")
    typed = prompt_id(Triplet(*TRIPLETS[0].values()))
    for key, (_, edited) in found["of"].items():
        same, other = ("none", "all") if key[0] == typed else ("all", "none")
        assert (edited - found[same][key][1]).abs().max() <= 1 / 255 + 1e-6
        assert (edited - found[other][key][1]).abs().max() > 2 / 255, "the case shows nothing"
    capsys.readouterr()
    config = tmp_path / "of" / "config.json"
    assert main(["pairs", str(config), "--set", 'self_replace_of={"shap":0.5}']) == 2
    message = capsys.readouterr().err
    assert "self_replace_of names shap, but no triplet" in message
    assert "there are colour, shape." in message


def test_a_dataset_begun_before_edit_types_had_their_own_share_goes_on(config, tmp_path):
    main(["pairs", str(config)])
    assert "self_replace_of" not in PairStore(tmp_path / "pairs").manifest.config


def check_kill(tmp_path, pair_models, kill_at):
    (tmp_path / "whole").mkdir()
    main(["pairs", str(make_config(tmp_path / "whole", pair_models))])
    (tmp_path / "killed").mkdir()
    config = make_config(tmp_path / "killed", pair_models)
    assert ip2p("pairs", config, limits=Limits(kill_at, {"os.rename"})).returncode == -signal.SIGKILL
    assert main(["pairs", str(config)]) == 0
    whole, killed = tmp_path / "whole" / "pairs", tmp_path / "killed" / "pairs"
    assert ledger(killed) == ledger(whole)
    assert validate(killed).faults == []
    assert list(killed.rglob("*.part")) + list((tmp_path / "killed" / "pairs.run").rglob("*.part")) == []
    assert_same_pictures(whole, killed)


def test_after_a_kill_a_run_goes_on_to_the_same_dataset(tmp_path, pair_models):
    check_kill(tmp_path, pair_models, 10)


@pytest.mark.soak
@pytest.mark.parametrize("kill_at", range(1, 24))
def test_after_a_kill_at_any_file_a_run_goes_on_to_the_same_dataset(tmp_path, pair_models, kill_at):
    check_kill(tmp_path, pair_models, kill_at)


def test_prompts_stop_when_they_are_full_and_the_rest_counts_as_not_made(tmp_path, pair_models):
    main(["pairs", str(make_config(tmp_path, pair_models, stop_when_full=True, num_samples=8))])
    rows = ledger(tmp_path / "pairs")
    assert len(rows) == 8 * len(TRIPLETS)
    assert sum(row[-1] == "not_made" for row in rows) == 6 * len(TRIPLETS)
    assert len(PairStore(tmp_path / "pairs")) == KEEP * len(TRIPLETS)


def test_hopeless_prompts_are_given_up(tmp_path, pair_models):
    changes = {"give_up_after": 4, "num_samples": 8, "directional_threshold": 1.0}
    main(["pairs", str(make_config(tmp_path, pair_models, **changes))])
    rows = ledger(tmp_path / "pairs")
    assert sum(row[-1] == "not_made" for row in rows) == 4 * len(TRIPLETS)
    assert len(PairStore(tmp_path / "pairs")) == 0


def test_pairs_without_hope_are_given_up_part_way_and_the_others_stay_the_same(tmp_path, pair_models):
    (tmp_path / "whole").mkdir()
    main(["pairs", str(make_config(tmp_path / "whole", pair_models, steps=4, directional_threshold=0.0))])
    (tmp_path / "early").mkdir()
    early = {"steps": 4, "directional_threshold": 0.0, "reject_at": 0.5, "reject_margin": 0.0}
    main(["pairs", str(make_config(tmp_path / "early", pair_models, **early))])
    rows = {row[:2]: row for row in ledger(tmp_path / "early" / "pairs")}
    given_up = {key for key, row in rows.items() if row[-1].startswith("early_")}
    assert 0 < len(given_up) < len(rows), "the case shows nothing"
    one, other = pictures(tmp_path / "whole" / "pairs"), pictures(tmp_path / "early" / "pairs")
    assert one.keys() & other.keys()
    for key in one.keys() & other.keys():
        assert (one[key][1] - other[key][1]).abs().max() <= 1 / 255 + 1e-6


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(config, tmp_path, capsys):
    assert main(["pairs", str(config), "--dry-run"]) == 0
    assert "3 prompts, 15 pairs of 32x32 in 2 steps: about" in capsys.readouterr().err
    assert not (tmp_path / "pairs").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_sample": 3, "keep": "four"}, ["no setting 'num_sample'", "'keep' is 'four'; a whole number is needed"]),
        ({"p_min": 0.9, "p_max": 0.1, "keep": 0}, ["range of p is 0.9 to 0.1", "keep is 0"]),
        ({"safety": "require"}, ["no safety classifier", '"safety": "off"']),
        ({"generator": "editor_a"}, ["8 input channels; that is an editor"]),
        ({"generator": "../generator_a"}, ["points outside the model folder"]),
        ({"sampler": "magic"}, ["'magic' is unknown"]),
        ({"self_replace_of": {"replace": 1.5}, "keep": 0}, ["self_replace_of replace is 1.5", "keep is 0"]),
        ({"image_threshold": 3}, ["threshold is 3"]),
        ({"reject_at": 0.5, "sampler": "dpmpp_2m"}, ["reject_at needs the sampler euler"]),
    ],
)
def test_mistakes_are_told_all_at_once(tmp_path, pair_models, capsys, changes, words):
    assert main(["pairs", str(make_config(tmp_path, pair_models, **changes))]) == 2
    message = capsys.readouterr().err
    for part in words:
        assert part in message
    assert "Traceback" not in message


def test_other_settings_for_the_same_dataset_are_refused_by_name(config, tmp_path, pair_models, capsys):
    main(["pairs", str(config)])
    assert main(["pairs", str(config), "--set", "steps=3"]) == 2
    assert "made with other settings (steps)" in capsys.readouterr().err


def test_the_safety_filter_leaves_out_captions_and_pictures_and_counts_them(tmp_path, pair_models, capsys):
    everything = {"safety": "require", "safety_model": "clip_a", "safety_threshold": 0.0}
    main(["pairs", str(make_config(tmp_path, pair_models, **everything))])
    assert len(PairStore(tmp_path / "pairs")) == 0
    assert PairStore(tmp_path / "pairs").manifest.notes["safety"]["num_unsafe"] == len(TRIPLETS)
