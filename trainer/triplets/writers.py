"""Who writes the edits: the grammar, a server, or a transformers model in this process. All fulfil `Writer`."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

from ...ip2p_core.errors import ConfigError, Ip2pError, ServerError
from ...ip2p_core.instruction_writer import InstructionServer, ServerSettings, write_edit
from ...ip2p_core.instruction_writer.client import Reply, from_environment
from ...ip2p_core.instruction_writer.prompts import Edit
from ..transformers_adapter import LanguageModel, Sampling
from .config import TripletsConfig
from .filters import find_unsafe
from .journal import Entry
from .moderation import Moderator
from .questions import Question, Trial

MOST_FAILURES = 20
"""Questions in a row that a server may fail before the run ends."""


Writer = Callable[[Iterable[Question]], Iterator[Entry]]
"""Answers questions, in any order."""


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
        self._given_up: Ip2pError | None = None
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
        waiting, lock, num_failures = iter(questions), threading.Lock(), 0
        answered: queue.Queue[Entry | Ip2pError | None] = queue.Queue()

        def work() -> None:
            nonlocal num_failures
            try:
                while not self._is_stopped():
                    with lock:
                        question = next(waiting, None)
                    if question is None:
                        break
                    result = self._try(question)
                    answered.put(result)
                    with lock:
                        num_failures = 0 if isinstance(result, Entry) else num_failures + 1
                        if num_failures >= MOST_FAILURES and not self._is_stopped():
                            self._given_up = result if isinstance(result, Ip2pError) else None
                            self._closed.set()
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
        while num_left:
            result = answered.get()
            if result is None:
                num_left -= 1
            elif isinstance(result, Entry):
                yield result
            elif not self._wants_end():
                self.last_fault = str(result)
        if self._given_up is not None:
            raise self._given_up

    def _try(self, question: Question) -> Entry | Ip2pError:
        try:
            return self._answer(question)
        except Ip2pError as error:
            return error

    def _answer(self, question: Question) -> Entry:
        trial = Trial(question, self._config, self._moderator)
        while (entry := trial.take(self._ask(trial))) is None:
            pass
        return entry

    def _ask(self, trial: Trial) -> Reply:
        caption = trial.question.caption
        picture = Path(caption.image) if self._config.see_pictures and caption.image else None
        if picture is not None and not picture.is_file():
            raise ServerError(f"The picture {picture} is not there. Check the column of the pictures.")
        return self.server.ask(trial.prompt, seed=trial.seed, image=picture, wants_caption=not caption.text)


class TransformersWriter:
    """Asks a transformers model in this process, in batches; what fails is asked again along with the next ones.

    Args:
        config: settings of the run.
        moderator: judges instruction and edited caption.
    """

    def __init__(self, config: TripletsConfig, moderator: Moderator | None) -> None:
        self._config, self._moderator = config, moderator
        self._model = LanguageModel(
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
        again: list[Trial] = []
        while True:
            fresh = islice(waiting, self._config.batch_size - len(again))
            batch = [*again, *(Trial(one, self._config, self._moderator) for one in fresh)]
            if not batch:
                return
            is_chat = self._config.style == "chat"
            prompts, seeds = [trial.prompt for trial in batch], [trial.seed for trial in batch]
            replies = self._model.complete(prompts, seeds, self._sampling, is_chat=is_chat)
            again = []
            for trial, reply in zip(batch, replies, strict=True):
                entry = trial.take(reply)
                if entry is None:
                    again.append(trial)
                else:
                    yield entry
