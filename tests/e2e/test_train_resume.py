"""`ip2p train` after every kind of end: the same weights as without it, to the last bit."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ip2p.ip2p_core.randomness import hash64
from ip2p.ip2p_core.sample_order import SampleOrder
from ip2p.tests.e2e import train_cases
from ip2p.tests.e2e.conftest import command, one_sentence
from ip2p.tests.forked import ENVIRONMENT, Limits, ip2p
from ip2p.trainer.training.checkpoints import MANIFEST, PARTS, Checkpoint, newest_checkpoint

NUM_PAIRS = 10
NUM_KILLS = 33
"""With a checkpoint after every step there are a few more."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    return train_cases.make_dataset(tmp_path_factory.mktemp("pairs") / "data", NUM_PAIRS)


def run(config: Path, *changes: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = ip2p("train", config, *(part for change in changes for part in ("--set", change)))
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def whole(tmp_path_factory, models, dataset) -> Path:
    """An uninterrupted run: 6 steps of 4 of 10 pairs, so that every checkpoint is in the middle of an epoch."""
    folder = tmp_path_factory.mktemp("whole")
    run(train_cases.write_config(folder, models, dataset))
    return folder / "run"


def final(run_folder: Path) -> Checkpoint:
    found = newest_checkpoint(run_folder / "checkpoints", {})
    assert found is not None
    return found


def assert_same(run_folder: Path, expected: Path) -> None:
    one, other = final(run_folder), final(expected)
    assert one.step == other.step
    for part in PARTS:
        ours, theirs = getattr(one, part), getattr(other, part)
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert torch.equal(ours[name], theirs[name]), f"{part} {name} differs"
    assert one.lineage == other.lineage == expected_lineage(one)


def expected_lineage(checkpoint: Checkpoint) -> int:
    """What the final weights must have learnt from, computed without a training."""
    identity = checkpoint.identity
    per_step = identity["batch_size"] // identity["micro_batch_size"]
    order = SampleOrder(identity["seed"], (torch.arange(NUM_PAIRS).numpy(),), identity["micro_batch_size"])
    batches = order.micro_batches(0, checkpoint.step * per_step)
    return sum(hash64(number // per_step, *visit) for number, batch in enumerate(batches) for visit in batch) % 2**64


def check_kill(folder: Path, models: Path, dataset: Path, whole: Path, kill_at: int, **changes) -> None:
    config = train_cases.write_config(folder, models, dataset, **changes)
    done = ip2p("train", config, limits=Limits(kill_at, {"os.rename", "shutil.rmtree"}))
    assert done.returncode == -signal.SIGKILL
    checkpoints = folder / "run" / "checkpoints"
    assert not any(path.is_dir() and not (path / MANIFEST).exists() for path in checkpoints.glob("step-*"))
    run(config)
    assert_same(folder / "run", whole)
    assert list(checkpoints.glob(".*")) + list((folder / "run").rglob("*.part")) == []


def test_after_a_kill_a_run_goes_on_to_the_same_weights(tmp_path, models, dataset, whole):
    check_kill(tmp_path, models, dataset, whole, 13)


@pytest.mark.soak
@pytest.mark.parametrize("kill_at", range(1, NUM_KILLS + 1))
def test_after_a_kill_at_any_file_a_run_goes_on_to_the_same_weights(tmp_path, models, dataset, whole, kill_at):
    check_kill(tmp_path, models, dataset, whole, kill_at, checkpoint_steps=1)


def wait_for_step(folder: Path, step: int, process: subprocess.Popen) -> None:
    until = time.monotonic() + 120
    while not list(folder.glob(f"run/checkpoints/step-{step:08d}/{MANIFEST}")):
        assert process.poll() is None, "the run ended before it could be stopped"
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize("which", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.soak)])
def test_a_signal_saves_and_the_run_goes_on_with_other_workers_to_the_same_weights(tmp_path, models, dataset, which):
    many = {"steps": 40, "checkpoint_steps": 2, "keep_checkpoints": 1}
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    run(train_cases.write_config(tmp_path / "whole", models, dataset, **many))
    config = train_cases.write_config(tmp_path / "stopped", models, dataset, **many)
    process = subprocess.Popen(
        command("train", config), env=ENVIRONMENT, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    wait_for_step(tmp_path / "stopped", 2, process)
    process.send_signal(which)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "the same command goes on from here" in said
    stopped = final(tmp_path / "stopped" / "run").step
    assert 2 <= stopped < 40
    again = run(config, "workers=2", "checkpoint_steps=100")
    assert "going on from a checkpoint" in again.stderr
    assert_same(tmp_path / "stopped" / "run", tmp_path / "whole" / "run")


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_it_is_taken(tmp_path, models, dataset, whole):
    config = train_cases.write_config(tmp_path, models, dataset)
    run(config)
    newest = tmp_path / "run" / "checkpoints" / "step-00000006"
    weights = newest / "weights.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    again = run(config)
    assert f"{newest} is damaged" in again.stderr
    assert_same(tmp_path / "run", whole)


def test_only_the_newest_checkpoints_are_kept(whole):
    assert [path.name for path in sorted((whole / "checkpoints").iterdir())] == ["step-00000004", "step-00000006"]


def test_other_settings_for_the_same_run_are_refused_by_name(tmp_path, models, dataset):
    config = train_cases.write_config(tmp_path, models, dataset, steps=2)
    run(config)
    refused = run(config, "learning_rate=0.5", check=False)
    assert refused.returncode == 2
    assert "learning_rate = 0.001, not 0.5" in one_sentence(refused.stderr)


def test_a_loss_that_is_not_finite_halts_and_leaves_the_last_checkpoint(tmp_path, models, dataset):
    config = train_cases.write_config(tmp_path, models, dataset, learning_rate=1e30, max_grad_norm=0.0)
    halted = run(config, check=False)
    assert halted.returncode == 2
    assert "not finite" in halted.stderr
    for path in (tmp_path / "run").rglob("weights.safetensors"):
        assert all(bool(value.isfinite().all()) for value in load_file(path).values())


def test_a_full_disk_is_one_sentence_and_afterwards_the_run_goes_on(tmp_path, models, dataset, whole):

    config = train_cases.write_config(tmp_path, models, dataset)
    size = (whole / "checkpoints" / "step-00000006" / "optimizer.safetensors").stat().st_size
    full = ip2p("train", config, limits=Limits(file_bytes=size // 2))
    assert full.returncode == 2
    assert "cannot be written" in full.stderr.splitlines()[-1]
    assert list((tmp_path / "run").rglob("optimizer.safetensors")) == []
    run(config)
    assert_same(tmp_path / "run", whole)


def test_a_run_folder_has_one_owner_who_is_named(tmp_path, models, dataset):
    config = train_cases.write_config(tmp_path, models, dataset, steps=400, checkpoint_steps=2)
    first = subprocess.Popen(command("train", config), env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    try:
        wait_for_step(tmp_path, 2, first)
        second = run(config, check=False)
        assert second.returncode == 2
        assert f"in use by process {first.pid} on " in one_sentence(second.stderr)
    finally:
        first.kill()
        first.wait()
