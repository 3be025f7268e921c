"""A proxy in front of a language-model server that fails some requests, and remembers who asked what."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

FAULTS = ("429", "500", "slow", "garbage", "cut body", "cut answer", "no choices", "reset")
"""Ways in which a request may fail; "" passes it on."""


class Reply(NamedTuple):
    """An HTTP answer."""

    content: bytes
    status: int = 200
    headers: Mapping[str, str] = {}
    more: int = 0
    """Bytes that are promised and never sent."""

    def send(self, handler: BaseHTTPRequestHandler) -> None:
        """Send it."""
        handler.send_response(self.status)
        for name, value in {"Content-Type": "application/json", **self.headers}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(self.content) + self.more))
        handler.end_headers()
        handler.wfile.write(self.content)


class FaultProxy:
    """Counts and fails requests; `url` is what clients ask.

    Args:
        upstream: address of the real server, with its version; empty where `answer` is given.
        faults: of the requests in turn, over and over.
        delay: seconds before each answer.
        answer: what an answer says, instead of asking the server.
        slow: seconds before a "slow" answer.
        moderates: which texts a moderation finds unsafe.
    """

    def __init__(
        self,
        upstream: str,
        faults: Sequence[str] = ("",),
        delay: float = 0.0,
        answer: str = "",
        slow: float = 5.0,
        moderates: Callable[[str], bool] = lambda _text: False,
    ) -> None:
        self.upstream, self.delay, self.answer, self.slow, self.moderates = upstream, delay, answer, slow, moderates
        self.fail_with(faults)
        self.lock = threading.Lock()
        self.asked, self.answered, self.faults = Counter[str](), Counter[str](), Counter[str]()
        self.headers: list[dict[str, str]] = []
        self.bodies: list[dict] = []
        self.num_now = self.most_at_once = 0
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                proxy.serve(self)

            def log_message(self, *_args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def fail_with(self, faults: Sequence[str]) -> None:
        """Fail requests in these ways from now on, in turn."""
        self._turns = list(faults)

    @contextmanager
    def running(self) -> Iterator[FaultProxy]:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        content = handler.rfile.read(int(handler.headers["Content-Length"]))
        body = json.loads(content)
        question = body.get("prompt") or json.dumps(body.get("messages") or body.get("input"))
        with self.lock:
            fault = self._turns[self.asked.total() % len(self._turns)]
            self.asked[question] += 1
            self.faults[fault] += 1
            self.headers.append(dict(handler.headers))
            self.bodies.append(body)
            self.num_now += 1
            self.most_at_once = max(self.most_at_once, self.num_now)
        try:
            time.sleep(self.delay)
            reply = self._reply(handler.path, content, fault)
        finally:
            with self.lock:
                self.num_now -= 1  # before it is sent: whoever has the answer may ask again at once
        try:
            if reply is None:
                handler.connection.close()
                return
            reply.send(handler)
        except (BrokenPipeError, ConnectionResetError):
            return  # the client was killed or lost its patience
        with self.lock:
            self.answered[question] += fault == "" and reply.status == 200

    def _reply(self, path: str, content: bytes, fault: str) -> Reply | None:
        """What to answer; None closes the connection."""
        if fault == "429":
            return Reply(b'{"error": "slow down"}', 429, {"Retry-After": "0.05"})
        if fault == "500":
            return Reply(b"oops", 500)
        if fault == "reset":
            return None
        if fault == "garbage":
            return Reply(b"<html>not JSON</html>")
        if fault == "no choices":
            return Reply(b'{"choices": []}')
        if fault == "cut body":
            return Reply(b'{"choices": [{"te', more=50)
        if fault == "refused":
            return Reply(b'{"error": "no such model"}', 404)
        if fault == "slow":
            time.sleep(self.slow)
        status, answer = self._real_answer(path, content)
        if fault == "cut answer":
            record = json.loads(answer)
            record["choices"][0].update(text="make the circ", finish_reason="length")
            record["choices"][0].pop("message", None)
            answer = json.dumps(record).encode()
        return Reply(answer, status)

    def _real_answer(self, path: str, content: bytes) -> tuple[int, bytes]:
        if path.endswith("/moderations"):
            verdicts = [{"flagged": self.moderates(text)} for text in json.loads(content)["input"]]
            return 200, json.dumps({"results": verdicts}).encode()
        if self.answer:
            record = {"choices": [{"message": {"content": self.answer}, "finish_reason": "stop"}]}
            return 200, json.dumps({**record, "usage": {"prompt_tokens": 9, "completion_tokens": 5}}).encode()
        address = f"{self.upstream.removesuffix('/v1')}{path}"
        request = urllib.request.Request(address, content, {"Content-Type": "application/json"})  # noqa: S310 - loopback
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310 - loopback
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
