"""The command line as a user runs it: a child process, with pictures and tiny models in a folder of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy
import pytest
from PIL import Image

from ip2p.tests import tiny, tiny_clip
from ip2p.tests.forked import NO_LIMITS, Limits, ip2p, start_server

Cli = Callable[..., subprocess.CompletedProcess[str]]


def command(*arguments: object) -> list[str]:
    """What a user types."""
    return [sys.executable, "-m", "ip2p.trainer", *map(str, arguments)]


@pytest.fixture(scope="session", autouse=True)
def fork_server() -> None:
    """The server starts before any test; a program that starts one of its own finds it there."""
    start_server()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with a tiny editor with random weights, and models that cannot edit."""
    folder = tmp_path_factory.mktemp("models")
    tiny.tiny_editor(folder / "tiny.safetensors", prediction_type="v")
    tiny.tiny_editor(folder / "four.safetensors", in_channels=4)
    tiny.tiny_editor(folder / "nine.safetensors", in_channels=9)
    return folder


@pytest.fixture(scope="session")
def pair_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder for pairs: a tiny generator and CLIP with random weights, and an editor, which makes no pairs."""
    folder = tmp_path_factory.mktemp("pair_models")
    tiny.tiny_editor(folder / "generator_a.safetensors", in_channels=4)
    tiny.tiny_editor(folder / "editor_a.safetensors")
    tiny_clip.tiny_scorer(folder / "clip_a.safetensors")
    return folder


@pytest.fixture(scope="session")
def eval_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eval_models")
    tiny.tiny_editor(folder / "editor_a.safetensors", prediction_type="v")
    tiny.tiny_editor(folder / "generator_a.safetensors", in_channels=4, prediction_type="v")
    tiny_clip.tiny_scorer(folder / "clip_a.safetensors")
    return folder


def make_workplace(folder: Path, models: Path) -> Path:
    (folder / "models").symlink_to(models)
    return folder


def run_cli(
    workplace: Path, *arguments: object, model: str | None = "tiny", limits: Limits = NO_LIMITS
) -> subprocess.CompletedProcess[str]:
    """Run `ip2p` in a folder."""
    chosen = [] if model is None else ["--model", model]
    return ip2p(*arguments, *chosen, cwd=workplace, limits=limits)


@pytest.fixture
def workplace(tmp_path: Path, models: Path) -> Path:
    return make_workplace(tmp_path, models)


@pytest.fixture
def cli(workplace: Path) -> Cli:
    """Run `ip2p` in the workplace, with the tiny model unless another is named."""
    return partial(run_cli, workplace)


def noise_picture(width: int, height: int, num_channels: int = 3, seed: int = 0) -> Image.Image:
    """A picture with detail everywhere."""
    values = numpy.random.default_rng(seed).integers(0, 256, (height, width, num_channels), dtype=numpy.uint8)
    return Image.fromarray(values[..., 0] if num_channels == 1 else values)


def one_sentence(stderr: str) -> str:
    """Check that an error is told in single lines without traceback, and return them."""
    assert "Traceback" not in stderr
    assert stderr.strip()
    return stderr


def read_picture(path: Path) -> Image.Image:
    with Image.open(path) as opened:
        opened.load()
        return opened.copy()
