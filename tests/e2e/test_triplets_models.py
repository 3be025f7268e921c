"""`ip2p triplets` with language models: fine-tuning, in-process, behind a server that fails, and on a cluster."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from ip2p.tests import fault_proxy
from ip2p.tests.e2e.conftest import command
from ip2p.tests.e2e.language_models import (
    CHAT_QUESTION,
    finetune,
    grammar_triplets,
    language_server,
    new_language_model,
    run_triplets,
    shape_captions,
    write_captions,
)
from ip2p.tests.fault_proxy import FaultProxy
from ip2p.tests.forked import ENVIRONMENT

KEY = "sk-not-to-be-seen-1234567890"
UNSEEN = 1_000_000
"""Captions from this number on were not trained on."""


@pytest.fixture(scope="module")
def language_model(tmp_path_factory) -> Path:
    """A tiny Llama, fine-tuned from random weights for a minute."""
    folder = tmp_path_factory.mktemp("language")
    base = new_language_model(folder / "base")
    done = finetune(base, grammar_triplets(folder / "triplets.jsonl", 6000), folder / "tuned", num_answers=32)
    assert done.returncode == 0, done.stderr
    return folder / "tuned"


@pytest.fixture(scope="module")
def server(language_model, tmp_path_factory):
    with language_server(language_model, tmp_path_factory.mktemp("server")) as url:
        yield url


def make_settings(folder: Path, model: Path | str, num_captions: int = 12, **changes: object) -> dict:
    captions = write_captions(folder / "captions.txt", shape_captions(num_captions, UNSEEN))
    return {
        "captions": str(captions), "output": str(folder / "run"), "model": str(model), "backend": "transformers",
        "style": "completion", "max_tokens": 60, "device": "cpu", "num_tries": 8, **changes,
    }  # fmt: skip


def asked(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "run" / "journal.jsonl").read_text(encoding="utf-8").splitlines()]


def report_of(folder: Path) -> dict:
    return json.loads((folder / "run" / "report.json").read_text(encoding="utf-8"))


def test_fine_tuning_lowers_the_held_out_loss_and_reports_its_answers(language_model):
    report = json.loads((language_model / "finetune_report.json").read_text(encoding="utf-8"))
    assert report["held_out_loss"]["after"] < 0.5 * report["held_out_loss"]["before"]
    assert report["valid"] >= 0.6  # a minute of training; the long test asks for .95
    assert {"identity", "novel", "edit_types", "answers"} <= set(report)


@pytest.mark.soak
def test_a_model_of_random_weights_learns_valid_triplets_from_ten_thousand(tmp_path):
    base = new_language_model(tmp_path / "base", width=128)
    triplets = grammar_triplets(tmp_path / "triplets.jsonl", 12_000)
    done = finetune(base, triplets, tmp_path / "tuned", epochs=4, num_answers=200, held_out=0.03)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "tuned" / "finetune_report.json").read_text(encoding="utf-8"))
    done = run_triplets(make_settings(tmp_path, tmp_path / "tuned", 200, num_tries=4), tmp_path)
    assert done.returncode == 0, done.stderr
    num_valid = sum(not entry.get("fault") for entry in asked(tmp_path))
    sys.stdout.write(
        f"valid at once: {report['valid']:.3f}; with up to four tries, as by default: {num_valid / 200:.3f}\n"
    )
    assert num_valid >= 0.95 * 200


def test_a_lora_learns_from_the_starter_set_and_drives_a_run(language_model, tmp_path):
    done = finetune(
        language_model,
        "starter",
        tmp_path / "lora",
        lora_rank=8,
        batch_size=8,
        max_length=256,
        num_answers=4,
        held_out=0.1,
    )
    assert done.returncode == 0, done.stderr
    losses = json.loads((tmp_path / "lora" / "finetune_report.json").read_text(encoding="utf-8"))["held_out_loss"]
    assert losses["after"] < losses["before"]
    settings = make_settings(tmp_path, language_model, 3, adapter=str(tmp_path / "lora"), num_tries=1)
    assert run_triplets(settings, tmp_path).returncode == 0
    assert len(asked(tmp_path)) == 3


def test_the_answers_of_a_model_in_this_process_do_not_depend_on_the_batch(language_model, tmp_path):
    found = {}
    for batch_size in (1, 5):
        folder = tmp_path / str(batch_size)
        folder.mkdir()
        done = run_triplets(make_settings(folder, language_model, batch_size=batch_size), folder)
        assert done.returncode == 0, done.stderr
        found[batch_size] = (folder / "run" / "triplets.jsonl").read_text(encoding="utf-8")
    assert found[1] == found[5]
    assert found[1].count("\n") >= 9


def test_through_all_faults_of_a_server_every_caption_gets_its_answer(server, language_model, tmp_path):
    faults = [*fault_proxy.FAULTS, *[""] * 8]
    with FaultProxy(server, faults).running() as proxy:
        settings = make_settings(
            tmp_path,
            language_model,
            16,
            backend="server",
            base_url=proxy.url,
            concurrency=4,
            timeout=4.0,
            retries=12,
            pause=0.02,
        )
        done = run_triplets(settings, tmp_path, OPENAI_API_KEY=KEY)
    assert done.returncode == 0, done.stderr
    assert set(proxy.faults) == set(faults)
    entries = asked(tmp_path)
    assert len({entry["caption_id"] for entry in entries}) == len(entries) == 16
    assert report_of(tmp_path)["kept"] >= 12
    assert all(headers["Authorization"] == f"Bearer {KEY}" for headers in proxy.headers)
    written = [path.read_text(encoding="utf-8") for path in (tmp_path / "run").iterdir() if path.is_file()]
    assert not any(KEY in text for text in [*written, done.stderr, done.stdout])


def test_a_chat_server_is_asked_for_json_by_the_template(server, language_model, tmp_path):
    with FaultProxy(server).running() as proxy:
        settings = make_settings(
            tmp_path, language_model, 4, backend="server", base_url=proxy.url, style="chat", template=CHAT_QUESTION
        )
        done = run_triplets(settings, tmp_path)
    assert done.returncode == 0, done.stderr
    assert proxy.bodies[0]["response_format"]["type"] == "json_schema"
    report = report_of(tmp_path)
    assert report["kept"] >= 3, report


def test_sixty_four_requests_go_out_at_once(tmp_path):
    answer = '{"instruction": "make it night", "edited_caption": "a night"}'
    with FaultProxy("", delay=2.0, answer=answer).running() as proxy:
        settings = make_settings(
            tmp_path, "m", 200, backend="server", base_url=proxy.url, style="chat", concurrency=64, max_changed=1.0
        )
        done = run_triplets(settings, tmp_path)
    assert done.returncode == 0, done.stderr
    assert 48 <= proxy.most_at_once <= 64  # a busy machine takes a while to start so many threads
    assert report_of(tmp_path)["completion_tokens"] == 5 * 200


def test_a_picture_goes_along_with_its_question_and_may_have_no_caption(tmp_path):
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "pictures" / "a.png")
    answer = '{"caption": "a red square", "instruction": "make it blue", "edited_caption": "a blue square"}'
    with FaultProxy("", answer=answer).running() as proxy:
        settings = make_settings(tmp_path, "m", backend="server", base_url=proxy.url, style="chat", see_pictures=True)
        done = run_triplets({**settings, "captions": str(tmp_path / "pictures")}, tmp_path)
    assert done.returncode == 0, done.stderr
    content = proxy.bodies[0]["messages"][0]["content"]
    assert content[1]["image_url"]["url"].startswith("data:image/png;base64,")
    assert "caption" in proxy.bodies[0]["response_format"]["json_schema"]["schema"]["properties"]
    assert json.loads((tmp_path / "run" / "triplets.jsonl").read_text())["caption"] == "a red square"


def test_a_server_that_refuses_ends_the_run_with_its_reason(tmp_path):
    with FaultProxy("", ["refused"], answer="{}").running() as proxy:
        settings = make_settings(tmp_path, "m", 200, backend="server", base_url=proxy.url)
        done = run_triplets(settings, tmp_path)
    assert done.returncode == 2
    assert "no such model" in done.stderr.splitlines()[-1]
    assert proxy.asked.total() < 100


def test_a_question_that_fails_in_all_tries_is_told_and_asked_by_the_next_run(tmp_path):
    answer = '{"instruction": "make it night", "edited_caption": "a night"}'
    with FaultProxy("", ["500", "500", "", ""], answer=answer).running() as proxy:
        settings = make_settings(
            tmp_path,
            "m",
            4,
            backend="server",
            base_url=proxy.url,
            style="chat",
            concurrency=1,
            retries=1,
            pause=0.01,
            max_changed=1.0,
        )
        first = run_triplets(settings, tmp_path)
        proxy.fail_with([""])
        second = run_triplets(settings, tmp_path)
    assert first.returncode == 1
    assert "got no answer; run it again" in first.stderr
    assert "HTTP 500" in first.stderr
    assert second.returncode == 0
    assert len({entry["caption_id"] for entry in asked(tmp_path)}) == len(asked(tmp_path)) == 4


def test_the_servers_moderation_judges_captions_and_answers(tmp_path):
    with FaultProxy("", moderates=lambda text: "blue" in text).running() as proxy:
        proxy.answer = '{"instruction": "make it night", "edited_caption": "a night"}'
        settings = make_settings(
            tmp_path, "m", 12, backend="server", base_url=proxy.url, style="chat", moderation="server", max_changed=1.0
        )
        done = run_triplets(settings, tmp_path)
    assert done.returncode == 0, done.stderr
    num_blue = sum("blue" in caption for caption in shape_captions(12, UNSEEN))
    assert num_blue > 0
    assert report_of(tmp_path)["rejected"]["unsafe_caption"] == num_blue


def stop_server_run(proxy: FaultProxy, settings: dict, folder: Path, num_answers: int, number: int) -> None:
    path = folder / "triplets_config.json"
    path.write_text(json.dumps(settings), encoding="utf-8")
    process = subprocess.Popen(
        command("triplets", path), env=ENVIRONMENT, stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    end = time.monotonic() + 120
    while proxy.answered.total() < num_answers and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    process.send_signal(number)
    process.wait(60)


def check_stops(folder: Path, stops: list[int], number: int, num_captions: int = 120) -> None:
    """After any stop every caption has one answer, and none was asked again whose answer had arrived."""
    answer = '{"instruction": "make it night", "edited_caption": "a night"}'
    with FaultProxy("", delay=0.05, answer=answer).running() as proxy:
        settings = make_settings(
            folder,
            "m",
            num_captions,
            backend="server",
            base_url=proxy.url,
            style="chat",
            concurrency=4,
            max_changed=1.0,
        )
        for num_answers in stops:
            stop_server_run(proxy, settings, folder, num_answers, number)
        done = run_triplets(settings, folder)
    assert done.returncode == 0, done.stderr
    ids = [entry["caption_id"] for entry in asked(folder)]
    assert len(set(ids)) == len(ids) == num_captions
    again = proxy.asked.total() - num_captions
    under_way = 0 if number == signal.SIGINT else 4 * len(stops)
    assert again <= under_way, f"{again} were asked again; at most {under_way} were under way"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_stops_lose_nothing_and_ask_no_answered_caption_again(tmp_path, number):
    check_stops(tmp_path, [3, 40, 80], number)


@pytest.mark.soak
@pytest.mark.parametrize("kill", range(20))
def test_a_kill_at_any_moment_asks_no_answered_caption_again(tmp_path, kill):
    check_stops(tmp_path, [5 * kill + 1], signal.SIGKILL)


@pytest.mark.soak
def test_a_cluster_gives_the_answers_of_this_machine(server, language_model, tmp_path):
    found = {}
    for engine in ("local", "ray"):
        folder = tmp_path / engine
        folder.mkdir()
        settings = make_settings(
            folder, language_model, 6, backend="server", base_url=server, temperature=0.0, num_tries=1
        )
        done = run_triplets(settings, folder, "--engine", engine)
        assert done.returncode == 0, done.stderr[-3000:]
        found[engine] = (folder / "run" / "triplets.jsonl").read_text(encoding="utf-8")
    assert found["local"] == found["ray"]
    assert found["ray"]
