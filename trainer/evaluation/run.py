"""Editing and measuring: every example by every system, setting and seed. What is on the disk is not done again.

Shapes: B pictures, H W height and width in pixels.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...ip2p_core.errors import ConfigError
from ...ip2p_core.image_tensor import load_image, to_pil
from ...ip2p_core.pair_store.durable_files import write_durably, write_text_durably
from ..line_journal import LineJournal
from .config import EvaluateConfig, Setting, SystemConfig, identity_of
from .examples import Example
from .metrics import Metrics, Scores
from .systems import System, digest_of, load_system
from .vision_judge import VisionJudge

PICTURES, SCORES, IDENTITY = "pictures", "scores.jsonl", "system.json"


class Row(NamedTuple):
    """One edit and its scores."""

    system: str
    setting: Setting
    seed: int
    """Of the settings; the edit itself was made with that of the example."""
    example: Example
    picture: Path
    """Inside the run folder."""
    scores: Scores

    @property
    def key(self) -> tuple[str, str, int, str]:
        """What was done."""
        return self.system, self.setting.slug, self.seed, self.example.key

    def record(self) -> dict[str, Any]:
        """Everything as flat JSON."""
        one = self.example
        return {
            "system": self.system,
            **self.setting.named(),
            "seed": self.seed,
            "example": one.key,
            "edit_type": one.edit_type,
            "instruction": one.instruction,
            "picture": self.picture.as_posix(),
            **self.scores,
        }


class Task(NamedTuple):
    """One edit that is to be there."""

    number: int
    """Place of the example."""
    example: Example
    setting: Setting
    seed: int


@dataclass
class Progress:
    """How far a run is."""

    num_edits: int
    num_done: int = 0
    num_made: int = 0
    num_measured: int = 0
    started: float = field(default_factory=time.monotonic)

    def describe(self) -> str:
        """Say it in one line."""
        text = f"{self.num_done} of {self.num_edits} edits are there, {self.num_measured} measured"
        if self.num_made and self.num_done < self.num_edits:
            rate = self.num_made / (time.monotonic() - self.started)
            text += f"; {rate:.2f} edits/s, {(self.num_edits - self.num_done) / rate / 60:.0f} min left"
        return text


def num_edits(config: EvaluateConfig, examples: Sequence[Example]) -> int:
    """Count the edits of a run; examples without captions are not for systems that need them."""
    captioned = sum(one.has_captions for one in examples)
    return sum(
        (captioned if needs_captions(one) else len(examples)) * len(one.settings()) * len(config.seeds)
        for one in config.system_configs()
    )


def needs_captions(system: SystemConfig) -> bool:
    """Say whether a kind of system reads the captions."""
    return system.kind in ("sdedit", "text2live")


def picture_path(system: SystemConfig, setting: Setting, example: Example, seed: int) -> Path:
    """Where an edit lies, inside the run folder; the name holds the seed that the edit was made with."""
    return Path(PICTURES) / system.slug / setting.slug / f"{example.key}-s{seed}.png"


@dataclass
class Evaluation:
    """One run.

    Attributes:
        config: its settings.
        examples: what is edited.
        metrics: what is measured.
        journal: of the scores.
        report: called whenever something is done.
        judge: marks edits too; None for none.
    """

    config: EvaluateConfig
    examples: Sequence[Example]
    metrics: Metrics
    journal: LineJournal
    report: Callable[[Progress], object]
    judge: VisionJudge | None = None

    def __post_init__(self) -> None:
        self.folder = Path(self.config.output)
        self.progress = Progress(num_edits(self.config, self.examples))
        self._known = self._read_known()

    def run(self) -> list[Row]:
        """Do what is missing.

        Returns:
            All rows, system by system.

        Raises:
            ConfigError: if pictures of the run folder were made with other settings.
        """
        rows: list[Row] = []
        for system in self.config.system_configs():
            self._check_identity(system)
            usable = [one for one in enumerate(self.examples) if one[1].has_captions or not needs_captions(system)]
            if not usable:
                raise ConfigError(
                    f"The system {system.name!r} needs caption and edited_caption, and no example has both. Add them, or "
                    "take the system out."
                )
            loaded: System | None = None
            for chunk in self._chunks(usable):
                load = cache(partial(_stack, chunk))  # once for all settings, and not where nothing is missing
                for setting in system.settings():
                    for seed in self.config.seeds:
                        tasks = [Task(number, one, setting, seed) for number, one in chunk]
                        if not all((self.folder / self._path(system, task)).is_file() for task in tasks):
                            loaded = loaded or load_system(system, self.config, self.metrics.scorer)
                            self._edit(system, loaded, load(), tasks)
                        rows += self._measure(system, tasks, load)
        return rows

    def _chunks(self, usable: Sequence[tuple[int, Example]]) -> Iterator[list[tuple[int, Example]]]:
        """Neighbours of one size: their seeds follow each other, as a batch's do."""
        chunk: list[tuple[int, Example]] = []
        for number, example in usable:
            is_next = bool(chunk) and number == chunk[-1][0] + 1
            if chunk and not (is_next and len(chunk) < self.config.batch_size and chunk[-1][1].size == example.size):
                yield chunk
                chunk = []
            chunk.append((number, example))
        if chunk:
            yield chunk

    def _path(self, system: SystemConfig, task: Task) -> Path:
        return picture_path(system, task.setting, task.example, task.seed + task.number)

    def _edit(self, system: SystemConfig, loaded: System, images: Tensor, tasks: Sequence[Task]) -> None:
        first = tasks[0]
        with torch.inference_mode(system.kind != "text2live"):
            edited = loaded.edit(images, [one.example for one in tasks], first.setting, first.seed + first.number)
        for task, picture in zip(tasks, edited.cpu(), strict=True):
            image = to_pil(picture)
            write_durably(self.folder / self._path(system, task), lambda beside, image=image: image.save(beside, "PNG"))  # type: ignore[misc]
        self.progress.num_made += len(tasks)

    def _measure(self, system: SystemConfig, tasks: Sequence[Task], load: Callable[[], Tensor]) -> list[Row]:
        rows = [Row(system.name, task.setting, task.seed, task.example, self._path(system, task), {}) for task in tasks]
        missing = [row for row in rows if row.key not in self._known]
        if missing:
            originals = load()[[row.key not in self._known for row in rows]]
            editeds = torch.stack([load_image(self.folder / row.picture).pixels for row in missing])
            examples = [row.example for row in missing]
            measured = self.metrics.measure(examples, originals, editeds)
            if self.judge is not None:
                marks = self.judge.mark(examples, [self.folder / row.picture for row in missing])
                measured = [scores | more for scores, more in zip(measured, marks, strict=True)]
            for row, scores in zip(missing, measured, strict=True):
                self._known[row.key] = scores
                self.journal.add({"key": row.key, "scores": scores})
        self.progress.num_done += len(rows)
        self.progress.num_measured += len(missing)
        self.report(self.progress)
        return [row._replace(scores=self._known[row.key]) for row in rows]

    def _read_known(self) -> dict[tuple[Any, ...], Scores]:
        """Scores of an earlier run, unless they were measured with something else."""
        records = list(self.journal.records())
        identity = self.metrics.identity() | ({} if self.judge is None else {"judge": self.judge.identity()})
        if not records or records[0].get("identity") != json.loads(json.dumps(identity)):
            self.journal.start_anew()
            self.journal.add({"identity": identity})
            return {}
        return {tuple(one["key"]): one["scores"] for one in records[1:]}

    def _check_identity(self, system: SystemConfig) -> None:
        """Refuse to mix pictures of one system that were made in different ways."""
        path = self.folder / PICTURES / system.slug / IDENTITY
        identity = identity_of(system, digest_of(system, self.config))
        if path.exists():
            _compare(system.name, json.loads(path.read_text(encoding="utf-8")), identity, path.parent)
        else:
            write_text_durably(path, json.dumps(identity, indent=1))


def _compare(name: str, before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    other = [key for key in now if before.get(key) != now[key]]
    if other:
        raise ConfigError(
            f"The pictures of {name!r} in {folder} were made with another {', '.join(other)}. Give the system another name, or "
            "delete that folder."
        )


def _stack(chunk: Sequence[tuple[int, Example]]) -> Tensor:
    return torch.stack([example.image.tensor() for _, example in chunk])
