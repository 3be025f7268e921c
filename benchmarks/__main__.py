"""`python -m ip2p.benchmarks`: one edit against diffusers' pipeline and against the host's own nodes, and on a GPU."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

import torch

from . import gpu
from .contenders import bench_model, headless
from .timing import measure, report, run_child, say

GOALS = {"ours": 1.05, "ours, s_I = 1 (two branches)": 0.7}
HOST_GOALS = {"our node": 1.05, "our node, s_I = 1 (two branches)": 0.7}


def main() -> None:
    """Run all comparisons."""
    parser = argparse.ArgumentParser(prog="python -m ip2p.benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each contender")
    parser.add_argument("--size", type=int, default=256, help="side of the picture in pixels, on the CPU")
    parser.add_argument("--steps", type=int, default=50, help="sampling steps, on the CPU")
    options = parser.parse_args()
    say(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as folder:
        model = bench_model(Path(folder))
        case = f"{model.name}, {options.size} px, {options.steps} steps of Euler ancestral, float32, CPU"
        seconds = measure(headless(model, options.size, options.steps), options.rounds)
        report(f"One edit against diffusers' pipeline ({case})", seconds, "diffusers", GOALS)
        for name in seconds:
            say(f"  {name:34} {_peak_memory(name, model, options)} MiB at its peak, alone in a process")
        _compare_in_host(model, case, options)
    gpu.run(options.rounds)


def _peak_memory(name: str, model: Path, options: argparse.Namespace) -> str:
    return run_child("peak_memory", name, model, options.size, options.steps)


def _compare_in_host(model: Path, case: str, options: argparse.Namespace) -> None:
    root = Path(os.environ.get("COMFYUI_PATH", "~/comfy/ComfyUI")).expanduser()
    if not (root / "main.py").is_file():
        say(f"\nAgainst the host's own nodes: unmeasured (no ComfyUI at {root}).")
        return
    seconds = json.loads(run_child("in_host", root, model, options.size, options.steps, options.rounds))
    report(f"One edit inside ComfyUI ({case})", seconds, "host's own nodes", HOST_GOALS)


if __name__ == "__main__":
    main()
