"""Who writes the edits: the grammar, a server, or a transformers model in this process. All fulfil `Writer`."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from ...ip2p_core.errors import BadTriplet, ConfigError, Ip2pError, ServerError
from ...ip2p_core.instruction_writer import InstructionServer, ServerSettings, parse_reply, write_edit
from ...ip2p_core.instruction_writer.client import Reply, from_environment
from ...ip2p_core.instruction_writer.prompts import Edit, base_prompt, fill_template, is_identity
from ...ip2p_core.randomness import hash64
from ..transformers_adapter import LanguageModel, Sampling
from .captions import Caption
from .config import TripletsConfig
from .filters import find_unsafe
from .journal import Entry
from .moderation import Moderator

MOST_FAILURES = 20
"""Questions in a row that a server may fail before the run ends."""


class Question(NamedTuple):
    """One edit that is to be written."""

    caption: Caption
    number: int
    seed: int

    def entry(
        self,
        edit: Edit | None,
        fault: str = "",
        edit_type: str = "",
        num_tries: int = 1,
        tokens: tuple[int, int] = (0, 0),
    ) -> Entry:
        """Say what came of it."""
        texts = (edit.instruction, edit.edited_caption) if edit else ("", "")
        caption = self.caption.text or (edit.caption if edit else "")
        return Entry(
            self.caption.id,
            self.number,
            caption,
            *texts,
            fault,
            edit_type,
            num_tries,
            *tokens,
            self.seed,
            self.caption.url,
        )


Writer = Callable[[Iterable[Question]], Iterator[Entry]]
"""Answers questions, in any order."""


def ask_of(caption: Caption, number: int, seed: int) -> Question:
    """Make a question; its seed is a pure function of run, caption and number."""
    return Question(caption, number, hash64(seed, caption.id, number))


def prompt_of(config: TripletsConfig, caption: Caption) -> str:
    """The question as a language model gets it."""
    if config.style == "completion":
        return base_prompt(caption.text)
    return fill_template(config.template, caption.text)


def judge_reply(text: str, *, is_cut: bool, caption: str, moderator: Moderator | None) -> tuple[Edit | None, str]:
    """Read an answer.

    Args:
        text: what the model wrote.
        is_cut: it reached its longest length.
        caption: of the original; empty where the model writes it.
        moderator: judges instruction and edited caption.

    Returns:
        The edit and "", or what could be read and the fault: "unparsable", "truncated", "empty", "identity" or "unsafe".
    """
    try:
        edit = parse_reply(text)
    except BadTriplet:
        return None, "truncated" if is_cut else "unparsable"
    caption = caption or edit.caption
    if not (edit.instruction and edit.edited_caption and caption):
        return edit, "empty"
    if is_identity(caption, edit.edited_caption):
        return edit, "identity"
    return edit, find_unsafe([edit.instruction, edit.edited_caption], moderator)


def write_by_grammar(
    config: TripletsConfig, moderator: Moderator | None, questions: Iterable[Question]
) -> Iterator[Entry]:
    """Answer by rules."""
    for question in questions:
        try:
            written = write_edit(question.caption.text, question.seed, config.edit_types)
        except ConfigError:
            yield question.entry(None, "no_rule_fits")
            continue
        edit = Edit(written.instruction, written.edited_caption)
        yield question.entry(edit, find_unsafe(edit[:2], moderator), written.edit_type)


def server_of(config: TripletsConfig, is_stopped: Callable[[], bool] = lambda: False) -> InstructionServer:
    """Make the client of the server that settings and environment name."""
    return InstructionServer(server_settings(config), is_stopped)


def server_settings(config: TripletsConfig) -> ServerSettings:
    """How the server that settings and environment name is asked."""
    base_url, key = from_environment(config.base_url)
    return ServerSettings(
        base_url=base_url,
        model=config.model,
        api_key=key,
        style=config.style,
        structured=config.structured,
        temperature=config.temperature,
        top_p=config.top_p,
        frequency_penalty=config.frequency_penalty,
        max_tokens=config.max_tokens,
        timeout=config.timeout,
        retries=config.retries,
        pause=config.pause,
    )


class ServerWriter:
    """Asks a server, many questions at a time.

    Args:
        config: settings of the run.
        moderator: judges instruction and edited caption.
        is_stopped: says whether the user wants an end; requests under way are waited for, pauses are not.
    """

    def __init__(
        self, config: TripletsConfig, moderator: Moderator | None, is_stopped: Callable[[], bool] = lambda: False
    ) -> None:
        self._config, self._moderator = config, moderator
        self._closed = threading.Event()
        self._wants_end = is_stopped
        self.last_fault = ""
        self.server = server_of(config, self._is_stopped)

    def _is_stopped(self) -> bool:
        return self._closed.is_set() or self._wants_end()

    def __call__(self, questions: Iterable[Question]) -> Iterator[Entry]:
        """Answer questions as they come back.

        Args:
            questions: in any number; they are taken as threads become free.

        Yields:
            Entry: One for each question, but for those that the server failed.

        Raises:
            ServerError: if it fails many questions in a row.
        """
        waiting, lock = iter(questions), threading.Lock()
        answered: queue.Queue[Entry | Ip2pError | None] = queue.Queue()

        def work() -> None:
            try:
                while not self._is_stopped():
                    with lock:
                        question = next(waiting, None)
                    if question is None:
                        break
                    try:
                        answered.put(self._answer(question))
                    except Ip2pError as error:
                        answered.put(error)
            except Ip2pError as error:  # of the moderation, which judges captions as they are taken
                answered.put(error)
            finally:
                answered.put(None)

        threads = [threading.Thread(target=work, daemon=True) for _ in range(self._config.concurrency)]
        for thread in threads:
            thread.start()
        try:
            yield from self._collect(answered, len(threads))
        finally:
            self._closed.set()

    def _collect(self, answered: queue.Queue[Entry | Ip2pError | None], num_left: int) -> Iterator[Entry]:
        num_failures = 0
        while num_left:
            result = answered.get()
            if result is None:
                num_left -= 1
            elif isinstance(result, Entry):
                num_failures = 0
                yield result
            elif not self._is_stopped():
                num_failures += 1
                self.last_fault = str(result)
                if num_failures >= MOST_FAILURES:
                    raise result

    def _answer(self, question: Question) -> Entry:
        caption, used = question.caption, (0, 0)
        edit, fault = None, ""
        for attempt in range(self._config.num_tries):
            reply = self._ask(question, attempt)
            used = (used[0] + reply.prompt_tokens, used[1] + reply.completion_tokens)
            edit, fault = judge_reply(reply.text, is_cut=reply.is_cut, caption=caption.text, moderator=self._moderator)
            if not fault:
                break
        return question.entry(edit, fault, num_tries=attempt + 1, tokens=used)

    def _ask(self, question: Question, attempt: int) -> Reply:
        caption = question.caption
        picture = Path(caption.image) if self._config.see_pictures and caption.image else None
        if picture is not None and not picture.is_file():
            raise ServerError(f"The picture {picture} is not there. Check the column of the pictures.")
        seed = hash64(question.seed, "try", attempt)
        wants_caption = not caption.text
        return self.server.ask(prompt_of(self._config, caption), seed=seed, image=picture, wants_caption=wants_caption)


class TransformersWriter:
    """Asks a transformers model in this process, in batches; what fails is asked again along with the next ones.

    Args:
        config: settings of the run.
        moderator: judges instruction and edited caption.
        model: the model; loaded from the settings by default.
    """

    def __init__(self, config: TripletsConfig, moderator: Moderator | None, model: LanguageModel | None = None) -> None:
        self._config, self._moderator = config, moderator
        self._model = model or LanguageModel(
            Path(config.model), config.device, config.dtype, Path(config.adapter) if config.adapter else None
        )
        self._sampling = Sampling(config.temperature, config.top_p, config.frequency_penalty, config.max_tokens)

    def __call__(self, questions: Iterable[Question]) -> Iterator[Entry]:
        """Answer questions.

        Args:
            questions: in any number; they are taken batch by batch.

        Yields:
            Entry: One for each question.
        """
        waiting = iter(questions)
        again: deque[tuple[Question, int, tuple[int, int]]] = deque()
        while batch := self._next_batch(waiting, again):
            prompts = [prompt_of(self._config, question.caption) for question, _, _ in batch]
            seeds = [hash64(question.seed, "try", attempt) for question, attempt, _ in batch]
            is_chat = self._config.style == "chat"
            replies = self._model.complete(prompts, seeds, self._sampling, is_chat=is_chat)
            for (question, attempt, used), reply in zip(batch, replies, strict=True):
                used = (used[0] + reply.prompt_tokens, used[1] + reply.completion_tokens)
                caption = question.caption.text
                edit, fault = judge_reply(reply.text, is_cut=reply.is_cut, caption=caption, moderator=self._moderator)
                if fault and attempt + 1 < self._config.num_tries:
                    again.append((question, attempt + 1, used))
                else:
                    yield question.entry(edit, fault, num_tries=attempt + 1, tokens=used)

    def _next_batch(
        self, waiting: Iterator[Question], again: deque[tuple[Question, int, tuple[int, int]]]
    ) -> list[tuple[Question, int, tuple[int, int]]]:
        batch = [again.popleft() for _ in range(min(len(again), self._config.batch_size))]
        batch += [(one, 0, (0, 0)) for one in islice(waiting, self._config.batch_size - len(batch))]
        return batch
