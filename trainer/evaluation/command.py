"""`ip2p evaluate CONFIG.json`: systems x examples to scores, plots and one page; it resumes where it was stopped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...ip2p_core.config_file import read_config
from ...ip2p_core.pair_store.durable_files import remove_parts
from ..argument_parser import ArgumentParser
from ..line_journal import LineJournal
from ..run_record import package_versions, write_run_record
from ..text_log import TextLog, say
from .config import EvaluateConfig, Setting
from .examples import ExampleSet, read_examples
from .metrics import Metrics
from .plots import describe
from .report import PAGE, write_report
from .run import PICTURES, SCORES, Evaluation, num_edits
from .vision_judge import VisionJudge

LOG_SECONDS = 5.0
SHOWN = ("directional", "image", "instruction_match", "l1", "l1_outside", "target_l1")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of `ip2p evaluate`."""
    parser = ArgumentParser(prog="ip2p evaluate", description=__doc__)
    parser.add_argument("config", type=Path, nargs="?", help="JSON file of settings")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")
    options = parser.parse_args(argv)
    config = read_config(EvaluateConfig, options.config, options.set)
    found = read_examples(config)
    say(found.describe())
    if options.dry_run:
        say(_plan(config, found))
        return 0
    output = Path(config.output)
    journal = LineJournal(output, SCORES)
    try:
        for folder in (output, *(one for one in (output / PICTURES).rglob("*") if one.is_dir())):
            remove_parts(folder)
        write_run_record(output, config, "torchmetrics")
        metrics = Metrics.load(config)
        for name, reason in metrics.skipped.items():
            say(f"Not measured: {name} ({reason}).")
        log = TextLog(output, LOG_SECONDS, is_first_shown=False)
        judge = VisionJudge(config) if config.judge else None
        run = Evaluation(config, found.examples, metrics, journal, lambda one: log.report(one.describe), judge)
        rows = run.run()
        log.write(f"{run.progress.describe()}.")
        record = write_report(config, found, metrics, rows, package_versions("torchmetrics"))
    finally:
        journal.close()
    for one in record["systems"]:
        say(_line(one))
    log.write(f"The report is {output / PAGE}.")
    return 0


def _plan(config: EvaluateConfig, found: ExampleSet) -> str:
    lines = [f"{num_edits(config, found.examples)} edits into {config.output}:"]
    for system in config.system_configs():
        settings = "; ".join(describe(one) or "the model's own settings" for one in system.settings())
        lines.append(f"  {system.name} ({system.kind}): {settings}")
    return "\n".join(lines)


def _line(record: dict[str, Any]) -> str:
    means = record["means"]
    setting = ", ".join(f"{name} {record[name]:g}" for name in Setting._fields if name in record)
    scores = ", ".join(f"{name} {means[name]['value']:.4f}" for name in SHOWN if name in means)
    return f"{record['system']}{f' ({setting})' if setting else ''}: {scores}"
