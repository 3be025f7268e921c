"""`ip2p proof` in its smallest form: every stage through the public commands, a report, and nothing done twice."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from ip2p.trainer import diffusers_adapter
from ip2p.trainer.__main__ import main
from ip2p.trainer.proof.config import ProofConfig, read_proof_config
from ip2p.trainer.proof.stages import Run, judge_stage
from ip2p.trainer.proof.training import train_editors
from ip2p.trainer.proof.world_models import autoencoder_stage, generator_stage
from ip2p.trainer.shape_world.attribute_judge import AttributeJudge


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run folder of the whole chain, and the arguments that made it."""
    folder = tmp_path_factory.mktemp("proof") / "run"
    arguments = ["proof", "--preset", "smoke", "--set", f"output={folder}", "--set", 'self_replace_of={"replace":0.7}']
    assert main(arguments) == 0
    return folder, arguments


def test_the_whole_chain_runs_resumes_and_writes_its_report(finished):
    folder, arguments = finished
    report = folder / "report"
    text = (report / "README.md").read_text(encoding="utf-8")
    for name in (
        "sharing",
        "scales",
        "tradeoff",
        "tradeoff_attributes",
        "variants",
        "side_by_side",
        "grid",
        "failures",
        "bias",
        "errors",
        "photographs",
    ):
        assert f"({name}.png)" in text
        with Image.open(report / f"{name}.png") as picture:
            assert picture.width > 300
    assert "self-attention in 0.9 (replace: 0.7) of the steps" in text
    assert json.loads((folder / "configs" / "pairs_shared.json").read_text(encoding="utf-8"))["self_replace_of"] == {
        "replace": 0.7
    }
    assert "| trained | move laid out |" in text
    tables = json.loads((report / "tables.json").read_text(encoding="utf-8"))
    assert tables["failures"]["laid_out"]["spatial"]["move"]["number"] == 3
    pairs = tables["wrong pairs"]
    assert pairs["wrong"] == round(pairs["pairs"] / 3)
    assert 0 < pairs["wrong_left"] < pairs["left"] < pairs["pairs"]
    assert set(tables["variants"]) == {"main", "self_attention", "scratch", "rendered", "longer", "autoencoder"}
    assert tables["variants"]["main"]["done and kept"]["number"] == 9
    assert tables["variants"]["main"]["all else kept in these"]["number"] == 6
    assert 0.69 <= tables["filter"]["prompts_left"] / tables["filter"]["prompts"] <= 0.85
    assert tables["curves"]["Text2LIVE"]["image"][0]["number"] == 1
    AttributeJudge.from_file(folder / "judge.safetensors")
    kept = [path for path in folder.rglob("*") if path.suffix in (".safetensors", ".parquet", ".png")]
    before = {path: path.stat().st_mtime_ns for path in kept if "report" not in path.parts and "pictures" in path.parts}
    models = {path: path.stat().st_mtime_ns for path in kept if path.suffix == ".safetensors"}
    assert before
    assert main(arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before, "an edit was made again"
    assert {path: path.stat().st_mtime_ns for path in models} == models, "a model was trained again"
    assert (report / "README.md").read_text(encoding="utf-8").split("its last call")[0] == text.split("its last call")[
        0
    ]


def test_editors_trained_side_by_side_equal_those_trained_one_after_the_other(finished, tmp_path):
    done = finished[0]
    untrained(done, tmp_path / "run")
    found = config_of(tmp_path / "run", "train_workers=2", "studies=[]", 'variants=["main","scratch","longer"]')
    train_editors(Run(found, print))
    for name in ("proof_main_0", "proof_scratch_0", "proof_longer_0"):
        expected = load_file(done / "models" / "ip2p" / f"{name}.safetensors")
        weights = load_file(tmp_path / "run" / "models" / "ip2p" / f"{name}.safetensors")
        for key, value in expected.items():
            torch.testing.assert_close(weights[key], value, rtol=0.02, atol=0.002, msg=f"{name} {key}")


def test_trainings_side_by_side_end_with_the_command_that_started_them(finished, tmp_path):
    folder = tmp_path / "run"
    untrained(finished[0], folder)
    settings = ["train_workers=2", "train_steps=100000", "studies=[]", 'variants=["main","scratch"]', "precision=bf16"]
    options = [one for setting in [f"output={folder}", *settings] for one in ("--set", setting)]
    command = [sys.executable, "-m", "ip2p.trainer", "proof", "--preset", "smoke", *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        logs = [folder / "logs" / f"train_{name}_0.txt" for name in ("main", "scratch")]
        until = time.monotonic() + 240
        while not all(log.exists() and "step 1 of" in log.read_text(encoding="utf-8") for log in logs):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.2)
        trainings = psutil.Process(process.pid).children()
        assert len(trainings) == 2
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
    assert not any(one.is_running() for one in trainings)
    assert list((folder / "editors" / "proof_main_0" / "checkpoints").iterdir())
    assert (
        json.loads((folder / "configs" / "train_proof_main_0.json").read_text(encoding="utf-8"))["precision"] == "bf16"
    )


def test_models_are_trained_in_float32_where_others_are_opened_in_half(tmp_path, monkeypatch):
    usual = diffusers_adapter.choose_dtype
    monkeypatch.setattr(
        diffusers_adapter,
        "choose_dtype",
        lambda dtype, device: torch.float16 if dtype == "auto" else usual(dtype, device),
    )
    run = Run(config_of(tmp_path), print)
    generator_stage(run, autoencoder_stage(run)["scaling_factor"])
    for name in ("autoencoder", "generator"):
        state = torch.load(tmp_path / "training" / f"{name}.pt", weights_only=True)  # noqa: TID251 - our own file, weights only
        assert {weight.dtype for weight in state["module"].values()} == {torch.float32}, name


def config_of(folder, *overrides):
    return read_proof_config(None, ["preset=smoke", f"output={folder}", *overrides])


def untrained(done, folder):
    """Copy a run folder without its editors."""
    shutil.copytree(
        done, folder, ignore=shutil.ignore_patterns("editors", "evaluations", "train_*", "proof_[mslr]*_0.*")
    )


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(tmp_path, capsys):
    assert main(["proof", "--preset", "smoke", "--set", f"output={tmp_path / 'run'}", "--dry-run"]) == 0
    assert "5 editors of 4 steps" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.soak
def test_the_judge_is_right_on_renders_that_it_never_saw(tmp_path):
    found = judge_stage(Run(ProofConfig(output=str(tmp_path), judge_seconds=540), print))
    assert min(value for name, value in found.items() if not name.endswith("worsened")) >= 0.995
