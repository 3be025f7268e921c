"""`ip2p pairs` with several processes, on Ray, on a full disk and on damaged files: always the same dataset."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from ip2p.ip2p_core.pair_store import PairStore
from ip2p.ip2p_core.pair_store.validation import validate
from ip2p.tests.e2e.conftest import command, one_sentence
from ip2p.tests.e2e.pair_cases import NUM_SAMPLES, assert_same_pictures, ledger, make_config
from ip2p.tests.forked import ENVIRONMENT, Limits, ip2p
from ip2p.trainer.__main__ import main

SLOW = {"num_samples": 12, "steps": 16}
ENOUGH_SECONDS = 900


def processes_named(part: str) -> list[int]:
    """Ids of running processes whose command line begins so."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().replace(b"\0", b" ").decode().startswith(part):
                found.append(int(path.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def wait_for(condition, run: subprocess.Popen) -> None:
    """Wait until something holds while a run goes on."""
    until = time.monotonic() + ENOUGH_SECONDS
    while not condition():
        assert run.poll() is None, "the run ended before it could be disturbed"
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, pair_models):
    """The dataset of one process, without any disturbance."""
    folder = tmp_path_factory.mktemp("whole")
    assert main(["pairs", str(make_config(folder, pair_models))]) == 0
    return folder / "pairs"


@pytest.fixture(scope="module")
def whole_slow(tmp_path_factory, pair_models):
    """The same with more work, for runs that are disturbed in the middle."""
    folder = tmp_path_factory.mktemp("whole_slow")
    assert main(["pairs", str(make_config(folder, pair_models, **SLOW))]) == 0
    return folder / "pairs"


def keys(dataset: Path) -> list:
    return [record.key for record in PairStore(dataset).records()]


def assert_same(dataset: Path, expected: Path) -> None:
    assert ledger(dataset) == ledger(expected)
    assert_same_pictures(dataset, expected)
    assert validate(dataset).faults == []
    assert list((dataset.parent / "pairs.run" / "spool").iterdir()) == []


@pytest.mark.parametrize("num_workers", [2, pytest.param(4, marks=pytest.mark.soak)])
def test_several_processes_make_what_one_makes(tmp_path, pair_models, whole, num_workers):
    config = make_config(tmp_path, pair_models)
    assert main(["pairs", str(config), "--workers", str(num_workers)]) == 0
    assert_same(tmp_path / "pairs", whole)
    assert keys(tmp_path / "pairs") == keys(whole), "the order depends on the workers"


def test_several_processes_stop_full_prompts_as_one_does(tmp_path, pair_models):
    changes = {"stop_when_full": True, "num_samples": 8}
    for name, workers in (("one", 1), ("two", 2)):
        (tmp_path / name).mkdir()
        main(["pairs", str(make_config(tmp_path / name, pair_models, workers=workers, **changes))])
    assert_same(tmp_path / "two" / "pairs", tmp_path / "one" / "pairs")


def test_a_killed_worker_is_named_and_the_next_run_goes_on(tmp_path, pair_models, whole_slow):
    config, spool = make_config(tmp_path, pair_models, **SLOW), tmp_path / "pairs.run" / "spool"
    call = command("pairs", config, "--workers", 2)
    with subprocess.Popen(call, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT) as run:
        wait_for(lambda: spool.is_dir() and any(spool.glob("*.ledger.parquet")), run)
        workers = [one for child in psutil.Process(run.pid).children() for one in child.children()]
        assert len(workers) == 2, "they are forked by a server"
        workers[0].kill()
        _, message = run.communicate(timeout=ENOUGH_SECONDS)
    assert run.returncode == 2
    assert "A worker was killed by signal 9" in one_sentence(message)
    assert main(["pairs", str(config), "--workers", "2"]) == 0
    assert_same(tmp_path / "pairs", whole_slow)


def test_a_workers_mistake_is_one_sentence(tmp_path, pair_models):
    config = make_config(tmp_path, pair_models, generator="editor_a")
    run = subprocess.run(
        command("pairs", config, "--workers", 2), capture_output=True, text=True, check=False, env=ENVIRONMENT
    )
    assert run.returncode == 2
    assert "8 input channels; that is an editor" in one_sentence(run.stderr)


def test_ray_with_a_killed_worker_makes_what_one_process_makes(tmp_path, pair_models, whole_slow):
    config, spool = make_config(tmp_path, pair_models, **SLOW), tmp_path / "pairs.run" / "spool"
    call = command("pairs", config, "--engine", "ray", "--workers", 2)
    with subprocess.Popen(call, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT) as run:
        wait_for(lambda: spool.is_dir() and any(spool.glob("*.ledger.parquet")), run)
        workers = processes_named("ray::MapWorker")
        assert workers
        os.kill(workers[0], signal.SIGKILL)
        (spool / ".killed.pairs.1.part").write_bytes(b"half a file")  # what a worker leaves that is killed as it writes
        _, message = run.communicate(timeout=ENOUGH_SECONDS)
    assert run.returncode == 0, message
    assert_same(tmp_path / "pairs", whole_slow)


def test_a_damaged_shard_is_named_and_only_its_pairs_are_made_again(tmp_path, pair_models, whole, capsys):
    config = make_config(tmp_path, pair_models, save_seconds=0)
    main(["pairs", str(config)])
    shards = sorted((tmp_path / "pairs" / "shards").glob("*.parquet"))
    assert len(shards) == len(PairStore(tmp_path / "pairs").manifest.shards) > 1
    damaged = bytearray(shards[0].read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    shards[0].write_bytes(damaged)
    assert main(["dataset", "validate", str(tmp_path / "pairs"), "--drop"]) == 0
    assert shards[0].name in capsys.readouterr().out
    main(["pairs", str(config)])
    assert f"3 of 3 prompts done, {NUM_SAMPLES} pairs sampled" in capsys.readouterr().err
    assert ledger(tmp_path / "pairs") == ledger(whole)
    assert_same_pictures(tmp_path / "pairs", whole)


def test_damaged_units_that_wait_for_their_prompt_are_made_again(tmp_path, pair_models, whole_slow):
    config, spool = make_config(tmp_path, pair_models, **SLOW), tmp_path / "pairs.run" / "spool"
    with subprocess.Popen(command("pairs", config), stderr=subprocess.DEVNULL, env=ENVIRONMENT) as run:
        wait_for(lambda: spool.is_dir() and len(list(spool.glob("*.ledger.parquet"))) > 1, run)
        run.kill()
    first, second = sorted(spool.glob("*.pairs.parquet"))[:2]
    first.write_bytes(first.read_bytes()[:100])
    content = bytearray(second.read_bytes())
    content[len(content) // 3] ^= 0xFF
    second.write_bytes(content)
    assert main(["pairs", str(config)]) == 0
    assert_same(tmp_path / "pairs", whole_slow)


def test_a_full_disk_stops_with_one_sentence_and_the_next_run_goes_on(tmp_path, pair_models, whole):
    config = make_config(tmp_path, pair_models)
    run = ip2p("pairs", config, limits=Limits(file_bytes=9000))
    assert run.returncode == 2
    assert "There is no space left to write " in one_sentence(run.stderr)
    assert list(tmp_path.rglob("*.part")) == []
    assert main(["pairs", str(config)]) == 0
    assert_same(tmp_path / "pairs", whole)
