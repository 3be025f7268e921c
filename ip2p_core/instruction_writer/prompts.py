"""What a language model is asked, and how its answer is read (arXiv:2211.09800, section 3.1 and its published code).

Two formats: chat and JSON for models that follow instructions, and the published code's separators for base models that
were fine-tuned on triplets.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from ..errors import BadTriplet, ConfigError
from ..triplet import FIELD_NAMES, normalise

CAPTION_GAP = "{caption}"
_ANSWER = '{"instruction": "<what to do>", "edited_caption": "<caption afterwards>"}'

TEMPLATE = f"""You invent edits of pictures, as training data for a model that edits pictures by instruction.

You get the caption of a picture. Invent one interesting edit that changes how the picture looks, and answer with JSON only:
{_ANSWER}

- "instruction": what a person would type, imperative, 2 to 12 words.
- "edited_caption": the caption of the picture after the edit. Change only what the edit changes; keep all other words.
- Vary the kind of edit: replace, add or remove a thing; its colour or material; the medium or the style; season, weather, time \
of day; the background; clothes, hair, make-up, glasses, the expression of a face.
- No counting, no moving to the left or right, no camera moves: the picture keeps its layout.

Caption: {CAPTION_GAP}"""
"""The default question; the first gap is filled."""

VISION_TEMPLATE = TEMPLATE.replace(
    "You get the caption of a picture.", "You see a picture, and may get its caption."
).replace(_ANSWER, _ANSWER.replace("{", '{"caption": "<caption before>", ')) + (
    '\n\n"caption": what the picture shows before the edit; repeat the given caption if there is one.'
)

CAPTION_END, INSTRUCTION_END, TEXT_END = "\n##\n", "\n%%\n", "\nEND"
"""The published code's separators."""

_THOUGHTS = re.compile(r"<think>.*?</think>", re.DOTALL)


class Edit(NamedTuple):
    """What a model proposed."""

    instruction: str
    edited_caption: str
    caption: str = ""
    """Of the original, where the model was shown a picture without one."""


def answer_schema(*, has_caption: bool = False) -> dict[str, Any]:
    """JSON schema of an answer, as OpenAI-compatible servers take it in `response_format`.

    Args:
        has_caption: the model also writes the caption of the original.

    Returns:
        The value of `response_format`.
    """
    names = [*(["caption"] if has_caption else []), "instruction", "edited_caption"]
    schema = {
        "type": "object",
        "properties": {name: {"type": "string"} for name in names},
        "required": names,
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": "edit", "strict": True, "schema": schema}}


def fill_template(template: str, caption: str) -> str:
    """Put a caption into a template.

    Args:
        template: a text with one gap, "{caption}"; other braces are left as they are.
        caption: what the picture shows.

    Returns:
        The question.

    Raises:
        ConfigError: if the template has no gap.
    """
    if CAPTION_GAP not in template:
        raise ConfigError(f"The template has no {CAPTION_GAP}. Put it where the caption of the picture belongs.")
    return template.replace(CAPTION_GAP, caption)


def base_prompt(caption: str) -> str:
    """The question to a base model that was fine-tuned in the published format."""
    return caption + CAPTION_END


def base_completion(instruction: str, edited_caption: str) -> str:
    """The answer of a base model in the published format."""
    return f"{instruction}{INSTRUCTION_END}{edited_caption}{TEXT_END}"


def json_completion(instruction: str, edited_caption: str) -> str:
    """The answer of a model that follows instructions."""
    return json.dumps({"instruction": instruction, "edited_caption": edited_caption}, ensure_ascii=False)


def parse_reply(text: str) -> Edit:
    """Read what a model wrote: JSON, alone or within other text, or the published format.

    Args:
        text: the whole reply; thoughts in <think> are left out.

    Returns:
        The edit; its texts lose white space at the ends and may be empty.

    Raises:
        BadTriplet: if there is no edit in it; the message is one clause.
    """
    text = _THOUGHTS.sub("", text)
    record = _find_object(text)
    if record is not None:
        instruction, edited_caption = (_text_of(record, name) for name in ("instruction", "edited_caption"))
        caption = record.get("caption", "")
        return Edit(instruction, edited_caption, caption.strip() if isinstance(caption, str) else "")
    parts = text.split(TEXT_END.rstrip("\n"))[0].split(INSTRUCTION_END)
    if len(parts) != 2:
        raise BadTriplet(f"no JSON object, and {len(parts)} instead of 2 parts around {INSTRUCTION_END.strip()}")
    return Edit(parts[0].strip(), parts[1].strip())


def is_identity(caption: str, edited_caption: str) -> bool:
    """Say whether an edit leaves the caption as it is (compared as `normalise` does)."""
    return normalise(caption) == normalise(edited_caption)


def _find_object(text: str) -> dict[str, Any] | None:
    """Return the first JSON object in a text that holds an instruction."""
    decoder = json.JSONDecoder()
    for found in re.finditer(r"\{", text):
        try:
            record, _ = decoder.raw_decode(text, found.start())
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and any(name in record for name in FIELD_NAMES["instruction"]):
            return record
    return None


def _text_of(record: dict[str, Any], name: str) -> str:
    for key in FIELD_NAMES[name]:
        value = record.get(key)
        if isinstance(value, str):
            return value.strip()
        if value is not None:
            raise BadTriplet(f"{key!r} is {type(value).__name__}, not a text")
    raise BadTriplet(f"{name!r} is missing")
