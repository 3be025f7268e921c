"""The training of the embedded editor as a real child process, a few seconds of every stage."""

import json

import pytest
import torch

from ip2p.ip2p_core.checkpoint import embedded_model_path, read_checkpoint
from ip2p.ip2p_core.pair_store import PairStore
from ip2p.tests.forked import ip2p
from ip2p.tests.generated_pairs import write_generated
from ip2p.trainer.diffusers_adapter import load_editor
from ip2p.trainer.edit import edit_images


def train(folder, *options):
    arguments = ["train-embedded", "--smoke", *options, "--run", folder / "run", "-o", folder / "editor.safetensors"]
    done = ip2p(*arguments, timeout=800)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a model of all stages, and the folder of its run."""
    folder = tmp_path_factory.mktemp("embedded")
    train(folder)
    return folder


def test_all_stages_end_in_a_model_that_edits_and_a_second_run_trains_no_further(trained):
    path = trained / "editor.safetensors"
    assert path.stat().st_size < 12e6
    config = read_checkpoint(path).config
    assert (config.in_channels, config.prediction_type, config.working_resolution) == (8, "v", 64)
    image = torch.rand(1, 70, 50, 3, generator=torch.Generator().manual_seed(0))
    result = edit_images(load_editor(path), image, ["make it sepia"]).image
    assert result.shape == image.shape
    assert torch.isfinite(result).all()
    for stage, size in (("editor_32", 32), ("editor_64", 64)):
        settings = json.loads((trained / "run" / stage / "config.json").read_text())
        assert (settings["resolution"], settings["preset"]) == (size, "embedded")
    assert settings["base"] == "editor_32"

    first = read_checkpoint(path).state
    log = train(trained)
    assert "step" not in log.replace("steps", "")
    second = read_checkpoint(path).state
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.soak
def test_a_training_may_start_from_an_autoencoder_or_from_an_editor(trained, tmp_path):
    path = trained / "editor.safetensors"
    first = read_checkpoint(path).state
    train(tmp_path / "with_it", "--autoencoder", str(path))
    with_it = read_checkpoint(tmp_path / "with_it" / "editor.safetensors").state
    assert not (tmp_path / "with_it" / "run" / "autoencoder.pt").exists()
    assert torch.equal(
        first["first_stage_model.encoder.conv_in.bias"], with_it["first_stage_model.encoder.conv_in.bias"]
    )

    train(tmp_path / "further", "--start", str(path))
    further = read_checkpoint(tmp_path / "further" / "editor.safetensors").state
    encoder = [name for name in first if name.startswith("first_stage_model.encoder.")]
    assert all(torch.equal(first[name], further[name]) for name in encoder)
    assert not torch.equal(first["model.diffusion_model.out.2.bias"], further["model.diffusion_model.out.2.bias"])


def test_the_embedded_generator_becomes_an_editor_that_learns_from_generated_pairs_too(tmp_path):
    generated = write_generated(tmp_path / "generated", [96] * 10)
    start = embedded_model_path("generator")
    train(tmp_path, "--start", str(start), "--pairs", str(generated))
    before, after = read_checkpoint(start), read_checkpoint(tmp_path / "editor.safetensors")
    assert (after.config.kind, after.config.in_channels, after.config.working_resolution) == ("editor", 8, 64)
    assert after.config.unet == {**before.config.unet, "in_channels": 8}
    name = "model.diffusion_model.input_blocks.0.0.weight"
    assert torch.allclose(after.state[name][:, :4], before.state[name], atol=0.05)
    for stage in ("pairs_32", "pairs_64"):
        modes = [record.mode for record in PairStore(tmp_path / "run" / stage).records("train")]
        assert modes.count("paper_text") >= 3
