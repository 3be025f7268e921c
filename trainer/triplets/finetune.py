"""Fine-tuning of a language model on a few hundred triplets, as the paper did with GPT-3 (section 3.1), and its report."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ...ip2p_core.config_file import too_low
from ...ip2p_core.errors import BadTriplet, ConfigError
from ...ip2p_core.instruction_writer import TEMPLATE, classify_edit
from ...ip2p_core.instruction_writer.prompts import (
    TEXT_END,
    base_completion,
    base_prompt,
    fill_template,
    json_completion,
)
from ...ip2p_core.pair_store.durable_files import write_durably
from ...ip2p_core.randomness import hash64
from ...ip2p_core.triplet import Triplet, deduplicate, normalise, prompt_id, read_triplets
from ..run_record import write_run_record
from ..text_log import say
from ..transformers_adapter import LanguageModel, Sampling
from ..trl_adapter import Example, SftSettings, finetune_model
from .check import STARTER
from .filters import Limits, find_own_fault
from .questions import judge_reply

REPORT = "finetune_report.json"


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Settings of a fine-tuning, as the JSON file names them.

    Attributes:
        base: folder of a transformers model.
        output: folder of the result, for `model` (or, with a LoRA, `adapter`) of TripletsConfig.
        triplets: JSONL file; "starter" for the 700 that come with the program.
        style: "completion" is the published format, for base models; "chat" asks by the template for JSON.
        template: of the question, for "chat".
        lora_rank: of the adapter; 0 trains the whole model.
        epochs: passes over the triplets; the paper took one.
        learning_rate: at the start; it falls as a cosine.
        batch_size: triplets at a time.
        accumulation: batches in an optimizer step.
        max_length: longest question and answer in tokens; what is longer is cut.
        held_out: part of the triplets that is not trained on.
        num_answers: held-out captions that the model answers for the report.
        temperature: of these answers.
        seed: of split, order and answers.
        save_steps: steps between two states to go on from.
        device: "auto" or "cpu".
    """

    base: str
    output: str
    triplets: str = "starter"
    style: Literal["completion", "chat"] = "completion"
    template: str = TEMPLATE
    lora_rank: int = 16
    epochs: float = 1.0
    learning_rate: float = 2e-4
    batch_size: int = 4
    accumulation: int = 4
    max_length: int = 384
    held_out: float = 0.1
    num_answers: int = 64
    temperature: float = 0.7
    seed: int = 0
    save_steps: int = 200
    device: str = "auto"

    def __post_init__(self) -> None:
        lowest = {"lora_rank": 0, "batch_size": 1, "accumulation": 1, "max_length": 16, "num_answers": 1}
        mistakes = too_low(self, {**lowest, "save_steps": 1})
        if not 0 < self.held_out < 1:
            mistakes.append(f"held_out is {self.held_out:g}; it must be above 0 and below 1.")
        if self.learning_rate <= 0 or self.epochs <= 0:
            mistakes.append("learning_rate and epochs must be above 0.")
        if mistakes:
            raise ConfigError(*mistakes)


def split_triplets(triplets: Sequence[Triplet], share: float, seed: int) -> tuple[list[Triplet], list[Triplet]]:
    """Part triplets into training and held-out ones, by their ids alone.

    Args:
        triplets: all of them.
        share: that is held out; at least one triplet is, and at least one is not.
        seed: of the choice.

    Returns:
        Training and held-out triplets.
    """
    ordered = sorted(triplets, key=lambda one: hash64(seed, "held out", prompt_id(one)))
    num_held = min(max(1, round(share * len(ordered))), len(ordered) - 1)
    return ordered[num_held:], ordered[:num_held]


def finetune(config: FinetuneConfig, *, is_dry_run: bool = False) -> int:
    """Fine-tune, then let the model answer held-out captions and write a report.

    Args:
        config: the settings.
        is_dry_run: only say what would be done.

    Returns:
        Exit code.

    Raises:
        BadTriplet: if there are fewer than two triplets.
    """
    path = STARTER if config.triplets == "starter" else Path(config.triplets)
    triplets = deduplicate(read_triplets(path).triplets)
    if len(triplets) < 2:
        raise BadTriplet(f"{path} holds {len(triplets)} different triplets; fine-tuning needs at least 2.")
    training, held_out = split_triplets(triplets, config.held_out, config.seed)
    steps = math.ceil(len(training) / (config.batch_size * config.accumulation)) * config.epochs
    say(f"{len(training)} triplets to learn, {len(held_out)} held out; about {steps:.0f} steps.")
    if is_dry_run:
        return 0
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    write_run_record(output, config, "trl", "peft")
    settings = SftSettings(
        config.epochs, config.learning_rate, config.batch_size, config.accumulation, config.max_length, config.lora_rank,
        config.seed, config.save_steps, config.style == "chat", config.device,
    )  # fmt: skip
    learnt, kept = ([_example(config, one) for one in part] for part in (training, held_out))
    losses = finetune_model(Path(config.base), output, learnt, kept, settings, say)
    report = {"held_out_loss": losses, **_answers(config, training, held_out)}
    write_durably(output / REPORT, lambda beside: beside.write_text(json.dumps(report, indent=1, ensure_ascii=False)))
    say(describe_report(report))
    return 0


def describe_report(report: dict[str, Any]) -> str:
    """Say in one line how good a fine-tuned model is."""
    losses, kinds = report["held_out_loss"], report["edit_types"]
    return (
        f"Held-out loss {losses['before']:.3f} -> {losses['after']:.3f}. Of {report['num_answers']} held-out captions "
        f"{100 * report['valid']:.1f} % got a valid triplet, {100 * report['identity']:.1f} % an unchanged caption; "
        f"{100 * report['novel']:.0f} % of the instructions are new; {len(kinds)} kinds of edits."
    )


def _example(config: FinetuneConfig, one: Triplet) -> Example:
    if config.style == "completion":
        # trl adds the end-of-text token behind it
        return Example(base_prompt(one.caption), base_completion(one.instruction, one.edited_caption))
    return Example(fill_template(config.template, one.caption), json_completion(one.instruction, one.edited_caption))


def _answers(config: FinetuneConfig, training: Sequence[Triplet], held_out: Sequence[Triplet]) -> dict[str, Any]:
    """Let the model answer held-out captions once each."""
    output = Path(config.output)
    has_lora = bool(config.lora_rank)
    model = LanguageModel(
        Path(config.base) if has_lora else output, config.device, "auto", output if has_lora else None
    )
    asked, faults, kinds, shown = held_out[: config.num_answers], Counter[str](), Counter[str](), []
    known = {normalise(one.instruction) for one in training}
    num_novel = 0
    for start in range(0, len(asked), config.batch_size):
        part = asked[start : start + config.batch_size]
        replies = model.complete(
            [_example(config, one).prompt for one in part],
            [hash64(config.seed, "answer", prompt_id(one)) for one in part],
            Sampling(config.temperature, max_tokens=min(256, config.max_length)),
            is_chat=config.style == "chat",
        )
        for one, reply in zip(part, replies, strict=True):
            edit, fault = judge_reply(reply.text, is_cut=reply.is_cut, caption=one.caption, moderator=None)
            fault = fault or find_own_fault(one.caption, edit.instruction, edit.edited_caption, Limits(max_changed=1.0))  # type: ignore[union-attr]
            shown.append({"caption": one.caption, "answer": reply.text.removesuffix(TEXT_END), "fault": fault})
            faults[fault] += 1
            if not fault and edit is not None:
                kinds[classify_edit(edit.instruction)] += 1
                num_novel += normalise(edit.instruction) not in known
    num_valid = faults[""]
    return {
        "num_answers": len(asked),
        "valid": num_valid / len(asked),
        "identity": faults["identity"] / len(asked),
        "novel": num_novel / max(1, num_valid),
        "faults": {name: count for name, count in faults.most_common() if name},
        "edit_types": dict(kinds.most_common()),
        "settings": asdict(config),
        "answers": shown,
    }
