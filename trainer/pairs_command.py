"""`ip2p pairs CONFIG.json`: triplets to a filtered dataset of pairs; it resumes where it was stopped."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..ip2p_core.config_file import read_config
from ..ip2p_core.errors import BadTriplet, ConfigError
from ..ip2p_core.open_clip_adapter import count_tokens
from ..ip2p_core.pair_generation import draw_samples
from ..ip2p_core.pair_store import PairWriter, SaveLimits
from ..ip2p_core.pair_store.durable_files import remove_parts
from ..ip2p_core.safety import SafetyClassifier
from ..ip2p_core.triplet import Triplet, deduplicate, read_triplets
from .argument_parser import ArgumentParser
from .diffusers_adapter import choose_device
from .edit_backend import Editor
from .edit_models import resolve_model
from .generate_pairs import PairGenerator, run_folder
from .pair_config import PairsConfig
from .pair_jobs import Engine, do_jobs_here, do_jobs_in_processes
from .pair_sampler import sample_pairs
from .pair_spool import Spool
from .pair_units import UnitMaker, load_model, load_safety, unsafe_prompts
from .ray_jobs import do_jobs_on_ray
from .run_record import write_run_record
from .text_log import TextLog, say
from .triplets.filters import edit_type_of

LOG_SECONDS = 10.0
MAX_TOKENS = 77
PNG_SHARE = 0.6
"""Size of the PNG of a picture, as a part of its three bytes a pixel: about that of photographs."""


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of `ip2p pairs`."""
    parser = ArgumentParser(prog="ip2p pairs", description=__doc__)
    parser.add_argument("config", type=Path, nargs="?", help="JSON file of settings")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting")
    parser.add_argument("--engine", choices=("local", "ray"), help="where to work: this machine, or a Ray cluster")
    parser.add_argument("--workers", type=int, help="processes, or actors of the cluster")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, in what time and space")
    options = parser.parse_args(argv)
    chosen = {"engine": options.engine, "workers": options.workers}
    overrides = [f"{name}={value}" for name, value in chosen.items() if value is not None]
    config = read_config(PairsConfig, options.config, [*options.set, *overrides])
    config = replace(config, models=str(Path(config.models).resolve()))  # workers may have another working folder
    triplets = _read(config)
    models = Path(config.models)
    if options.dry_run:
        say(_estimate(config, load_model(config, str(choose_device(config.device))), triplets))
        return 0
    generator_path, scorer_path = resolve_model(config.generator, models), resolve_model(config.scorer, models)
    engine, safety = _engine(config)
    output = Path(config.output)
    run_folder(output).mkdir(parents=True, exist_ok=True)
    write_run_record(run_folder(output), config)
    log = TextLog(run_folder(output), LOG_SECONDS, is_first_shown=True)
    generator = PairGenerator(config, engine, partial(unsafe_prompts, safety))
    limits = SaveLimits(seconds=config.save_seconds)
    with PairWriter(output, config.identity(generator_path, scorer_path), limits) as writer:
        remove_parts(run_folder(output))
        known = writer.manifest.notes.get("safety", {})
        note = {"filter": config.safety, "model": config.safety_model, "num_unsafe": known.get("num_unsafe", 0)}
        writer.note("safety", note)
        progress = generator.run(
            triplets, writer, Spool(run_folder(output) / "spool"), lambda one: log.report(one.describe)
        )
        writer.note("safety", {**note, "num_unsafe": note["num_unsafe"] + progress.num_unsafe})
    log.write(f"{progress.describe()}. The dataset is in {output}.")
    return 0


def _engine(config: PairsConfig) -> tuple[Engine, SafetyClassifier | None]:
    """Choose who makes the units, and load what this process needs itself."""
    if config.engine == "ray":
        return partial(do_jobs_on_ray, num_workers=config.workers), load_safety(config)
    if config.workers > 1:
        return partial(do_jobs_in_processes, num_workers=config.workers), load_safety(config)
    maker = UnitMaker.load(config)
    return partial(do_jobs_here, maker), maker.safety


def _read(config: PairsConfig) -> list[Triplet]:
    """Read the triplets with their edit types, and leave out those whose captions the text encoder would cut."""
    content = read_triplets(config.triplets, config.malformed_lines)
    say(content.report())
    unique = deduplicate(content.triplets)
    triplets = [replace(one, edit_type=edit_type_of(one)) for one in unique]
    usable = [one for one in triplets if max(map(count_tokens, (one.caption, one.edited_caption))) <= MAX_TOKENS]
    if len(usable) < len(triplets):
        say(f"{len(triplets) - len(usable)} triplets are left out: a caption has more than {MAX_TOKENS} tokens.")
    if not usable:
        raise BadTriplet(f"No triplet of {config.triplets} is left; every caption has more than {MAX_TOKENS} tokens.")
    types = {one.edit_type for one in usable}
    if unknown := sorted(config.self_replace_of.keys() - types):
        raise ConfigError(
            f"self_replace_of names {', '.join(unknown)}, but no triplet of {config.triplets} has such an edit_type; there are "
            f"{', '.join(sorted(types))}. Use these names, or correct the lines."
        )
    return usable


def _estimate(config: PairsConfig, model: Editor, triplets: list[Triplet]) -> str:
    """Say what a run would do; the time is measured on one batch of two steps."""
    settings, sampling = config.pair_settings(), config.sampling()
    size = config.samples_per_unit
    draws = draw_samples(triplets[0], settings, config.seed, range(size))
    seconds = []
    for steps in (1, 3):
        started = time.monotonic()
        sample_pairs(model, draws, [triplets[0]] * size, settings, replace(sampling, steps=steps))
        seconds.append(time.monotonic() - started)
    per_step = max(0.0, (seconds[1] - seconds[0]) / 2)
    num_pairs = len(triplets) * config.num_samples
    hours = num_pairs / size * (seconds[0] + per_step * (config.steps - 1)) / 3600
    gigabytes = len(triplets) * config.keep * 2 * 3 * config.width * config.height * PNG_SHARE / 1e9
    return (
        f"{len(triplets)} prompts, {num_pairs} pairs of {config.width}x{config.height} in {config.steps} steps: about "
        f"{hours:.2f} hours on {model.device}, without scoring; at most {len(triplets) * config.keep} pairs kept, about "
        f"{gigabytes:.2f} GB, in {config.output}."
    )
