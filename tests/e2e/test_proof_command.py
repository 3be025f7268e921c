"""`ip2p proof` in its smallest form: every stage through the public commands, a report, and nothing done twice."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from ip2p.trainer.__main__ import main
from ip2p.trainer.proof.config import ProofConfig
from ip2p.trainer.proof.stages import Run, judge_stage
from ip2p.trainer.shape_world.attribute_judge import AttributeJudge


def test_the_whole_chain_runs_resumes_and_writes_its_report(tmp_path):
    arguments = ["proof", "--preset", "smoke", "--set", f"output={tmp_path / 'run'}"]
    assert main(arguments) == 0
    report = tmp_path / "run" / "report"
    text = (report / "README.md").read_text(encoding="utf-8")
    for name in (
        "sharing",
        "scales",
        "tradeoff",
        "variants",
        "side_by_side",
        "grid",
        "failures",
        "bias",
        "photographs",
    ):
        assert f"({name}.png)" in text
        with Image.open(report / f"{name}.png") as picture:
            assert picture.width > 300
    tables = json.loads((report / "tables.json").read_text(encoding="utf-8"))
    assert set(tables["variants"]) == {"main", "unshared", "scratch", "rendered", "longer", "autoencoder"}
    assert tables["variants"]["main"]["done and kept"]["number"] == 9
    assert 0.69 <= tables["filter"]["prompts_left"] / tables["filter"]["prompts"] <= 0.85
    assert tables["curves"]["Text2LIVE"]["image"][0]["number"] == 1
    AttributeJudge.from_file(tmp_path / "run" / "judge.safetensors")
    kept = [path for path in (tmp_path / "run").rglob("*") if path.suffix in (".safetensors", ".parquet", ".png")]
    before = {path: path.stat().st_mtime_ns for path in kept if "report" not in path.parts and "pictures" in path.parts}
    models = {path: path.stat().st_mtime_ns for path in kept if path.suffix == ".safetensors"}
    assert before
    assert main(arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before, "an edit was made again"
    assert {path: path.stat().st_mtime_ns for path in models} == models, "a model was trained again"
    assert (report / "README.md").read_text(encoding="utf-8").split("its last call")[0] == text.split("its last call")[
        0
    ]


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(tmp_path, capsys):
    assert main(["proof", "--preset", "smoke", "--set", f"output={tmp_path / 'run'}", "--dry-run"]) == 0
    assert "5 editors of 4 steps" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.soak
def test_the_judge_is_right_on_renders_that_it_never_saw(tmp_path):
    found = judge_stage(Run(ProofConfig(output=str(tmp_path), judge_seconds=540), print))
    assert min(value for name, value in found.items() if not name.endswith("worsened")) >= 0.995
