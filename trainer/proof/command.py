"""`ip2p proof`: the paper's whole chain in the rendered world, from captions to figures; every stage resumes.

ip2p proof --set output=proof_run                    two processor cores, some hours
ip2p proof --preset smoke --set output=proof_smoke   a few minutes: checks wiring, not quality
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..argument_parser import ArgumentParser
from ..run_record import write_run_record
from ..text_log import TextLog, say
from .beside import begun_beside, leave_cores, text2live_beside, train_judge_beside
from .bias import bias_stage, write_biased_pairs
from .ceiling import ceiling_trials
from .config import PRESETS, STUDIES, VARIANTS, ProofConfig, read_proof_config
from .edits import training_edits
from .failures import study_failures, write_failure_pairs
from .findings import sharing_stage
from .photographs import photograph_stage
from .report import write_report
from .spoiled import error_curves, error_table, error_trials, spoiled_stage
from .stages import JUDGE, Run, filter_stage, judge_stage, pairs_stage, self_attention_stage, unshared_stage
from .training import train_editors
from .trials import Scales, text2live_stage, trial_stage, tune_stage
from .world_models import autoencoder_stage, generator_stage


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of `ip2p proof`."""
    parser = ArgumentParser(
        prog="ip2p proof", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, nargs="?", help="JSON file of settings")
    parser.add_argument("--preset", choices=tuple(PRESETS), help="default: cpu")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")
    options = parser.parse_args(argv)
    preset = [f"preset={options.preset}"] if options.preset else []
    config = read_proof_config(options.config, [*preset, *options.set])
    if options.dry_run:
        say(_plan(config))
        return 0
    config.folder.mkdir(parents=True, exist_ok=True)
    write_run_record(config.folder, config, "matplotlib")
    log = TextLog(config.folder, 0.0, is_first_shown=True)
    path = run_all(Run(config, log.write))
    log.write(f"The report is {path}.")
    return 0


def run_all(run: Run) -> Path:
    """Do every stage that is missing, and write the report.

    Args:
        run: the run folder.

    Returns:
        The README of the report.
    """
    config, started = run.config, time.monotonic()
    leave_cores()
    with begun_beside(config) as wait_for:
        autoencoder = run.stage("autoencoder", partial(autoencoder_stage, run))
        generator = run.stage("generator", partial(generator_stage, run, autoencoder["scaling_factor"]))
        edits, samples = training_edits(config), config.num_samples
        run.stage("pairs", lambda: pairs_stage(run, "shared", edits, sharing="both", num_samples=samples))
        results: dict[str, Any] = {"autoencoder": autoencoder, "generator": generator}
        results["filter"] = run.stage("filter", partial(filter_stage, run))
        run.stage("unshared", partial(unshared_stage, run, results["filter"]["kept"]))
        if "self_attention" in config.variants:
            run.stage("self_attention", partial(self_attention_stage, run))
        if "failures" in config.studies:
            write_failure_pairs(run)
        if "bias" in config.studies:
            write_biased_pairs(run)
        if "errors" in config.studies:
            results["spoiled"] = run.stage("spoiled", partial(spoiled_stage, run))
        wait_for(train_judge_beside)
        results["judge"] = run.stage(JUDGE, partial(judge_stage, run))
        results["sharing"] = run.stage("sharing", partial(sharing_stage, run))
        train_editors(run)
        results["tuning"] = run.stage("tuning", partial(tune_stage, run))
        scales = Scales(results["tuning"]["text_scale"], results["tuning"]["image_scale"])
        trials = []
        for seed in config.seeds:
            # what is on the disk is not edited again, and variants may be added
            trials += trial_stage(run, seed, scales)
        wait_for(text2live_beside)
        trials += ceiling_trials(run) + text2live_stage(run)
        if "failures" in config.studies:
            results["failures"] = study_failures(run, scales)
        if "bias" in config.studies:
            results["bias"] = run.stage("bias", partial(bias_stage, run, scales))
        if "errors" in config.studies:
            judged = error_trials(run, scales)
            results["errors"] = error_table(judged, scales.text), error_curves(judged)
        results["photographs"] = run.stage("photographs", partial(photograph_stage, run, scales))
        hours = (time.monotonic() - started) / 3600
    return write_report(run, results, trials, hardware(hours))


def hardware(hours: float) -> str:
    """Say what it ran on and for how long."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} processor cores"
    return f"it ran on {device} ({platform.machine()}), its last call for {_length(hours)}"


def _length(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.0f} minutes"


def _plan(config: ProofConfig) -> str:
    lines = [
        f"An autoencoder and a generator trained for {config.autoencoder_minutes + config.generator_minutes:g} minutes,",
        f"{config.num_prompts} triplets, {config.num_prompts * (config.num_samples + config.num_unshared)} pairs of {config.size} px in "
        f"{config.pair_steps} steps, a judge trained for {config.judge_seconds:.0f} s,",
        f"{sum(len(config.variants_of(seed)) for seed in config.seeds)} editors of {config.train_steps} steps of {config.batch_size} pairs:",
        *(f"  {name}: {VARIANTS[name]}" for name in config.variants),
        *(f"  for the study of {study}: {', '.join(STUDIES[study])}" for study in config.studies),
        f"{3 * config.num_tests} test edits at {len(config.text_scales) + len(config.image_scales)} scales, "
        f"{len(config.strengths)} strengths of SDEdit; all in {config.output}, the report in {config.report_folder}.",
    ]
    return "\n".join(lines)
