"""Stages of `ip2p proof` that are begun beside the others: the same files, ended with the command, done again if they fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import psutil
import pytest

from ip2p.ip2p_core.errors import Ip2pError
from ip2p.trainer.proof.beside import text2live_beside, train_judge_beside
from ip2p.trainer.proof.config import read_proof_config
from ip2p.trainer.proof.processes import begun
from ip2p.trainer.proof.stages import JUDGE, Run, judge_path, judge_stage
from ip2p.trainer.proof.trials import text2live_stage

LONG = """
import sys, time
from ip2p.trainer.proof.beside import train_judge_beside
from ip2p.trainer.proof.config import read_proof_config
from ip2p.trainer.proof.processes import begun
with begun([train_judge_beside], read_proof_config(None, ["preset=smoke", "judge_seconds=600", "output=" + sys.argv[1]])):
    time.sleep(600)
"""


def config_of(folder):
    return read_proof_config(None, ["preset=smoke", f"output={folder}"])


def fails(config):
    raise Ip2pError(f"no luck in {config.output}")


def test_stages_begun_beside_others_leave_what_the_chain_goes_on_with(tmp_path):
    run = Run(config_of(tmp_path), print)
    with begun([train_judge_beside, text2live_beside], run.config) as wait_for:
        wait_for(train_judge_beside)
        assert run.is_done(JUDGE)
        wait_for(text2live_beside)
        pictures = list((tmp_path / "evaluations" / "text2live" / "pictures").rglob("*.png"))
    assert len(pictures) == run.config.num_text2live == 1
    before = {path: path.stat().st_mtime_ns for path in [judge_path(run), *pictures]}
    found = run.stage(JUDGE, lambda: pytest.fail("the judge was trained twice"))
    assert found["number"] >= 0
    assert found == json.loads((tmp_path / "stages" / "judge.json").read_text(encoding="utf-8"))
    assert [one.system for one in text2live_stage(run)] == ["Text2LIVE"]
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_whoever_waits_for_a_work_that_failed_goes_on_and_may_do_it_again(tmp_path):
    with begun([fails], config_of(tmp_path)) as wait_for:
        wait_for(fails)
        wait_for(train_judge_beside)  # never begun
    run = Run(config_of(tmp_path), print)
    assert not run.is_done(JUDGE)
    assert run.stage(JUDGE, lambda: judge_stage(run))["number"] >= 0
    assert judge_path(run).exists()


def test_works_end_with_the_command_that_began_them(tmp_path):
    with subprocess.Popen([sys.executable, "-c", LONG, str(tmp_path)], env=os.environ) as process:
        state = tmp_path / "judge.state.pt"
        until = time.monotonic() + 240
        while not state.exists():
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.2)
        works = psutil.Process(process.pid).children(recursive=True)
        assert len(works) > 1
        process.terminate()
        assert process.wait(60) == 128 + 15
    _, alive = psutil.wait_procs(works, 30)
    assert not alive
    assert not (tmp_path / "stages" / "judge.json").exists()
