"""`ip2p evaluate` as a user runs it: rows, plots and a page; it resumes, and says what it cannot measure."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy
import pytest
from PIL import Image

from ip2p.ip2p_core.pair_store import PairStore
from ip2p.tests.e2e.conftest import noise_picture, one_sentence
from ip2p.tests.e2e.eval_cases import (
    NUM_EDITS,
    NUM_EXAMPLES,
    SYSTEMS,
    make_config,
    report,
    rows,
    scores_of,
    write_examples,
)
from ip2p.tests.e2e.pair_cases import make_config as make_pairs
from ip2p.tests.forked import Limits, ip2p
from ip2p.trainer.__main__ import main


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, eval_models: Path) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    assert main(["evaluate", str(make_config(folder, eval_models))]) == 0
    return folder


def test_every_example_is_edited_and_measured_at_every_setting(whole):
    found = rows(whole)
    assert len(found) == NUM_EDITS
    assert len(scores_of(whole)) == NUM_EDITS
    for row in found:
        assert (whole / "run" / row["picture"]).is_file()
        assert all(row[name] for name in ("directional", "image", "caption_1", "l1", "ssim", "l1_outside", "target_l1"))
    unchanged = [row for row in found if row["system"] == "unchanged"]
    assert {float(row["l1"]) for row in unchanged} == {0.0}
    assert {round(float(row["image"]), 5) for row in unchanged} == {1.0}
    assert len({row["l1"] for row in found if row["system"] == "the editor"}) == 4 * NUM_EXAMPLES


def test_means_intervals_and_kinds_are_those_of_the_rows(whole):
    content, found = report(whole), rows(whole)
    assert [one["system"] for one in content["systems"]] == ["the editor"] * 4 + ["SDEdit"] * 2 + ["unchanged"]
    first = content["systems"][0]
    own = [
        row for row in found
        if (row["system"], row["text_scale"], row["image_scale"]) == ("the editor", "2.0", "1.0")
    ]  # fmt: skip
    mean = first["means"]["l1"]
    assert mean["value"] == pytest.approx(numpy.mean([float(row["l1"]) for row in own]))
    assert mean["low"] <= mean["value"] <= mean["high"]
    assert mean["num_examples"] == NUM_EXAMPLES
    assert {kind: some[0]["means"]["l1"]["num_examples"] for kind, some in content["by_edit_type"].items()} == {
        "colour": 3, "style": 2
    }  # fmt: skip
    assert content["measured_with"]["clip"]["preprocessing"] == "published_code"
    assert {"dino, structure", "lpips"} == set(content["skipped"])
    unchanged = content["systems"][-1]["means"]["psnr"]
    assert (unchanged["value"], unchanged["num_left_out"]) == (None, NUM_EXAMPLES)


def test_the_page_stands_alone_and_shows_what_was_found(whole):
    page = (whole / "run" / "index.html").read_text(encoding="utf-8")
    assert 'src="http' not in page
    assert page.count("data:image/") > 3 * 3
    for text in ("the editor", "SDEdit", "make thing 2 blue", "directional", "Not measured", "style"):
        assert text in page
    for name in ("tradeoff.png", "side_by_side.png", "grid_0.png"):
        with Image.open(whole / "run" / name) as picture:
            assert picture.width > 200


def test_a_second_run_makes_nothing_and_more_settings_are_added(tmp_path, eval_models):
    main(["evaluate", str(make_config(tmp_path, eval_models, systems=SYSTEMS[:1]))])
    pictures = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "pictures").rglob("*.png")}
    more = [{**SYSTEMS[0], "text_scales": [2, 4, 8]}, SYSTEMS[2]]
    main(["evaluate", str(make_config(tmp_path, eval_models, systems=more))])
    assert len(rows(tmp_path)) == (6 + 1) * NUM_EXAMPLES
    assert all(path.stat().st_mtime_ns == written for path, written in pictures.items())


def test_each_picture_is_the_one_of_ip2p_edit_with_its_seed(tmp_path, eval_models, whole):
    row = next(row for row in rows(whole) if row["example"].startswith("n3") and row["text_scale"] == "4.0")
    arguments = [
        "edit",
        whole / "examples" / "3a.png",
        row["instruction"],
        "--model",
        "editor_a",
        "--models",
        eval_models,
    ]
    scales = ["-t", 4, "-g", row["image_scale"], "--steps", 2, "--seed", 3, "--device", "cpu"]
    done = ip2p(*arguments, *scales, "-o", tmp_path / "one.png")
    assert done.returncode == 0, done.stderr
    one, other = (
        numpy.asarray(Image.open(path)).astype(int) for path in (tmp_path / "one.png", whole / "run" / row["picture"])
    )
    assert numpy.abs(one - other).max() <= 1
    assert Path(row["picture"]).stem.endswith("-s3")


def check_kill(folder: Path, models: Path, whole: Path, kill_at: int) -> None:
    config = make_config(folder, models)
    assert ip2p("evaluate", config, limits=Limits(kill_at, {"os.rename"})).returncode == -signal.SIGKILL
    assert main(["evaluate", str(config)]) == 0
    assert {row[:6] for row in scores_of(folder)} == {row[:6] for row in scores_of(whole)}
    for row in rows(folder):
        pair = [numpy.asarray(Image.open(one / "run" / row["picture"])).astype(int) for one in (folder, whole)]
        assert numpy.abs(pair[0] - pair[1]).max() <= 1
    lines = (folder / "run" / "scores.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == NUM_EDITS + 1, "an edit was measured twice"
    assert list((folder / "run").rglob(".*.part")) == []


def test_after_a_kill_the_run_goes_on_to_the_same_report(tmp_path, eval_models, whole):
    check_kill(tmp_path, eval_models, whole, 17)


@pytest.mark.soak
@pytest.mark.parametrize("kill_at", range(2, NUM_EDITS + 8, 2))
def test_after_a_kill_at_any_file_the_run_goes_on_to_the_same_report(tmp_path, eval_models, whole, kill_at):
    check_kill(tmp_path, eval_models, whole, kill_at)


def test_without_captions_edits_are_measured_by_their_instructions(tmp_path, eval_models):
    examples = write_examples(tmp_path / "bare", has_captions=False)
    config = make_config(tmp_path, eval_models, examples=str(examples), systems=SYSTEMS[:1])
    assert main(["evaluate", str(config)]) == 0
    assert all("directional" not in row and row["instruction_match"] and row["image"] for row in rows(tmp_path))
    assert (tmp_path / "run" / "tradeoff.png").exists()


def test_a_dataset_of_pairs_is_a_set_of_examples_with_targets(tmp_path, eval_models, pair_models):
    main(["pairs", str(make_pairs(tmp_path, pair_models))])
    config = make_config(
        tmp_path, eval_models, examples=str(tmp_path / "pairs"), split="all", systems=SYSTEMS[2:], count=4
    )
    assert main(["evaluate", str(config)]) == 0
    assert len(rows(tmp_path)) == min(4, len(PairStore(tmp_path / "pairs")))
    assert all(float(row["target_l1"]) > 0 for row in rows(tmp_path))


def test_pictures_that_were_made_elsewhere_are_measured_by_name(tmp_path, eval_models):
    config = make_config(
        tmp_path, eval_models, systems=[{"name": "theirs", "kind": "folder", "folder": str(tmp_path / "theirs")}]
    )
    (tmp_path / "theirs").mkdir()
    for number in range(NUM_EXAMPLES):
        Image.open(tmp_path / "examples" / f"{number}b.png").save(tmp_path / "theirs" / f"n{number}.png")
    assert main(["evaluate", str(config)]) == 0
    assert {float(row["target_l1"]) for row in rows(tmp_path)} == {0.0}
    (tmp_path / "theirs" / "n2.png").unlink()
    again = make_config(
        tmp_path,
        eval_models,
        output=str(tmp_path / "again"),
        systems=[{"name": "theirs", "kind": "folder", "folder": str(tmp_path / "theirs")}],
    )
    done = ip2p("evaluate", again)
    assert done.returncode == 2
    assert "holds no picture of the example n2-" in one_sentence(done.stderr)


def test_two_sizes_are_edited_in_two_batches(tmp_path, eval_models):
    examples = write_examples(tmp_path / "examples")
    noise_picture(32, 48).save(examples.parent / "2a.png")
    noise_picture(32, 48).save(examples.parent / "mask.png")
    text = examples.read_text(encoding="utf-8").replace(', "mask": "mask.png"', "")
    examples.write_text(text, encoding="utf-8")
    config = make_config(tmp_path, eval_models, examples=str(examples), systems=SYSTEMS[:1], batch_size=4)
    assert main(["evaluate", str(config)]) == 0
    assert len(rows(tmp_path)) == 4 * NUM_EXAMPLES
