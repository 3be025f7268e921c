"""The command `dataset`: check, count, look through, review, export and import datasets of pairs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..ip2p_core.errors import ConfigError
from ..ip2p_core.pair_record import SPLITS
from ..ip2p_core.pair_store import PairStore
from ..ip2p_core.pair_store.duplicates import find_duplicates
from ..ip2p_core.pair_store.folder_import import read_folders
from ..ip2p_core.pair_store.hub_export import export_hub
from ..ip2p_core.pair_store.importing import import_pairs
from ..ip2p_core.pair_store.paired_export import PAIRED_LAYOUTS, export_paired
from ..ip2p_core.pair_store.parquet_import import ColumnNames, read_parquet
from ..ip2p_core.pair_store.published_layout import export_published, read_published
from ..ip2p_core.pair_store.review import copy_without, read_rejections, reject, restore
from ..ip2p_core.pair_store.statistics import compute_statistics
from ..ip2p_core.pair_store.validation import drop_shards, validate
from .argument_parser import ArgumentParser
from .dataset_page import SORTS, write_page

PARTLY = 1
EXPORTS = ("published", "diffusers", *PAIRED_LAYOUTS)
COLUMN_FIELDS = ("input_image", "instruction", "edited_image", "caption", "edited_caption", "weight")
EXAMPLES = """\
examples:
  ip2p dataset validate pairs/                        every file against its hash, every picture
  ip2p dataset validate pairs/ --drop                 take damaged shards out, so that only they are made again
  ip2p dataset browse pairs/ -o pairs.html            look, tick what is bad, download the list
  ip2p dataset apply pairs/ rejected.json             leave these out from now on; the pictures stay
  ip2p dataset export pairs/ --format musubi -o out/
  ip2p dataset import folders before/ after/ --instructions texts.csv -o pairs/
"""


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Args:
        argv: the arguments after `dataset`.

    Returns:
        0 if all is well, 1 if a check found faults or an import skipped something.
    """
    options = build_parser().parse_args(list(argv))
    return int(options.run(options))


def build_parser() -> argparse.ArgumentParser:
    """Describe the arguments."""
    parser = ArgumentParser(
        prog="ip2p dataset",
        description="Check, review, export and import datasets of training pairs.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_checks(commands)
    _add_review(commands)
    _add_export(commands)
    _add_imports(commands)
    return parser


def _add(commands: Any, name: str, run: Any, text: str, *, has_dataset: bool = True) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    parser.set_defaults(run=run)
    if has_dataset:
        parser.add_argument("dataset", type=Path, metavar="DATASET", help="folder with manifest.json")
    return parser


def _add_split(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--split", choices=list(SPLITS), help="only this split; default: all")


def _add_checks(commands: Any) -> None:
    check = _add(commands, "validate", _validate, "check every file and picture, and name damaged shards")
    check.add_argument("--quick", action="store_true", help="hashes of files alone, no pictures")
    check.add_argument("--drop", action="store_true", help="take damaged shards out; the files move to dropped/")
    stats = _add(commands, "stats", _stats, "count pairs, candidates, splits, scores and duplicates")
    stats.add_argument("--json", action="store_true", help="print JSON")


def _add_review(commands: Any) -> None:
    browse = _add(commands, "browse", _browse, "write one HTML page with pictures, in which pairs can be rejected")
    browse.add_argument("-o", "--output", type=Path, required=True, metavar="PAGE.html")
    browse.add_argument("--sort", choices=SORTS, default="stored", help="a score: lowest first")
    browse.add_argument("--limit", type=int, default=200, metavar="N", help="pairs at most; default 200")
    browse.add_argument("--size", type=int, default=256, metavar="PIXELS", help="longer side of a picture; default 256")
    _add_split(browse)
    apply = _add(commands, "apply", _apply, "leave out the pairs of a list; nothing is deleted")
    apply.add_argument("list", type=Path, metavar="LIST.json", help="what the page downloaded")
    apply.add_argument("-o", "--output", type=Path, metavar="NEW", help="write a new dataset without them instead")
    apply.add_argument("--restore", action="store_true", help="take back earlier rejections of these pairs")


def _add_export(commands: Any) -> None:
    export = _add(commands, "export", _export, "write the pairs in the layout of another program")
    export.add_argument("--format", choices=EXPORTS, required=True)
    export.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="a new folder")
    _add_split(export)


def _add_imports(commands: Any) -> None:
    text = "make a dataset from pairs that exist; running it again adds what is missing"
    kinds = _add(commands, "import", None, text, has_dataset=False).add_subparsers(required=True, metavar="KIND")
    published = _add(kinds, "published", _import_published, "the published InstructPix2Pix folders", has_dataset=False)
    published.add_argument("source", type=Path, metavar="FOLDER")
    folders = _add(
        kinds, "folders", _import_folders, "your own folders, matched by file name without suffix", has_dataset=False
    )
    folders.add_argument("before", type=Path, metavar="BEFORE")
    folders.add_argument("after", type=Path, metavar="AFTER")
    texts = folders.add_mutually_exclusive_group(required=True)
    texts.add_argument("--instructions", type=Path, metavar="PATH", help="folder of .txt files, or .txt, .json, .csv")
    texts.add_argument("--instruction", metavar="TEXT", help="one for all pairs")
    columns = _add(
        kinds, "parquet", _import_parquet, "Parquet files or a downloaded Hugging Face dataset", has_dataset=False
    )
    columns.add_argument("source", type=Path, metavar="PATH")
    for field in COLUMN_FIELDS:
        columns.add_argument(f"--{field.replace('_', '-')}", metavar="COLUMN", help="where the usual names do not fit")
    for parser in (published, folders, columns):
        parser.add_argument("-o", "--output", type=Path, required=True, metavar="DATASET")
        parser.add_argument("--strict", action="store_true", help="stop at the first pair that cannot be used")


def _validate(options: argparse.Namespace) -> int:
    report = validate(options.dataset, is_deep=not options.quick)
    _say(f"{report.num_pairs} pairs are whole.")
    for fault in report.faults:
        _say(f"Shard {fault.shard}: {fault.reason}")
    for name in report.left_overs:
        _say(f"Left over from an interrupted run, ignored: {name}")
    if not report.faults:
        _say(f"Duplicates: {find_duplicates(PairStore(options.dataset)).describe()}.")
        return 0
    if not options.drop:
        _say("Run it again with --drop to take the damaged shards out; then only their pairs are made again.")
        return PARTLY
    num_pairs = drop_shards(options.dataset, report.bad_shards)
    _say(f"Dropped {', '.join(report.bad_shards)}: {num_pairs} pairs are to be made again.")
    return 0


def _stats(options: argparse.Namespace) -> int:
    store = PairStore(options.dataset)
    record = compute_statistics(store).to_dict()
    duplicates = find_duplicates(store)
    record["duplicates"] = {name: len(found) for name, found in duplicates._asdict().items()}
    if options.json:
        _say(json.dumps(record, indent=2, ensure_ascii=False))
        return 0
    for name in ("candidates_span", "accepted_span"):
        for field, span in record.pop(name).items():
            if span is not None:
                title = f"{field} of {name.removesuffix('_span')}"
                _say(f"{title:40} {span['mean']:.3f} ({span['min']:.3f} to {span['max']:.3f})")
    record["duplicates"] = duplicates.describe()
    for name, value in record.items():
        shown = ", ".join(f"{key} {count}" for key, count in value.items()) if isinstance(value, dict) else value
        _say(f"{name.replace('_', ' '):40} {shown}")
    return 0


def _browse(options: argparse.Namespace) -> int:
    store = PairStore(options.dataset)
    if options.limit < 1 or options.size < 1:
        raise ConfigError(f"--limit is {options.limit} and --size is {options.size}; both must be at least 1.")
    num_pairs = write_page(store, options.output, options.split, options.sort, options.limit, options.size)
    _say(f"Wrote {num_pairs} pairs to {options.output}.")
    return 0


def _apply(options: argparse.Namespace) -> int:
    keys = read_rejections(options.list)
    if options.output is not None and options.restore:
        raise ConfigError("--restore and -o exclude each other. Use one of them.")
    if options.output is not None:
        num_pairs = copy_without(options.dataset, keys, options.output)
        _say(f"Wrote {num_pairs} pairs to {options.output}; {options.dataset} is unchanged.")
    elif options.restore:
        _say(f"{restore(options.dataset, keys)} pairs are back.")
    else:
        _say(f"{reject(options.dataset, keys)} pairs are left out from now on; --restore takes them back.")
    return 0


def _export(options: argparse.Namespace) -> int:
    store = PairStore(options.dataset)
    if options.format == "published":
        num_pairs = export_published(store, options.output, options.split)
    elif options.format == "diffusers":
        num_pairs = export_hub(store, options.output, options.split)
    else:
        num_pairs = export_paired(store, options.output, options.format, options.split)
    _say(f"Wrote {num_pairs} pairs to {options.output} for {options.format}.")
    return 0


def _import_published(options: argparse.Namespace) -> int:
    return _import(options, read_published(options.source), options.source)


def _import_folders(options: argparse.Namespace) -> int:
    texts = options.instructions if options.instruction is None else options.instruction
    return _import(options, read_folders(options.before, options.after, texts), options.before)


def _import_parquet(options: argparse.Namespace) -> int:
    columns = ColumnNames(**{field: getattr(options, field) for field in COLUMN_FIELDS})
    return _import(options, read_parquet(options.source, columns), options.source)


def _import(options: argparse.Namespace, items: Any, source: Path) -> int:
    config = {"imported_from": source.resolve().name}
    report = import_pairs(items, options.output, config, "raise" if options.strict else "skip")
    _say(report.describe())
    return PARTLY if report.problems else 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
