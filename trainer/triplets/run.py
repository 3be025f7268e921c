"""A run of the text stage: asks what is not known yet, then filters everything in the order of the captions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...ip2p_core.errors import ConfigError, PairStoreError
from ...ip2p_core.instruction_writer import tags_of
from ...ip2p_core.pair_store.durable_files import write_durably
from .captions import Caption, CaptionFile
from .config import TripletsConfig
from .filters import RunFilter, edit_type_of, find_own_fault, find_unsafe
from .journal import Entry, Journal
from .moderation import Moderator
from .questions import Question, ask_of
from .writers import Writer

TRIPLETS, REJECTED, REPORT, IDENTITY = "triplets.jsonl", "rejected.jsonl", "report.json", "identity.json"
JUDGED_TOGETHER = 32
"""Captions that the moderator sees in one request."""
FIELDS = {
    "ours": ("caption", "instruction", "edited_caption"),
    "human": ("input", "edit", "output"),
    "generated": ("caption", "edit", "output"),
}
"""Names of the three texts: ours, and those of the files that the paper's authors published."""


@dataclass
class Progress:
    """What a run has done so far."""

    num_asked: int = 0
    num_known: int = 0
    """Answered in earlier runs."""
    num_left: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    """Answers without an edit, by reason."""
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, entry: Entry) -> None:
        """Count an answer."""
        self.num_asked += 1
        self.num_left -= 1
        self.prompt_tokens += entry.prompt_tokens
        self.completion_tokens += entry.completion_tokens
        if entry.fault:
            self.faults[entry.fault] += 1

    def describe(self) -> str:
        """Say it in one line."""
        usable = self.num_asked - self.faults.total()
        faults = ", ".join(f"{count} {name}" for name, count in self.faults.most_common())
        tokens = f"; {self.prompt_tokens} + {self.completion_tokens} tokens" if self.completion_tokens else ""
        known = f"; {self.num_known} known before" if self.num_known else ""
        return f"{self.num_asked} asked, {usable} edits{f' ({faults})' if faults else ''}{tokens}{known}, {self.num_left} left"


def check_identity(config: TripletsConfig) -> None:
    """Refuse a run folder that was filled with other settings; note the settings of a new one.

    Args:
        config: settings of this run.

    Raises:
        ConfigError: naming the settings that differ.
    """
    path = Path(config.output) / IDENTITY
    mine = config.identity()
    if path.exists():
        theirs = json.loads(path.read_text(encoding="utf-8"))
        if differ := [name for name in mine if theirs.get(name) != mine[name]]:
            shown = "; ".join(f"{name} was {_short(theirs.get(name))}, is {_short(mine[name])}" for name in differ)
            raise ConfigError(f"{config.output} holds a run with other settings ({shown}). Choose another output.")
    else:
        write_durably(path, lambda beside: beside.write_text(json.dumps(mine, indent=1), encoding="utf-8"))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."


def ask(
    config: TripletsConfig,
    captions: Sequence[Caption],
    known: dict[tuple[str, int], Entry],
    journal: Journal,
    writer: Writer,
    moderator: Moderator | None,
    report: Callable[[Progress], None],
    is_stopped: Callable[[], bool],
) -> Progress:
    """Ask every question that has no answer yet.

    Args:
        config: settings of the run.
        captions: of the run.
        known: answers by (caption id, number); new ones are added.
        journal: gets each answer at once.
        writer: answers.
        moderator: judges captions, which are not asked if they are unsafe.
        report: called after each answer.
        is_stopped: says whether the user wants an end; what is under way is waited for.

    Returns:
        What was done.
    """
    wanted = [(caption, index) for caption in captions for index in range(config.edits_per_caption)]
    missing = [(caption, index) for caption, index in wanted if (caption.id, index) not in known]
    progress = Progress(num_known=len(wanted) - len(missing), num_left=len(missing))

    def take(entry: Entry) -> None:
        entry = entry._replace(moderated_by=config.moderation)
        journal.add(entry)
        known[entry.key] = entry
        progress.add(entry)
        report(progress)

    unsafe: list[Entry] = []

    def questions() -> Iterator[Question]:
        for start in range(0, len(missing), JUDGED_TOGETHER):
            part = missing[start : start + JUDGED_TOGETHER]
            verdicts = moderator([caption.text for caption, _ in part]) if moderator else [False] * len(part)
            for (caption, index), is_unsafe in zip(part, verdicts, strict=True):
                if is_stopped():
                    return
                question = ask_of(caption, index, config.seed)
                if is_unsafe:
                    unsafe.append(question.entry(None, "unsafe_caption"))
                else:
                    yield question

    for entry in writer(questions()):
        take(entry)
    for entry in unsafe:
        take(entry)
    return progress


def write_results(
    config: TripletsConfig,
    source: CaptionFile,
    captions: Sequence[Caption],
    known: Mapping[tuple[str, int], Entry],
    moderator: Moderator | None,
) -> dict[str, Any]:
    """Filter all answers in the order of the captions, and write triplets, rejected ones and the report.

    Args:
        config: settings of the run.
        source: what was read, for the report.
        captions: of the run.
        known: all answers.
        moderator: judges the texts of answers that another one judged when they came.

    Returns:
        The report.
    """
    folder, run_filter, limits = Path(config.output), RunFilter(config.limits()), config.limits()
    reasons, types, tags = Counter[str](), Counter[str](), Counter[str]()
    examples: dict[str, list[str]] = {}
    num_missing = 0

    def lines() -> Iterator[tuple[bool, str]]:
        nonlocal num_missing
        for caption in captions:
            for index in range(config.edits_per_caption):
                entry = known.get((caption.id, index))
                if entry is None:
                    num_missing += 1
                    continue
                texts = (entry.caption, entry.instruction, entry.edited_caption)
                fault = entry.fault or find_own_fault(*texts, limits)
                if entry.moderated_by != config.moderation:
                    fault = fault or find_unsafe(texts, moderator)
                fault = fault or run_filter.find_fault(entry)
                record = _record(config, entry)
                if fault:
                    reasons[fault] += 1
                    if len(examples.setdefault(fault, [])) < 3:
                        examples[fault].append(" | ".join(texts))
                    yield False, json.dumps({**record, "reason": fault}, ensure_ascii=False)
                else:
                    types[edit_type_of(entry)] += 1
                    tags.update(tags_of(entry.instruction))
                    yield True, json.dumps(record, ensure_ascii=False)

    _write_both(folder, lines)
    report = {
        "captions": len(captions),
        "left_out_before": source.counts(),
        "malformed_lines": [one._asdict() for one in source.malformed],
        "encoding": source.encoding or "utf-8",
        "not_asked_yet": num_missing,
        "kept": run_filter.num_kept,
        "rejected": dict(reasons.most_common()),
        "examples_of_rejected": examples,
        "edit_types": dict(types.most_common()),
        "hard_for_prompt_to_prompt": dict(tags.most_common()),
        "prompt_tokens": sum(entry.prompt_tokens for entry in known.values()),
        "completion_tokens": sum(entry.completion_tokens for entry in known.values()),
    }
    text = json.dumps(report, indent=1, ensure_ascii=False)
    write_durably(folder / REPORT, lambda beside: beside.write_text(text, encoding="utf-8"))
    return report


def _record(config: TripletsConfig, entry: Entry) -> dict[str, Any]:
    texts = (entry.caption, entry.instruction, entry.edited_caption)
    record: dict[str, Any] = dict(zip(FIELDS[config.output_format], texts, strict=True))
    if entry.url:
        record["url"] = entry.url
    if config.output_format == "ours":
        by = config.model or config.backend
        more = {"edit_type": edit_type_of(entry), "tags": list(tags_of(entry.instruction)), "seed": entry.seed}
        record = {**record, "source": by, "caption_id": entry.caption_id, **more}
    return record


def _write_both(folder: Path, lines: Callable[[], Iterator[tuple[bool, str]]]) -> None:
    """Write kept and rejected lines side by side; both appear as a whole."""

    def write_rejected(beside_rejected: Path) -> None:
        def write_kept(beside_kept: Path) -> None:
            with (
                beside_kept.open("w", encoding="utf-8") as kept,
                beside_rejected.open("w", encoding="utf-8") as rejected,
            ):
                for is_kept, line in lines():
                    (kept if is_kept else rejected).write(f"{line}\n")

        write_durably(folder / TRIPLETS, write_kept)

    try:
        write_durably(folder / REJECTED, write_rejected)
    except UnicodeEncodeError as error:
        raise PairStoreError(f"A text cannot be written as UTF-8 ({error}). Repair that caption.") from None
