"""One question to whoever writes edits, and what becomes of it over several tries."""

from __future__ import annotations

from typing import NamedTuple

from ...ip2p_core.errors import BadTriplet
from ...ip2p_core.instruction_writer import parse_reply
from ...ip2p_core.instruction_writer.client import Reply
from ...ip2p_core.instruction_writer.prompts import Edit, base_prompt, fill_template, is_identity
from ...ip2p_core.randomness import hash64
from .captions import Caption
from .config import TripletsConfig
from .filters import find_unsafe
from .journal import Entry
from .moderation import Moderator


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


class Trial:
    """A question on its way to an answer of use, over several tries.

    Args:
        question: what is asked.
        config: settings of the run.
        moderator: judges instruction and edited caption.
    """

    def __init__(self, question: Question, config: TripletsConfig, moderator: Moderator | None) -> None:
        self.question = question
        self._config, self._moderator = config, moderator
        self._num_tries, self._tokens = 0, (0, 0)

    @property
    def prompt(self) -> str:
        """What the model gets."""
        return prompt_of(self._config, self.question.caption)

    @property
    def seed(self) -> int:
        """Of the next try."""
        return hash64(self.question.seed, "try", self._num_tries)

    def take(self, reply: Reply) -> Entry | None:
        """Count and judge an answer; None asks for another try."""
        self._num_tries += 1
        self._tokens = (self._tokens[0] + reply.prompt_tokens, self._tokens[1] + reply.completion_tokens)
        caption = self.question.caption.text
        edit, fault = judge_reply(reply.text, is_cut=reply.is_cut, caption=caption, moderator=self._moderator)
        if fault and self._num_tries < self._config.num_tries:
            return None
        return self.question.entry(edit, fault, num_tries=self._num_tries, tokens=self._tokens)
