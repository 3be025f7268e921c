"""A process that dies, or a disk that is full, at any point of writing."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ip2p.ip2p_core.errors import PairStoreError
from ip2p.ip2p_core.pair_store import PairStore, PairWriter
from ip2p.ip2p_core.pair_store.validation import validate
from ip2p.tests.unit.pair_store_samples import CONFIG, NO_LIMITS, NUM_PROMPTS, add_all, add_prompt, content, unit

# the interpreter reports each of these before it happens: a file gets its permissions once its content is written, and
# its name at the end; a run makes one manifest, then three times a shard, a ledger and a manifest
KILLED_AT = """
import os, signal, sys
from pathlib import Path
event, countdown = sys.argv[2], int(sys.argv[3])
def hook(name, arguments):
    global countdown
    if name == event:
        countdown -= 1
        if countdown == 0:
            os.kill(os.getpid(), signal.SIGKILL)
from ip2p.tests.unit.pair_store_samples import add_all
sys.addaudithook(hook)
add_all(Path(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "pairs"
    add_all(folder)
    return content(folder)


@pytest.mark.parametrize(("event", "count"), [("os.rename", 1), ("os.rename", 3), ("os.rename", 7), ("os.chmod", 5)])
def test_after_a_kill_the_dataset_opens_and_goes_on_to_the_same_content(tmp_path, uninterrupted, event, count):
    folder = tmp_path / "pairs"
    run = subprocess.run([sys.executable, "-c", KILLED_AT, folder, event, str(count)], check=False)
    assert run.returncode == -signal.SIGKILL
    if count > 1:
        assert len(PairStore(folder)) == 4 * (count // 5)
        assert validate(folder).faults == []
    add_all(folder)
    assert content(folder) == uninterrupted
    assert list(folder.rglob("*.part")) == []
    assert validate(folder).left_overs == []


@pytest.mark.soak
@pytest.mark.parametrize("event", ["os.rename", "os.chmod"])
@pytest.mark.parametrize("count", range(1, 11))
def test_after_a_kill_at_any_file_the_content_is_the_same(tmp_path, uninterrupted, event, count):
    folder = tmp_path / "pairs"
    run = subprocess.run([sys.executable, "-c", KILLED_AT, folder, event, str(count)], check=False)
    assert run.returncode == -signal.SIGKILL
    add_all(folder)
    assert content(folder) == uninterrupted


def test_a_dead_process_does_not_keep_the_lock(tmp_path):
    folder = tmp_path / "pairs"
    subprocess.run([sys.executable, "-c", KILLED_AT, folder, "os.rename", "3"], check=False)
    with PairWriter(folder, CONFIG, NO_LIMITS) as writer:
        assert not writer.is_done(unit(0))


def test_a_full_disk_stops_with_one_sentence_and_the_run_goes_on_later(tmp_path, uninterrupted):
    folder = tmp_path / "pairs"
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from ip2p.ip2p_core.errors import PairStoreError\n"
        "from ip2p.tests.unit import pair_store_samples as samples\n"
        "from ip2p.ip2p_core.pair_store import PairWriter\n"
        "with PairWriter(Path(sys.argv[1]), samples.CONFIG, samples.NO_LIMITS) as writer:\n"
        "    samples.add_prompt(writer, 0)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
        "try: samples.add_all(Path(sys.argv[1]))\n"
        "except PairStoreError as error: print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("There is no space left to write ")
    assert run.stdout.count("\n") == 1
    assert len(PairStore(folder)) == 2
    assert list(folder.rglob("*.part")) == []
    add_all(folder)
    assert content(folder) == uninterrupted


def test_saving_that_failed_can_be_tried_again(tmp_path):
    folder = tmp_path / "pairs"
    with PairWriter(folder, CONFIG, NO_LIMITS) as writer:
        add_prompt(writer, 0)
        (folder / "ledger").write_text("in the way")
        with pytest.raises(PairStoreError, match="cannot be written"):
            writer.save()
        (folder / "ledger").unlink()
    assert len(PairStore(folder)) == 2


def make_one_and_interrupt(folder):
    with PairWriter(folder, CONFIG, NO_LIMITS) as writer:
        add_prompt(writer, 0)
        raise KeyboardInterrupt


def test_an_interrupt_keeps_the_finished_units(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        make_one_and_interrupt(tmp_path / "pairs")
    assert len(PairStore(tmp_path / "pairs")) == 2


def test_the_limits_of_shards_do_not_change_the_content(tmp_path, uninterrupted):
    add_all(tmp_path / "one", NO_LIMITS)
    assert len(PairStore(tmp_path / "one").manifest.shards) == 1
    assert content(tmp_path / "one") == uninterrupted


def test_files_of_others_in_the_folders_are_not_removed(tmp_path):
    folder = tmp_path / "pairs"
    add_all(folder)
    mine: Path = folder / "shards" / "mine.parquet"
    mine.write_text("x")
    with PairWriter(folder, CONFIG):
        pass
    assert mine.exists()
    assert len(PairStore(folder)) == 2 * (NUM_PROMPTS - 1)
