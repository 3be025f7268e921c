"""`ip2p triplets CONFIG.json`: captions to triplets of caption, instruction, edited caption; it resumes where it was stopped.

With --finetune the file holds the settings of a fine-tuning of a language model on triplets instead (FinetuneConfig).
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ...ip2p_core.config_file import read_config
from ...ip2p_core.errors import ServerError
from ...ip2p_core.pair_store.durable_files import remove_parts
from ..argument_parser import ArgumentParser
from ..run_record import write_run_record
from ..text_log import TextLog, say
from .captions import Caption, read_captions
from .check import check_file
from .config import TripletsConfig
from .finetune import FinetuneConfig, finetune
from .journal import Journal
from .moderation import Moderator, load_moderator
from .questions import prompt_of
from .run import TRIPLETS, Progress, ask, check_identity, write_results
from .writers import ServerWriter, TransformersWriter, Writer, server_of, write_by_grammar

LOG_SECONDS = 5.0
BYTES_PER_TOKEN = 4
"""Of English, about, with the vocabularies of language models."""
ANSWER_TOKENS = 45
"""Of an answer with two texts, about."""


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of `ip2p triplets`."""
    parser = ArgumentParser(prog="ip2p triplets", description=__doc__)
    parser.add_argument("config", type=Path, nargs="?", help="JSON file of settings")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting")
    parser.add_argument("--engine", choices=("local", "ray"), help="where to work: this machine, or a Ray cluster")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, in what time and for how much")
    parser.add_argument("--finetune", action="store_true", help="fine-tune a language model on triplets")
    parser.add_argument("--check", type=Path, metavar="FILE", help="check a file of triplets that people wrote")
    options = parser.parse_args(argv)
    if options.check:
        return check_file(options.check)
    if options.finetune:
        return finetune(read_config(FinetuneConfig, options.config, options.set), is_dry_run=options.dry_run)
    overrides = [f"engine={options.engine}"] if options.engine else []
    config = read_config(TripletsConfig, options.config, [*options.set, *overrides])
    source = read_captions(Path(config.captions), config.column, config.url_column, config.near_captions)
    captions = source.captions[config.first : config.first + config.count if config.count else None]
    left_out = ", ".join(f"{count} {name}" for name, count in source.counts().items() if count)
    say(f"{len(captions)} captions{f'; left out: {left_out}' if left_out else ''}.")
    for one in source.malformed[:5]:
        say(f"line {one.line}: {one.reason}")
    if options.dry_run:
        say(_estimate(config, captions))
        return 0
    return _run(config, source, captions)


def _run(config: TripletsConfig, source: Any, captions: list[Caption]) -> int:
    output = Path(config.output)
    with Journal(output) as journal, _stop_on_signals() as stop:
        remove_parts(output)
        check_identity(config)
        write_run_record(output, config)
        moderator = load_moderator(config.moderation, server_of(config) if config.moderation == "server" else None)
        writer = _writer(config, moderator, stop)
        log = TextLog(output, LOG_SECONDS, is_first_shown=False)
        known = {entry.key: entry for entry in journal.entries()}
        failure: ServerError | None = None
        try:
            progress = ask(config, captions, known, journal, writer, moderator, _reporter(log), stop.is_set)
            log.write(f"{progress.describe()}.")
        except ServerError as error:  # what has come is of use all the same
            failure = error
        report = write_results(config, source, captions, known, moderator)
    faults = ", ".join(f"{count} {name}" for name, count in report["rejected"].items())
    log.write(f"{report['kept']} triplets in {output / TRIPLETS}{f'; left out: {faults}' if faults else ''}.")
    if failure is not None:
        raise failure
    if stop.is_set():
        raise KeyboardInterrupt
    if report["not_asked_yet"]:
        log.write(f"{report['not_asked_yet']} got no answer; run it again. {getattr(writer, 'last_fault', '')}".strip())
    return 1 if report["not_asked_yet"] else 0


def _reporter(log: TextLog) -> Callable[[Progress], None]:
    """Report progress with the rate and the time that is left."""
    started = time.monotonic()

    def describe(progress: Progress) -> str:
        rate = progress.num_asked / (time.monotonic() - started)
        minutes = progress.num_left / max(rate, 1e-9) / 60
        return f"{progress.describe()}; {rate:.1f} a second, {minutes:.0f} min left"

    return lambda progress: log.report(lambda: describe(progress))


def _writer(config: TripletsConfig, moderator: Moderator | None, stop: threading.Event) -> Writer:
    if config.engine == "ray":
        from ..ray_triplets import write_on_ray  # needs the extra

        return partial(write_on_ray, config, moderator)
    if config.backend == "server":
        return ServerWriter(config, moderator, stop.is_set)
    if config.backend == "transformers":
        return TransformersWriter(config, moderator)
    return partial(write_by_grammar, config, moderator)


@contextmanager
def _stop_on_signals() -> Iterator[threading.Event]:
    """Let Ctrl-C and SIGTERM end the run after the answers that are under way; a second Ctrl-C ends it at once."""
    stop = threading.Event()

    def handle(number: int, _frame: object) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, handle) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _estimate(config: TripletsConfig, captions: list[Caption]) -> str:
    """Say how much there is to do; nothing is asked."""
    num_questions = len(captions) * config.edits_per_caption
    text = f"{num_questions} questions to {config.model or 'the grammar'}, for {config.output}"
    if config.backend == "grammar":
        return f"{text}: about {num_questions / 5000 / 60:.1f} minutes."
    sample = captions[:: max(1, len(captions) // 1000)]
    asked = sum(len(prompt_of(config, one).encode()) for one in sample) / BYTES_PER_TOKEN / len(sample)
    tokens_in, tokens_out = num_questions * asked, num_questions * ANSWER_TOKENS
    hours = (tokens_in + tokens_out) / config.tokens_per_second / 3600
    cost = (tokens_in * config.price_in + tokens_out * config.price_out) / 1e6
    priced = f"{cost:.2f} at the given prices" if cost else "price_in and price_out give the cost"
    return (
        f"{text}: about {tokens_in / 1e6:.2f} million tokens of questions and {tokens_out / 1e6:.2f} of answers, "
        f"{hours:.2f} hours at {config.tokens_per_second:g} tokens/s; {priced}."
    )
