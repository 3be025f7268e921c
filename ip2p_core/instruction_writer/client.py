"""A client of OpenAI-compatible servers (vLLM, SGLang, llama.cpp, Ollama, hosted ones), on the standard library.

It asks, waits and asks again: what a server or a network may do wrong is retried with growing pauses, what the user has to
mend is one sentence. The key comes from the environment and appears in no message.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from ..errors import ConfigError, ServerError
from ..randomness import hash64
from .prompts import TEXT_END, answer_schema

URL_VARIABLE, KEY_VARIABLE = "OPENAI_BASE_URL", "OPENAI_API_KEY"
_RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_LONGEST_PAUSE = 60.0
_Answer = TypeVar("_Answer")
_SHOWN = 300
"""Characters of a server's answer that a message repeats."""


class Reply(NamedTuple):
    """What a server answered."""

    text: str
    is_cut: bool
    """The answer reached max_tokens."""
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """How a server is asked.

    Attributes:
        base_url: up to and including the version, as http://127.0.0.1:8000/v1.
        model: as the server names it.
        api_key: empty for none; it is never shown.
        style: "chat", or "completion" for base models in the published format.
        structured: ask for answers of the JSON schema; a server that refuses the field is asked without.
        temperature: of sampling.
        top_p: of sampling.
        frequency_penalty: of sampling.
        max_tokens: longest answer.
        timeout: seconds that an answer may take.
        retries: further requests after failures, each after a longer pause.
        pause: seconds before the first of them.
    """

    base_url: str
    model: str
    api_key: str = field(default="", repr=False)
    style: Literal["chat", "completion"] = "chat"
    structured: bool = True
    temperature: float = 0.7
    top_p: float = 1.0
    frequency_penalty: float = 0.1
    max_tokens: int = 256
    timeout: float = 120.0
    retries: int = 6
    pause: float = 1.0

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")):
            raise ConfigError(
                f"The server's address is {self.base_url!r}; it must begin with http:// or https://. Set "
                f"{URL_VARIABLE}, for instance to http://127.0.0.1:8000/v1."
            )

    def address(self, path: str = "") -> str:
        """Where to send a question, or another request."""
        path = path or ("completions" if self.style == "completion" else "chat/completions")
        return f"{self.base_url.rstrip('/')}/{path}"

    def headers(self) -> dict[str, str]:
        """What goes with every request."""
        key = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        return {"Content-Type": "application/json", **key}


def from_environment(base_url: str = "") -> tuple[str, str]:
    """Return the address and the key of the server; the key is known to the environment alone.

    Args:
        base_url: wins over the environment's.

    Returns:
        Both; empty where there is none.
    """
    return base_url or os.environ.get(URL_VARIABLE, ""), os.environ.get(KEY_VARIABLE, "")


def request_body(
    settings: ServerSettings,
    prompt: str,
    seed: int,
    image: Path | bytes | None = None,
    schema: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write a question as the servers take it.

    Args:
        settings: model and sampling.
        prompt: the question.
        seed: of the sampling.
        image: a picture that goes with it.
        schema: that the answer has to keep.

    Returns:
        The JSON object of the request.
    """
    body: dict[str, Any] = {
        "model": settings.model,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "frequency_penalty": settings.frequency_penalty,
        "max_tokens": settings.max_tokens,
        "seed": seed % 2**31,
        "stream": False,
    }
    if settings.style == "completion":
        return {**body, "prompt": prompt, "stop": [TEXT_END]}
    if schema is not None:
        body["response_format"] = schema
    content: Any = prompt
    if image is not None:
        picture = {"type": "image_url", "image_url": {"url": _data_url(image)}}
        content = [{"type": "text", "text": prompt}, picture]
    return {**body, "messages": [{"role": "user", "content": content}]}


class InstructionServer:
    """Asks one server; may be used by many threads at once.

    Args:
        settings: how.
        is_stopped: asked during pauses; True ends them with an error.
    """

    def __init__(self, settings: ServerSettings, is_stopped: Callable[[], bool] = lambda: False) -> None:
        self._settings, self._is_stopped = settings, is_stopped
        self._is_structured = settings.structured and settings.style == "chat"
        self._lock = threading.Lock()

    def ask(self, prompt: str, *, seed: int, image: Path | bytes | None = None, wants_caption: bool = False) -> Reply:
        """Ask one question until there is an answer.

        Args:
            prompt: the whole question.
            seed: of the server's sampling, and of the pauses.
            image: a picture that goes with it, a file or its bytes (PNG, JPEG, WebP).
            wants_caption: the answer holds the caption of the original too.

        Returns:
            The answer.

        Raises:
            ServerError: if the server refuses the question, or fails in all tries.
        """
        return self._persist(lambda: self._answer(prompt, seed, image, wants_caption=wants_caption), seed)

    def _answer(self, prompt: str, seed: int, image: Path | bytes | None, *, wants_caption: bool) -> Reply:
        schema = answer_schema(has_caption=wants_caption) if self._is_structured else None
        return read_reply(self._post(request_body(self._settings, prompt, seed, image, schema)))

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Send another request, as to the moderation of the same server; failures are retried.

        Args:
            path: below the base URL, as "moderations".
            body: of the request.

        Returns:
            The answer, as JSON says it.

        Raises:
            ServerError: if the server refuses it, or fails in all tries.
        """
        return self._persist(lambda: self._post(body, path), 0)

    def _persist(self, request: Callable[[], _Answer], seed: int) -> _Answer:
        fault = _Failed("")
        for attempt in range(self._settings.retries + 1):
            if attempt:
                self._wait(attempt, seed, fault)
            try:
                return request()
            except _Refused as refused:
                if not self._was_structure_refused(refused):
                    raise ServerError(self._describe(str(refused))) from None
                fault = _Failed(str(refused))
            except _Failed as failed:
                fault = failed
        raise ServerError(self._describe(f"{fault}, in {self._settings.retries + 1} tries"))

    def _describe(self, fault: str) -> str:
        text = (
            f"The server {self._settings.base_url} gave no answer of use ({fault}). Check its address, model and log."
        )
        return text.replace(self._settings.api_key, "***") if self._settings.api_key else text

    def _was_structure_refused(self, refused: _Refused) -> bool:
        with self._lock:
            is_it = self._is_structured and refused.names("response_format", "json_schema", "guided", "grammar")
            if is_it:
                self._is_structured = False
        return is_it

    def _wait(self, attempt: int, seed: int, fault: _Failed) -> None:
        """Pause, twice as long each time, by a part that differs between questions, so that they do not come all at once."""
        jitter = 0.5 + hash64(seed, "pause", attempt) / 2**64
        seconds = min(_LONGEST_PAUSE, max(fault.pause, self._settings.pause * 2 ** (attempt - 1) * jitter))
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self._is_stopped():
                raise ServerError(self._describe(f"{fault}; stopped while waiting to ask again"))
            time.sleep(min(0.2, left))

    def _post(self, body: Mapping[str, Any], path: str = "") -> Any:
        address, headers = self._settings.address(path), self._settings.headers()
        request = urllib.request.Request(address, json.dumps(body).encode(), headers)  # noqa: S310 - http(s), checked above
        try:
            with urllib.request.urlopen(request, timeout=self._settings.timeout) as answer:  # noqa: S310
                content = answer.read()
        except urllib.error.HTTPError as error:
            raise _http_fault(error) from None
        except (OSError, http.client.HTTPException) as error:  # refused, reset, timed out, cut short
            raise _Failed(f"no connection or no answer in time: {getattr(error, 'reason', None) or error!r}") from None
        try:
            return json.loads(content)
        except ValueError:
            raise _Failed(f"no JSON but {content[:_SHOWN]!r}") from None


class _Failed(Exception):
    """Worth another try; `pause` is what the server asked for, in seconds."""

    def __init__(self, message: str, pause: float = 0.0) -> None:
        super().__init__(message)
        self.pause = pause


class _Refused(Exception):
    """Another try would be refused too."""

    def names(self, *words: str) -> bool:
        """Say whether the refusal speaks of one of these."""
        return any(word in str(self) for word in words)


def _http_fault(error: urllib.error.HTTPError) -> Exception:
    body = b""
    with contextlib.suppress(OSError, http.client.HTTPException):
        body = error.read(_SHOWN)
    text = f"HTTP {error.code}: {body.decode(errors='replace').strip() or error.reason}"
    if error.code not in _RETRIED:
        return _Refused(text)
    pause = error.headers.get("Retry-After", "") if error.headers else ""
    return _Failed(text, float(pause) if pause.replace(".", "", 1).isdigit() else 0.0)


def read_reply(answer: Any) -> Reply:
    """Read the answer to a question; what is none is worth another try."""
    try:
        choice = answer["choices"][0]
        text = choice["text"] if "text" in choice else choice["message"]["content"]
        usage = answer.get("usage") or {}
        tokens = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
        return Reply(text or "", choice.get("finish_reason") == "length", *tokens)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        raise _Failed(f"an answer without choices: {json.dumps(answer)[:_SHOWN]}") from None


def _data_url(image: Path | bytes) -> str:
    content = image if isinstance(image, bytes) else image.read_bytes()
    kind = "png"
    if content.startswith(b"\xff\xd8"):
        kind = "jpeg"
    elif content[8:12] == b"WEBP":
        kind = "webp"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
