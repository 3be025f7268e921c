"""What `ip2p evaluate` says where something is missing or wrong; what can be used is used."""

from __future__ import annotations

import json

import pytest

from ip2p.tests.e2e.conftest import noise_picture, one_sentence
from ip2p.tests.e2e.eval_cases import NUM_EDITS, NUM_EXAMPLES, SYSTEMS, make_config, report, rows, write_examples
from ip2p.trainer.__main__ import main


def test_what_cannot_be_used_is_listed_and_the_rest_goes_on(tmp_path, eval_models, capsys):
    examples = write_examples(tmp_path / "examples")
    (examples.parent / "1a.png").unlink()
    (examples.parent / "2a.png").write_bytes((examples.parent / "2a.png").read_bytes()[:60])
    noise_picture(16, 16, num_channels=1).save(examples.parent / "small.png")
    lines = examples.read_text(encoding="utf-8").splitlines()
    lines[3] = lines[3].replace("mask.png", "small.png")
    examples.write_text("\n".join([*lines, "no json", '{"image": "0a.png", "instruction": "  "}']), encoding="utf-8")
    config = make_config(tmp_path, eval_models, examples=str(examples), systems=SYSTEMS[2:])
    assert main(["evaluate", str(config)]) == 0
    said = capsys.readouterr().err
    assert "2 examples" in said
    assert "5 left out" in said
    for text in (
        "line 2: The picture",
        "line 3:",
        "The mask is 16x16 and the picture 48x32",
        "line 6:",
        "line 7: the instruction is empty",
    ):
        assert text in said
    assert len(report(tmp_path)["examples"]["left_out"]) == 5


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"systems": [{"name": "a", "strengths": [0.5]}]}, "is of the kind 'instruct', which has no strengths"),
        ({"systems": [{"name": "a", "kind": "sdedit", "strengths": [2]}]}, "each must be above 0 and at most 1"),
        ({"systems": [{"name": "a"}, {"name": "A "}]}, "Two systems are called 'a'"),
        ({"systems": [{"title": "a"}]}, "There is no setting 'title'"),
        ({"seeds": []}, "There are no seeds"),
        ({"systems": [{"name": "a", "model": "generator_a"}]}, "8"),
        ({"systems": [{"name": "a", "model": "gone"}]}, "There is no model 'gone'"),
        ({"systems": [{"name": "a", "kind": "text2live"}], "scorer": ""}, "needs a scorer"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_one_sentence(tmp_path, eval_models, changes, text, capsys):
    assert main(["evaluate", str(make_config(tmp_path, eval_models, **changes))]) == 2
    assert text in one_sentence(capsys.readouterr().err)


def test_an_empty_set_and_an_unknown_folder_are_refused(tmp_path, eval_models, capsys):
    (tmp_path / "empty.jsonl").write_text("")
    assert main(["evaluate", str(make_config(tmp_path, eval_models, examples=str(tmp_path / "empty.jsonl")))]) == 2
    assert "No example of" in one_sentence(capsys.readouterr().err)
    (tmp_path / "folder").mkdir()
    assert main(["evaluate", str(make_config(tmp_path, eval_models, examples=str(tmp_path / "folder")))]) == 2
    assert "holds no examples" in one_sentence(capsys.readouterr().err)


def test_a_system_that_needs_captions_says_so_where_there_are_none(tmp_path, eval_models, capsys):
    examples = write_examples(tmp_path / "bare", has_captions=False)
    assert main(["evaluate", str(make_config(tmp_path, eval_models, examples=str(examples), systems=SYSTEMS[1:]))]) == 2
    assert "'SDEdit' needs caption and edited_caption, and no example has both" in one_sentence(capsys.readouterr().err)


def test_an_absent_encoder_skips_its_metrics_by_name(tmp_path, eval_models, capsys):
    config = make_config(tmp_path, eval_models, scorer="gone", dino=str(tmp_path / "gone"), systems=SYSTEMS[2:])
    assert main(["evaluate", str(config)]) == 0
    said = capsys.readouterr().err
    assert "Not measured: caption_0, caption_1, image, directional, instruction_match (There is no model 'gone'" in said
    assert "Not measured: dino, structure" in said
    assert "image" not in rows(tmp_path)[0]
    assert float(rows(tmp_path)[0]["ssim"]) == pytest.approx(1)


def test_other_models_and_other_encoders_are_not_mixed(tmp_path, eval_models, capsys):
    main(["evaluate", str(make_config(tmp_path, eval_models, systems=SYSTEMS[2:]))])
    before = (tmp_path / "run" / "scores.jsonl").read_text(encoding="utf-8")
    main(["evaluate", str(make_config(tmp_path, eval_models, systems=SYSTEMS[2:], masking="multiply"))])
    after = (tmp_path / "run" / "scores.jsonl").read_text(encoding="utf-8")
    assert json.loads(before.splitlines()[0]) != json.loads(after.splitlines()[0])
    assert len(after.splitlines()) == NUM_EXAMPLES + 1
    one = {"name": "unchanged", "model": "editor_a"}
    assert main(["evaluate", str(make_config(tmp_path, eval_models, systems=[one]))]) == 2
    assert "were made with another model_sha256, kind" in one_sentence(capsys.readouterr().err)


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(tmp_path, eval_models, capsys):
    assert main(["evaluate", str(make_config(tmp_path, eval_models)), "--dry-run"]) == 0
    assert f"{NUM_EDITS} edits" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
