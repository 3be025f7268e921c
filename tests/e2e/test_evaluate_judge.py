"""A vision model as judge: a real HTTP server that looks at both pictures, behind the client that retries."""

from __future__ import annotations

import base64
import io
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy
import pytest
from PIL import Image

from ip2p.tests.e2e.conftest import one_sentence
from ip2p.tests.e2e.eval_cases import NUM_EXAMPLES, SYSTEMS, make_config, rows
from ip2p.trainer.__main__ import main
from ip2p.trainer.evaluation.vision_judge import parse_marks


def difference(body: dict) -> float:
    """Mean absolute difference of the two pictures of a question."""
    urls = [part["image_url"]["url"] for part in body["messages"][0]["content"] if part["type"] == "image_url"]
    pictures = [Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB") for url in urls]
    one, other = (numpy.asarray(picture, float) for picture in pictures)
    return float(numpy.abs(one - other).mean() / 255)


@pytest.fixture
def server():
    """Answers with a mark that follows from the pictures; every third answer is no use, every fifth a 503."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                asked.append((body, self.headers["Authorization"]))
                number = len(asked)
            text = "I would rather not say."
            if number % 3:
                text = f'Well: {{"edit": 5, "keep": {10 - 10 * difference(body)}, "quality": 7}}.'
            content = json.dumps({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}).encode()
            self.send_response(503 if number % 5 == 0 else 200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_args):
            pass

    asked, lock = [], threading.Lock()
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}/v1", asked
    http.shutdown()
    http.server_close()


def test_marks_belong_to_their_edits_and_are_asked_for_once(tmp_path, eval_models, server, monkeypatch):
    url, asked = server
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    config = make_config(tmp_path, eval_models, systems=[SYSTEMS[0], SYSTEMS[2]], judge="eye", base_url=url)
    assert main(["evaluate", str(config)]) == 0
    found = rows(tmp_path)
    assert len(found) == 5 * NUM_EXAMPLES
    for row in found:
        assert float(row["judge_keep"]) == pytest.approx(10 - 10 * float(row["l1"]), abs=1e-4)
        assert row["judge_edit"] == "5.0"
    questions = {part["text"] for body, _ in asked for part in body["messages"][0]["content"] if part["type"] == "text"}
    assert {re.search('"(make thing . blue)"', one).group(1) for one in questions} == {
        row["instruction"] for row in found
    }
    assert {key for _, key in asked} == {"Bearer sk-secret"}
    assert not any(b"sk-secret" in path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())
    number = len(asked)
    assert main(["evaluate", str(config)]) == 0
    assert len(asked) == number


def test_a_judge_that_is_not_there_is_one_sentence(tmp_path, eval_models, capsys, monkeypatch):
    monkeypatch.setattr("ip2p.ip2p_core.instruction_writer.client._LONGEST_PAUSE", 0.01)
    config = make_config(tmp_path, eval_models, systems=SYSTEMS[2:], judge="eye", base_url="http://127.0.0.1:9/v1")
    assert main(["evaluate", str(config)]) == 2
    assert "gave no answer of use" in one_sentence(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ('{"edit": 7, "keep": 9.5, "quality": 0}', {"edit": 7.0, "keep": 9.5, "quality": 0.0}),
        (
            '```json\n{"edit": "3", "keep": 4, "quality": 5, "why": "x"}\n```',
            {"edit": 3.0, "keep": 4.0, "quality": 5.0},
        ),
        ('{"edit": 11, "keep": 9, "quality": 8}', None),
        ('{"edit": 1, "keep": 9}', None),
        ("seven", None),
    ],
)
def test_marks_are_read_out_of_answers(text, marks):
    assert parse_marks(text) == marks
