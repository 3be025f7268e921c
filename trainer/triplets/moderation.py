"""Texts that are left out because they are unsafe: pluggable, and off only where that is asked for.

"words" is a short list for offline use; "server" asks an OpenAI-compatible moderation, as the published code does; anything else
names a Python function "module:function" that takes a list of texts and returns a list of booleans.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence

from ...ip2p_core.errors import ConfigError, ServerError
from ...ip2p_core.instruction_writer import InstructionServer

Moderator = Callable[[Sequence[str]], list[bool]]
"""Says of each text whether it is unsafe."""

UNSAFE_WORDS = re.compile(
    r"\b(?:nude|nudes|nudity|naked|topless|porn\w*|nsfw|xxx|erotic\w*|sexy|sexual\w*|hentai|fetish\w*|genitals?|penis|vagina|"
    r"orgasm\w*|incest|rape[ds]?|rapist|gore|gory|beheaded|beheading|decapitat\w*|mutilat\w*|dismember\w*|corpses?|suicides?|"
    r"self-harm|tortur\w*|massacre\w*|lynch\w*|swastikas?|nazis?|terrorists?|cocaine|heroin)\b",
    re.IGNORECASE,
)


def load_moderator(choice: str, server: InstructionServer | None = None) -> Moderator | None:
    """Make the moderator of a run.

    Args:
        choice: "words", "server", "off", or "module:function".
        server: that "server" asks.

    Returns:
        The moderator; None for "off".

    Raises:
        ConfigError: if there is no such moderator, or no server.
    """
    if choice == "off":
        return None
    if choice == "words":
        return lambda texts: [bool(UNSAFE_WORDS.search(text)) for text in texts]
    if choice == "server":
        if server is None:
            raise ConfigError("moderation is 'server', but there is none. Give base_url, or choose 'words'.")
        return lambda texts: _ask(server, texts)
    module, colon, name = choice.partition(":")
    try:
        function: Moderator = getattr(importlib.import_module(module), name) if colon else None  # type: ignore[assignment]
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"The moderation {choice!r} cannot be loaded ({error}). Name it module:function.") from None
    if function is None:
        raise ConfigError(f"moderation is {choice!r}; choose 'words', 'server', 'off', or module:function.")
    return function


def _ask(server: InstructionServer, texts: Sequence[str]) -> list[bool]:
    answer = server.post("moderations", {"input": list(texts)})
    try:
        flagged = [bool(one["flagged"]) for one in answer["results"]]
    except (KeyError, TypeError):
        raise ServerError(
            f"The server's moderation answered {str(answer)[:200]}, without results. Choose another."
        ) from None
    if len(flagged) != len(texts):
        raise ServerError(f"The server's moderation judged {len(flagged)} of {len(texts)} texts. Choose another.")
    return flagged
