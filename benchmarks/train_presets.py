"""`python -m ip2p.benchmarks.train_presets`: what every preset of `ip2p train` takes, each in a process of its own.

Memory at its peak, samples a second and the share of time spent waiting for data. On a CPU with the reduced model of
`benchmarks.train`, in float32 and with AdamW instead of its 8-bit form; on a GPU with SD1.5 at full size and random weights.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from ..ip2p_core.checkpoint import write_checkpoint
from ..ip2p_core.model_config import family_config
from ..ip2p_core.train_job import PRESETS, make_train_config
from ..trainer.diffusers_adapter import new_modules
from ..trainer.training.loop import Window
from ..trainer.training.run_log import peak_memory_mib
from .gpu import matrix_rate
from .timing import run_child, say
from .train import our_loop, write_model, write_pairs

PX = 256
FLOP_PER_SAMPLE = 537.4e9  # SD1.5's U-Net forward and backward at 256 px
GOALS_GIB = {"24gb": 24.0, "lora": 12.0}
GOAL_RATE = 600.0  # samples a second on an H200, cached, bfloat16, compiled
NUM_STEPS = {"cpu": 1, "cuda": 20}


def main() -> None:
    """Measure all presets; with arguments, be the child process of one."""
    if len(sys.argv) > 1:
        say(json.dumps(_measure(json.loads(sys.argv[1]))))
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        _run(Path(folder), device)


def _run(folder: Path, device: str) -> None:
    base = folder / "base.safetensors"
    if device == "cuda":
        _write_full_size(base)
        say(f"\nPresets of ip2p train, SD1.5 full size, {torch.cuda.get_device_name()}")
    else:
        write_model(base)
        say("\nPresets of ip2p train, reduced SD1.5 (quarter width), float32, CPU; on a GPU: unmeasured (none here)")
    sizes = {name: {"embedded": 64}.get(name, PX) for name in PRESETS}
    datasets = {size: str(write_pairs(folder / f"pairs_{size}", size)) for size in set(sizes.values())}
    shared = {"base": "base", "models": str(folder), "cache_views": 1, "validation_steps": 0, "device": device}
    for name in PRESETS:
        run = {**shared, "preset": name, "dataset": datasets[sizes[name]], "output": str(folder / name)}
        _show(name, run | ({"precision": "fp32", "optimizer": "adamw"} if device == "cpu" else {}))
    if device == "cuda":
        fastest = {"precision": "bf16", "compile": True, "cache_text": True, "workers": 8, "micro_batch_size": 128}
        run = {**shared, "preset": "paper", "dataset": datasets[PX], "output": str(folder / "fastest"), **fastest}
        found = _show("paper, bf16, compiled", run)
        share = found["samples_per_second"] * FLOP_PER_SAMPLE / matrix_rate()
        verdict = "reached" if found["samples_per_second"] >= GOAL_RATE else "MISSED"
        say(f"  {share:.1%} of the measured matrix rate; goal >= {GOAL_RATE:g} samples/s: {verdict}")


def _show(name: str, run: dict[str, Any]) -> dict[str, float]:
    """Measure one preset and print a line."""
    found: dict[str, float] = json.loads(run_child("train_presets", json.dumps(run)))
    goal = GOALS_GIB.get(name) if run["device"] == "cuda" else None
    verdict = "" if goal is None else f"   goal <= {goal:g} GiB: {'reached' if found['gib'] <= goal else 'MISSED'}"
    say(
        f"  {name:24} micro-batch {found['micro_batch']:3.0f}: {found['gib']:6.2f} GiB at its peak ({found['before']:.2f} before), "
        f"{found['samples_per_second']:7.2f} samples/s, {found['waiting']:.1%} waiting for data{verdict}"
    )
    return found


def _measure(run: dict[str, Any]) -> dict[str, float]:
    """Take some steps; a step is one micro-batch, as more of them take no more memory."""
    config = make_train_config(run)
    config = make_train_config({**run, "batch_size": config.micro_batch_size, "steps": 1000})
    device = torch.device(config.device)
    before = (peak_memory_mib(device) or 0) / 1024
    loop, data = our_loop(config)
    loop.one_step(data, Window())
    window, count, start = Window(), NUM_STEPS[device.type], time.perf_counter()
    for _ in range(count):
        loop.one_step(data, window)
    float(window.losses[-1])
    seconds = time.perf_counter() - start
    return {
        "micro_batch": config.micro_batch_size,
        "before": before,
        "gib": (peak_memory_mib(device) or 0) / 1024,
        "samples_per_second": window.num_samples / seconds,
        "waiting": window.waited / seconds,
    }


def _write_full_size(path: Path) -> None:
    """Write SD1.5 with 8 input channels and random weights."""
    config = family_config("sd1", 8)
    torch.manual_seed(0)
    unet, vae, text = new_modules(config.unet, config.vae, config.text_encoder)
    write_checkpoint(path, unet.state_dict(), vae.state_dict(), text.state_dict(), config, torch.float32)


if __name__ == "__main__":
    main()
