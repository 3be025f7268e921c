"""A training as a child process of the host: started, watched, stopped; it goes on when the browser or the queue is gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
from PIL import Image

from ...ip2p_core.errors import ConfigError, TrainingHalted
from ...ip2p_core.train_job import TrainConfig, make_train_config
from ...ip2p_core.train_progress import ProgressEvent, describe
from . import folders

RUNS = "ip2p_runs"
LAUNCHER = Path(__file__).resolve().parents[2] / "trainer" / "launch.py"
POLL_SECONDS, STOP_SECONDS = 0.3, 120.0
PREVIEW_PX = 768
_STARTED: dict[Path, subprocess.Popen] = {}
"""By run folder; only those that this host started."""


def run_folder(name: str) -> Path:
    """Return the folder of a run: output/ip2p_runs/NAME.

    Raises:
        ConfigError: if the name points outside.
    """
    if not name.strip() or folders.is_outside(name) or len(Path(name).parts) > 1:
        raise ConfigError(f'The name "{name}" cannot name a checkpoint; give a plain name like "my_editor".')
    return Path(folder_paths.get_output_directory()) / RUNS / name.strip()


def make_config(dataset: str, base: str, name: str, settings: dict[str, Any]) -> TrainConfig:
    """Fill in the host's folders.

    Args:
        dataset: folder of the dataset.
        base: name of the base model.
        name: of the checkpoint that comes out.
        settings: further settings of `ip2p train`.

    Returns:
        The settings of the run.

    Raises:
        ConfigError: naming every mistake.
        CheckpointError: if there is no such base.
    """
    embedded = folders.EMBEDDED.get(base)
    path = folders.resolve_model(base)
    return make_train_config(
        {
            "validation_steps": 100,
            **settings,
            "dataset": dataset,
            "base": embedded or path.name,
            "models": str(path.parent),
            "output": str(run_folder(name)),
            "name": name.strip(),
            "model_folder": str(Path(folder_paths.get_folder_paths(folders.MODEL_FOLDER)[0])),
            "lora_folder": str(Path(folder_paths.get_folder_paths("loras")[0])),
        }
    )


def start(config: TrainConfig) -> subprocess.Popen:
    """Start a run, or return the one that goes on in its folder already.

    Args:
        config: of the run.

    Returns:
        The process.
    """
    folder = Path(config.output)
    running = _STARTED.get(folder)
    if running is not None and running.poll() is None:
        return running
    comfy.model_management.unload_all_models()
    comfy.model_management.soft_empty_cache()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "job.json"
    path.write_text(json.dumps(asdict(config), indent=1), encoding="utf-8")
    with (folder / "console.txt").open("w", encoding="utf-8") as console:
        _STARTED[folder] = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, str(LAUNCHER), "train", str(path)],
            stdout=console,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=os.name != "nt",
        )
    return _STARTED[folder]


def stop(folder: Path) -> bool:
    """Let a run that this host started save and end; False if there is none."""
    running = _STARTED.get(folder)
    if running is None or running.poll() is not None:
        return False
    running.send_signal(signal.SIGTERM)
    try:
        running.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        running.kill()
        running.wait()
    return True


def watch(config: TrainConfig, process: subprocess.Popen, show: Callable[[str], None]) -> None:
    """Show progress and the newest grid until the run is done; the host's interrupt lets it save and end.

    Args:
        config: of the run.
        process: the run.
        show: shows a line on the node.

    Raises:
        TrainingHalted: if the run ends before its last step, with what it said.
    """
    folder = Path(config.output)
    bar = comfy.utils.ProgressBar(config.steps)
    log = _Tail(folder / "log.jsonl")
    step, grid = 0, None
    try:
        while True:
            is_over = process.poll() is not None
            for event in log.events():
                step = event.step
                grid = event.path if event.kind == "grid" else grid
                show(describe(event))
            bar.update_absolute(step, config.steps, _preview(grid))
            if is_over:
                break
            comfy.model_management.throw_exception_if_processing_interrupted()
            time.sleep(POLL_SECONDS)
    except BaseException:
        stop(folder)
        raise
    if process.returncode:
        said = (folder / "console.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        reason = said[-1] if said else f"it ended with code {process.returncode}"
        raise TrainingHalted(f"{reason} (the whole console: {folder / 'console.txt'})")


class _Tail:
    """Reads the lines of a log that another process writes, each once; from the end, where a run goes on."""

    def __init__(self, path: Path) -> None:
        self.path, self._position = path, path.stat().st_size if path.exists() else 0

    def events(self) -> list[ProgressEvent]:
        """Return what is new."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as opened:
            opened.seek(self._position)
            lines = opened.read().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith(b"\n")]
        self._position += sum(map(len, whole))
        return [ProgressEvent.from_json(line.decode()) for line in whole]


def _preview(grid: str | None) -> tuple[str, Image.Image, int] | None:
    if grid is None or not Path(grid).exists():
        return None
    with Image.open(grid) as opened:
        return "JPEG", opened.convert("RGB"), PREVIEW_PX
