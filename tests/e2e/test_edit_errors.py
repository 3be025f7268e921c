"""Every mistake gets its one sentence, no traceback, and nothing that was finished is lost."""

from __future__ import annotations

import os
import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ip2p.tests.e2e.conftest import Cli, command, noise_picture, one_sentence
from ip2p.tests.forked import ENVIRONMENT, Limits


@pytest.fixture(autouse=True)
def _photo(workplace: Path) -> None:
    noise_picture(40, 30).save(workplace / "photo.png")


def test_bad_pictures_of_a_batch_are_named_and_the_good_ones_are_edited(cli: Cli, workplace: Path):
    (workplace / "text.png").write_text("hello")
    whole = (workplace / "photo.png").read_bytes()
    (workplace / "cut.png").write_bytes(whole[: len(whole) // 2])
    done = cli("edit", "photo.png", "text.png", "cut.png", "gone.png", "make it night", "-o", "out")
    assert done.returncode == 1
    lines = one_sentence(done.stderr).splitlines()
    assert lines[0].startswith("text.png: text.png is not an image that can be read.")
    assert lines[1].startswith("cut.png: cut.png is damaged or cut off")
    assert lines[2].startswith("gone.png: There is no file gone.png.")
    assert lines[3:] == ["1 of 4 pictures were edited."]
    assert [path.name for path in (workplace / "out").glob("*.png")] == ["photo-make-it-night.png"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["photo.png", "  "], "The instruction is empty; write what shall change"),
        (["photo.png"], "The last argument 'photo.png' is a file or folder, not an instruction"),
        (["photo.png", "night", "--steps", "0", "--denoise", "2"], "steps is 0; it must be at least 1. denoise is 2;"),
        (["photo.png", "night", "--wrong"], "unrecognized arguments: --wrong"),
        (["photo.png", "night", "--seed", "x"], "The seeds 'x' cannot be read"),
        (["--repeat", "photo.png"], "photo.png holds no record of an edit"),
    ],
    ids=["empty instruction", "no instruction", "out of range", "unknown option", "seed", "no record"],
)
def test_wrong_arguments_get_one_sentence(cli: Cli, workplace: Path, arguments, sentence):
    done = cli("edit", *arguments, "-o", "out.png")
    assert done.returncode == 2
    assert len(one_sentence(done.stderr).splitlines()) == 1
    assert sentence in done.stderr
    assert not (workplace / "out.png").exists()


def test_a_long_instruction_is_used_and_the_cut_words_are_named(cli: Cli, workplace: Path):
    words = [f"word{number}" for number in range(500)]
    done = cli("edit", "photo.png", " ".join(words), "-o", "out.png")
    assert done.returncode == 0
    assert 'of 500 words are cut, from "word' in one_sentence(done.stderr)
    assert "word499" in done.stderr
    assert (workplace / "out.png").exists()


class Exploit:
    """Touches a file when it is unpickled."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def make_bad_models(folder: Path, target: Path) -> None:
    whole = (folder / "tiny.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    torch.save({"state_dict": {"a": Exploit(target)}}, folder / "exploit.ckpt")
    torch.save({"state_dict": {"a": Exploit(target)}}, folder / "renamed.safetensors")
    (folder / "bare").mkdir(exist_ok=True)
    (folder / "bare" / "model.safetensors").write_bytes(whole)
    state = load_file(folder / "tiny.safetensors")
    with safe_open(folder / "tiny.safetensors", "pt") as opened:
        metadata = opened.metadata()
    del state["first_stage_model.decoder.conv_in.weight"]
    save_file(state, folder / "incomplete.safetensors", metadata)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("four", "The model has 4 input channels; InstructPix2Pix needs 8"),
        ("nine", "nine.safetensors has 9 input channels; editors of InstructPix2Pix have 8"),
        ("cut.safetensors", "cut.safetensors is cut off, damaged or not a model file"),
        ("renamed.safetensors", "renamed.safetensors is a pickle renamed to .safetensors; it was not opened"),
        ("exploit.ckpt", "exploit.ckpt is a pickle that contains code, or is damaged; it was not opened"),
        ("bare", "has no unet/config.json"),
        ("incomplete", "The autoencoder lacks the weight 'decoder.conv_in.weight'"),
        ("../photo.png", "'../photo.png' points outside the model folder"),
        ("/etc/passwd", "'/etc/passwd' points outside the model folder"),
        ("nothing", "There is no model 'nothing' in models"),
    ],
)
def test_a_model_that_cannot_edit_gets_one_sentence_and_runs_no_code(
    cli: Cli, workplace: Path, models, model, sentence
):
    target = workplace / "executed"
    make_bad_models(models, target)
    done = cli("edit", "photo.png", "make it night", "-o", "out.png", model=model)
    assert done.returncode == 2
    assert len(one_sentence(done.stderr).splitlines()) == 1
    assert sentence in done.stderr
    assert not target.exists()
    assert not (workplace / "out.png").exists()


def test_an_existing_result_is_kept_unless_forced(cli: Cli, workplace: Path):
    (workplace / "out.png").write_text("precious")
    done = cli("edit", "photo.png", "make it night", "-o", "out.png")
    assert done.returncode == 2
    assert "out.png exists already; add --force to overwrite it" in one_sentence(done.stderr)
    assert (workplace / "out.png").read_text() == "precious"
    forced = cli("edit", "photo.png", "make it night", "-o", "out.png", "--force")
    assert forced.returncode == 0, forced.stderr
    assert (workplace / "out.png").read_bytes().startswith(b"\x89PNG")


def test_nan_latents_are_named_instead_of_a_black_picture(cli: Cli, workplace: Path, models: Path):
    state = load_file(models / "tiny.safetensors")
    state["model.diffusion_model.out.2.bias"].fill_(float("nan"))
    with safe_open(models / "tiny.safetensors", "pt") as opened:
        save_file(state, models / "nan.safetensors", opened.metadata())
    done = cli("edit", "photo.png", "make it night", "-o", "out.png", model="nan")
    assert done.returncode == 2
    assert "contain NaN or infinity" in one_sentence(done.stderr)
    assert not (workplace / "out.png").exists()


def test_a_full_disk_is_named_and_finished_pictures_stay(cli: Cli, workplace: Path):
    noise_picture(400, 300).save(workplace / "large.png")

    done = cli("edit", "photo.png", "large.png", "make it night", "-o", "out", limits=Limits(file_bytes=64_000))
    assert done.returncode == 1
    assert "There is no space left to write out/large-make-it-night.png" in one_sentence(done.stderr)
    assert sorted(path.name for path in (workplace / "out").iterdir()) == [
        "photo-make-it-night.png",
        "photo-make-it-night.png.json",
    ]


def test_an_interrupt_keeps_the_finished_pictures(workplace: Path):
    arguments = command(
        "edit", "photo.png", "make it night", "--seeds", "0-99", "--steps", "20", "-o", "out", "--model", "tiny"
    )
    process = subprocess.Popen(
        arguments, cwd=workplace, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )  # fmt: skip
    first = process.stdout.readline().strip()
    assert first == "out/photo-make-it-night-seed0.png"
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "pictures are finished." in one_sentence(stderr)
    finished = [first, *stdout.split()]
    assert len(finished) < 100
    assert {str(path.relative_to(workplace)) for path in (workplace / "out").iterdir()} == {
        name for picture in finished for name in (picture, f"{picture}.json")
    }
