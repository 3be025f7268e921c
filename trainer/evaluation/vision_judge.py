"""A vision model at an OpenAI-compatible server that marks edits, as the judge benchmarks do (GEdit-Bench, ImgEdit).

It sees both pictures and the instruction and gives three marks of 0 to 10. Marks are opinions of one model: they are comparable
for the same model and question alone, which the report records.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ...ip2p_core.errors import ServerError
from ...ip2p_core.instruction_writer import InstructionServer, ServerSettings
from ...ip2p_core.instruction_writer.client import from_environment, read_reply
from .config import EvaluateConfig
from .examples import Example

MARKS = ("edit", "keep", "quality")
HIGHEST, NUM_TRIES = 10.0, 3
QUESTION = """The first picture was edited by this instruction: "{instruction}". The second picture is the result.
Give three marks from 0 (worst) to 10 (best): "edit": was the instruction carried out? "keep": did everything stay that the
instruction does not ask to change? "quality": is the result free of artefacts? Answer with a JSON object alone, as
{{"edit": 7, "keep": 9, "quality": 8}}."""


class VisionJudge:
    """Asks for marks, several edits at a time.

    Args:
        config: of the run: the model's name, the server's address, how many requests at a time.
    """

    def __init__(self, config: EvaluateConfig) -> None:
        base_url, key = from_environment(config.base_url)
        self.config = config
        settings = ServerSettings(base_url=base_url, api_key=key, model=config.judge, temperature=0.0, max_tokens=200)
        self._server = InstructionServer(settings)

    def identity(self) -> dict[str, str]:
        """Say who judges, and by which question."""
        return {"model": self.config.judge, "question": QUESTION}

    def mark(self, examples: Sequence[Example], pictures: Sequence[Path]) -> list[dict[str, float]]:
        """Mark edits.

        Args:
            examples: what was asked for.
            pictures: the results.

        Returns:
            judge_edit, judge_keep and judge_quality of each, 0 to 10.

        Raises:
            ServerError: if the server fails, or gives no marks in several tries.
        """
        with ThreadPoolExecutor(self.config.concurrency) as pool:
            return list(pool.map(self._mark, examples, pictures))

    def _mark(self, example: Example, picture: Path) -> dict[str, float]:
        text = ""
        for seed in range(NUM_TRIES):
            answer = self._server.post("chat/completions", self._body(example, picture, seed))
            text = read_reply(answer).text
            marks = parse_marks(text)
            if marks is not None:
                return {f"judge_{name}": value for name, value in marks.items()}
        raise ServerError(
            f"The model {self.config.judge!r} gives no marks of 0 to 10 for {example.key} in {NUM_TRIES} tries but "
            f"{text[:200]!r}. Choose a vision model that follows instructions."
        )

    def _body(self, example: Example, picture: Path, seed: int) -> dict[str, Any]:
        pictures = [
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(content).decode()}"}}
            for content in (example.image.lossless(), picture.read_bytes())
        ]
        text = {"type": "text", "text": QUESTION.format(instruction=example.instruction)}
        return {
            "model": self.config.judge,
            "messages": [{"role": "user", "content": [text, *pictures]}],
            "temperature": 0.0 if seed == 0 else 0.7,
            "seed": seed,
            "max_tokens": 200,
            "stream": False,
        }


def parse_marks(text: str) -> dict[str, float] | None:
    """Read the marks out of an answer; None where there are none, or one is not between 0 and 10."""
    for found in re.finditer(r"\{[^{}]*\}", text):
        try:
            record = json.loads(found.group())
            marks = {name: float(record[name]) for name in MARKS}
        except (ValueError, KeyError, TypeError):
            continue
        if all(0.0 <= value <= HIGHEST for value in marks.values()):
            return marks
    return None
