"""`ip2p triplets` as a user runs it: by the grammar, killed and resumed, refusals, and on to `ip2p pairs`."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from ip2p.ip2p_core.triplet import read_triplets
from ip2p.tests.e2e.conftest import command, one_sentence
from ip2p.tests.e2e.language_models import run_triplets, shape_captions, write_captions
from ip2p.tests.forked import ENVIRONMENT, Limits, ip2p
from ip2p.trainer.triplets.check import STARTER

NUM_CAPTIONS = 600
MANY = 4000
WORDS = (
    "woman",
    "dog",
    "lighthouse",
    "red car",
    "bowl of soup",
    "castle",
    "old man",
    "sailboat",
    "rose",
    "guitar",
    "owl",
    "desk",
)
PLACES = ("on a beach", "in a forest", "at night", "in the rain", "near a lake", "in winter", "by a window", "in Paris")


def plain_captions(count: int) -> list[str]:
    """Different captions of ordinary pictures."""
    rng = random.Random(0)
    return [f"a {rng.choice(WORDS)} and a {rng.choice(WORDS)} {rng.choice(PLACES)}, picture {i}" for i in range(count)]


def make_settings(folder: Path, captions: list[str], **changes: object) -> dict:
    path = write_captions(folder / "captions.txt", captions)
    return {"captions": str(path), "output": str(folder / "run"), **changes}


def report_of(folder: Path) -> dict:
    return json.loads((folder / "run" / "report.json").read_text(encoding="utf-8"))


def results(folder: Path) -> tuple[str, str]:
    return tuple((folder / "run" / name).read_text(encoding="utf-8") for name in ("triplets.jsonl", "rejected.jsonl"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run without interruption."""
    folder = tmp_path_factory.mktemp("whole")
    done = run_triplets(make_settings(folder, plain_captions(MANY)), folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_captions_become_triplets_with_a_report_of_every_reason(tmp_path):
    captions = ["a naked man on a beach", "a cat " * 80, *shape_captions(NUM_CAPTIONS)]
    done = run_triplets(make_settings(tmp_path, captions, quotas={"add": 0.1}, max_per_instruction=5), tmp_path)
    assert done.returncode == 0, done.stderr
    report = report_of(tmp_path)
    assert report["captions"] == NUM_CAPTIONS + 2
    assert {"unsafe_caption", "too_many_words", "quota", "instruction_cap"} <= set(report["rejected"])
    content = read_triplets(tmp_path / "run" / "triplets.jsonl", "raise")
    assert len(content.triplets) == report["kept"] == sum(report["edit_types"].values())
    assert report["kept"] + sum(report["rejected"].values()) == NUM_CAPTIONS + 2
    assert report["edit_types"]["add"] <= max(2, 0.1 * report["kept"] + 1)
    first = json.loads((tmp_path / "run" / "triplets.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert {"edit_type", "tags", "seed", "source", "caption_id"} <= set(first)
    assert f"{report['kept']} triplets in" in done.stderr


def test_the_triplets_of_shapes_drive_the_making_of_pairs(tmp_path, pair_models):
    run_triplets(make_settings(tmp_path, shape_captions(3)), tmp_path)
    config = {
        "triplets": str(tmp_path / "run" / "triplets.jsonl"), "output": str(tmp_path / "pairs"), "models": str(pair_models),
        "generator": "generator_a", "scorer": "clip_a", "num_samples": 1, "width": 32, "height": 32, "steps": 2, "device": "cpu",
        "safety": "off", "preset": "custom", "image_threshold": -1, "caption_threshold": -1, "directional_threshold": -1,
    }  # fmt: skip
    (tmp_path / "pairs.json").write_text(json.dumps(config))
    done = ip2p("pairs", tmp_path / "pairs.json")
    assert done.returncode == 0, done.stderr
    assert "3 triplets" in done.stderr


def kill_when(settings: dict, folder: Path, share: float, number: int) -> None:
    """Start a run and send it a signal once its journal has this share of the captions."""
    path, journal = folder / "triplets_config.json", folder / "run" / "journal.jsonl"
    path.write_text(json.dumps(settings), encoding="utf-8")
    process = subprocess.Popen(command("triplets", path), env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < end:
        lines = journal.read_bytes().count(b"\n") if journal.exists() else 0
        if lines >= share * MANY:
            break
        time.sleep(0.002)
    process.send_signal(number)
    process.wait(60)


def check_kills(folder: Path, whole: Path, shares: list[float]) -> None:
    settings = make_settings(folder, plain_captions(MANY))
    for share in shares:
        kill_when(settings, folder, share, signal.SIGKILL)
    done = run_triplets(settings, folder)
    assert done.returncode == 0, done.stderr
    assert results(folder) == results(whole)
    keys = [json.loads(line)["caption_id"] for line in (folder / "run" / "journal.jsonl").read_bytes().splitlines()]
    assert len(keys) == len(set(keys)) == MANY, "a caption was asked twice"
    assert not list((folder / "run").glob(".*.part"))


def test_after_three_kills_the_triplets_are_those_of_an_uninterrupted_run(tmp_path, whole):
    check_kills(tmp_path, whole, [0.02, 0.4, 0.8])


@pytest.mark.soak
@pytest.mark.parametrize("kill", range(20))
def test_after_a_kill_at_any_moment_the_triplets_are_the_same(tmp_path, whole, kill):
    check_kills(tmp_path, whole, [random.Random(kill).random() * 0.95])


@pytest.mark.parametrize("kill_at", [1, 2, 3])
def test_a_kill_while_results_are_written_leaves_whole_files(tmp_path, whole, kill_at):
    settings = make_settings(tmp_path, plain_captions(MANY))
    (tmp_path / "triplets_config.json").write_text(json.dumps(settings))
    killed = ip2p("triplets", tmp_path / "triplets_config.json", limits=Limits(kill_at + 3, {"os.rename"}))
    assert killed.returncode == -signal.SIGKILL
    assert run_triplets(settings, tmp_path).returncode == 0
    assert results(tmp_path) == results(whole)
    assert not list((tmp_path / "run").glob(".*.part"))


def test_ctrl_c_ends_the_run_with_what_is_there_and_the_next_goes_on(tmp_path, whole):
    settings = make_settings(tmp_path, plain_captions(MANY))
    path, journal = tmp_path / "triplets_config.json", tmp_path / "run" / "journal.jsonl"
    path.write_text(json.dumps(settings), encoding="utf-8")
    process = subprocess.Popen(
        command("triplets", path), env=ENVIRONMENT, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    while not journal.exists() and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "left" in told
    assert (tmp_path / "run" / "triplets.jsonl").exists()
    assert report_of(tmp_path)["not_asked_yet"] > 0
    assert run_triplets(settings, tmp_path).returncode == 0
    assert results(tmp_path) == results(whole)


def test_more_captions_and_other_filters_need_no_new_answers(tmp_path):
    run_triplets(make_settings(tmp_path, shape_captions(50)), tmp_path)
    done = run_triplets(make_settings(tmp_path, shape_captions(80), max_changed=0.2), tmp_path)
    assert "30 asked" in done.stderr
    assert "50 known before" in done.stderr
    assert report_of(tmp_path)["rejected"]["changed_share"] > 0


@pytest.mark.parametrize(
    ("output_format", "names"), [("human", "input edit output"), ("generated", "caption edit output")]
)
def test_the_published_formats_are_written_and_read_back(tmp_path, output_format, names):
    run_triplets(make_settings(tmp_path, shape_captions(5), output_format=output_format), tmp_path)
    line = json.loads((tmp_path / "run" / "triplets.jsonl").read_text().splitlines()[0])
    assert list(line) == names.split()
    assert len(read_triplets(tmp_path / "run" / "triplets.jsonl", "raise").triplets) == 5


def test_a_dry_run_estimates_and_writes_nothing(tmp_path):
    settings = make_settings(
        tmp_path,
        shape_captions(100),
        backend="server",
        model="m",
        base_url="http://127.0.0.1:9",
        price_in=1.0,
        price_out=2.0,
    )
    done = run_triplets(settings, tmp_path, "--dry-run")
    assert done.returncode == 0
    assert "100 questions to m" in done.stderr
    assert "million tokens of questions" in done.stderr
    assert "at the given prices" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"capttions": "x"}, "no setting 'capttions'"),
        ({"captions": "missing.txt"}, "cannot be read"),
        ({"backend": "server", "model": "m", "base_url": ""}, "must begin with http"),
        ({"backend": "transformers", "model": "no_such_folder"}, "no_such_folder"),
        ({"seed": 5}, "seed was 0, is 5"),
        ({"engine": "ray"}, "Choose 'local'"),
        ({"edit_types": ["sing"]}, "no edit type 'sing'"),
        ({"moderation": "nonsense"}, "module:function"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, changes, words):
    settings = make_settings(tmp_path, shape_captions(2))
    if "seed" in changes:
        run_triplets(settings, tmp_path)
    environment = {"OPENAI_BASE_URL": ""}
    done = run_triplets({**settings, **changes}, tmp_path, **environment)
    assert done.returncode == 2, done.stderr
    assert words in one_sentence(done.stderr.splitlines()[-1])


def test_a_full_disk_is_one_sentence_and_the_next_run_goes_on(tmp_path):
    """A limit on the size of files stands for the end of the disk: the system reports both in the same way."""
    settings = make_settings(tmp_path, shape_captions(200))
    path = tmp_path / "triplets_config.json"
    path.write_text(json.dumps(settings), encoding="utf-8")
    done = ip2p("triplets", path, limits=Limits(file_bytes=20_000))
    assert done.returncode == 2, done.stderr
    assert "no space left" in done.stderr
    assert run_triplets(settings, tmp_path).returncode == 0
    report = report_of(tmp_path)
    assert report["kept"] + sum(report["rejected"].values()) == 200


def test_a_set_of_triplets_is_checked_for_users(tmp_path):
    done = ip2p("triplets", "--check", STARTER)
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith("700 triplets")
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"input": "a cat", "edit": "zoom in", "output": "a large cat"}\n{broken\n')
    done = ip2p("triplets", "--check", bad)
    assert done.returncode == 1
    assert "camera" in done.stdout
    assert "line 2" in done.stdout
