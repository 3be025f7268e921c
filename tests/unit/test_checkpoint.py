from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ip2p.ip2p_core.checkpoint import ModelConfig, embedded_model_path, read_checkpoint, write_checkpoint
from ip2p.ip2p_core.checkpoint_files import read_tensors, write_tensors
from ip2p.ip2p_core.errors import CheckpointError
from ip2p.tests.tiny import TinyModels, tiny_editor, tiny_models


@pytest.fixture(scope="module")
def editor(tmp_path_factory) -> tuple[Path, TinyModels]:
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    return path, tiny_editor(path)


@pytest.fixture
def folder(editor, tmp_path) -> Path:
    _, models = editor
    for name, part in (("unet", models.unet), ("vae", models.vae), ("text_encoder", models.text)):
        part.save_pretrained(tmp_path / "folder" / name)
    return tmp_path / "folder"


def assert_same_state(state, other):
    assert state.keys() == other.keys()
    assert all(torch.equal(state[name].float(), value.float()) for name, value in other.items())


def test_a_written_model_comes_back_whole(editor):
    path, models = editor
    raw = read_checkpoint(path)
    assert (raw.layout, raw.family, raw.config) == ("ip2p", "tiny", models.config)
    for part, model in zip(raw.parts(), (models.unet, models.vae, models.text), strict=False):
        assert_same_state(part, model.state_dict())


def test_the_header_describes_the_model_in_strings(editor):
    with safe_open(editor[0], framework="pt") as opened:
        metadata = opened.metadata()
    assert ModelConfig.from_json(metadata["ip2p.config"]) == editor[1].config
    assert metadata["modelspec.sai_model_spec"] == "1.0.0"
    assert metadata["modelspec.license"] == "MIT"
    assert metadata["modelspec.title"] == "tiny"


def test_a_diffusers_folder_is_the_same_model(editor, folder):
    path, models = editor
    raw = read_checkpoint(folder)
    assert (raw.layout, raw.family) == ("diffusers", "tiny")
    assert_same_state(raw.state, read_checkpoint(path).state)
    assert raw.config.num_heads == models.config.num_heads
    assert raw.config.scaling_factor == models.config.scaling_factor
    assert raw.config.vae_factor == 4


def test_half_precision_and_sharded_folders_open(editor, folder):
    whole = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(whole)
    names = sorted(state)
    shards = {"a.safetensors": names[:100], "b.safetensors": names[100:]}
    for shard, own in shards.items():
        save_file({name: state[name] for name in own}, folder / "unet" / shard)
    weight_map = {name: shard for shard, own in shards.items() for name in own}
    (folder / "unet" / f"{whole.name}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    whole.unlink()
    vae = folder / "vae" / "diffusion_pytorch_model.safetensors"
    vae.rename(vae.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert_same_state(read_checkpoint(folder).state, read_checkpoint(editor[0]).state)


def test_the_prediction_type_comes_from_the_scheduler(folder):
    (folder / "scheduler").mkdir()
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text('{"prediction_type": "v_prediction"}')
    assert read_checkpoint(folder).config.prediction_type == "v"
    config.write_text('{"prediction_type": "sample"}')
    with pytest.raises(CheckpointError, match="prediction_type 'sample'"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    "missing",
    ["unet/config.json", "vae/config.json", "text_encoder/config.json", "unet/diffusion_pytorch_model.safetensors"],
)
def test_a_folder_that_lacks_a_file_is_refused_with_its_name(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(CheckpointError, match=missing.split("/")[1].replace(".", r"\.")):
        read_checkpoint(folder)


def test_another_autoencoder_takes_the_place_of_the_own(editor, folder, tmp_path):
    other = tiny_models(seed=5).vae
    other.save_pretrained(tmp_path / "vae")
    for vae_path in (tmp_path / "vae", tmp_path / "vae" / "diffusion_pytorch_model.safetensors"):
        for model in (editor[0], folder):
            raw = read_checkpoint(model, vae_path)
            assert_same_state(raw.parts().vae, other.state_dict())
            assert_same_state(raw.parts().unet, editor[1].unet.state_dict())


def test_a_folder_without_an_autoencoder_opens_with_another(editor, folder, tmp_path):
    (folder / "vae").rename(tmp_path / "vae")
    assert_same_state(read_checkpoint(folder, tmp_path / "vae").state, read_checkpoint(editor[0]).state)
    with pytest.raises(CheckpointError, match="vae"):
        read_checkpoint(folder)


def test_running_averages_are_used_where_the_file_has_them(editor, tmp_path):
    path, _ = editor
    state = load_file(path)
    with safe_open(path, framework="pt") as opened:
        metadata = opened.metadata()
    name = "model.diffusion_model.input_blocks.0.0.weight"
    average = torch.full_like(state[name], 0.25)
    extra = {"model_ema.diffusion_modelinput_blocks00weight": average, "model_ema.decay": torch.tensor(0.9)}
    save_file(state | extra, tmp_path / "ema.safetensors", metadata=metadata)
    raw = read_checkpoint(tmp_path / "ema.safetensors")
    assert torch.equal(raw.state[name], average)
    assert raw.state.keys() == state.keys()


def test_a_missing_weight_is_named(editor, tmp_path):
    state = load_file(editor[0])
    with safe_open(editor[0], framework="pt") as opened:
        metadata = opened.metadata()
    del state["first_stage_model.post_quant_conv.bias"]
    save_file(state, tmp_path / "short.safetensors", metadata=metadata)
    with pytest.raises(CheckpointError, match=r"autoencoder lacks the weight 'post_quant_conv\.bias' \(1 of"):
        read_checkpoint(tmp_path / "short.safetensors")


def test_a_tiny_model_without_its_description_is_refused(editor, tmp_path):
    save_file(load_file(editor[0]), tmp_path / "bare.safetensors")
    with pytest.raises(CheckpointError, match=r"unknown family \(32 channels, text width 40\)"):
        read_checkpoint(tmp_path / "bare.safetensors")


def test_one_part_alone_is_no_model(folder):
    with pytest.raises(CheckpointError, match="choose the folder, not the file"):
        read_checkpoint(folder / "unet" / "diffusion_pytorch_model.safetensors")


def test_a_ckpt_of_tensors_opens_without_running_code(editor, tmp_path):
    state = load_file(editor[0])
    torch.save({"state_dict": state, "global_step": 5}, tmp_path / "a.ckpt")
    assert_same_state(read_tensors(tmp_path / "a.ckpt"), state)


class Explosive:
    def __reduce__(self):
        return (os.mkdir, (str(Explosive.target),))


@pytest.mark.parametrize("is_plain_pickle", [True, False])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, is_plain_pickle):
    Explosive.target = tmp_path / "ran"
    path = tmp_path / "evil.ckpt"
    if is_plain_pickle:
        path.write_bytes(pickle.dumps({"state_dict": Explosive()}, protocol=2))
    else:
        torch.save({"state_dict": Explosive()}, path)
    with pytest.raises(CheckpointError, match=r"evil\.ckpt is a pickle that contains code"):
        read_checkpoint(path)
    assert not Explosive.target.exists()
    path.rename(tmp_path / "evil.safetensors")
    with pytest.raises(CheckpointError, match=r"evil\.safetensors is a pickle renamed to \.safetensors"):
        read_checkpoint(tmp_path / "evil.safetensors")
    assert not Explosive.target.exists()


@pytest.mark.parametrize("size", [0, 7, 100, 5000, -10])
def test_a_truncated_file_is_one_clear_sentence(editor, tmp_path, size):
    path = tmp_path / "short.safetensors"
    path.write_bytes(editor[0].read_bytes()[:size])
    with pytest.raises(CheckpointError, match=r"^short\.safetensors is cut off, damaged or not a model file"):
        read_checkpoint(path)


def test_a_truncated_file_whose_length_begins_like_a_pickle_is_not_called_one(tmp_path):
    path = tmp_path / "short.safetensors"
    path.write_bytes(b"\x80\x02\0\0\0\0\0\0" + b'{"a":')
    with pytest.raises(CheckpointError, match=r"^short\.safetensors is cut off, damaged or not a model file"):
        read_checkpoint(path)


@pytest.mark.parametrize("name", ["picture.safetensors", "picture.ckpt"])
def test_something_else_renamed_is_one_clear_sentence(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(5000))
    with pytest.raises(CheckpointError, match=r"^picture\.\w+ is "):
        read_checkpoint(tmp_path / name)


def test_a_safetensors_file_renamed_to_ckpt_is_one_clear_sentence(editor, tmp_path):
    (tmp_path / "a.ckpt").write_bytes(editor[0].read_bytes())
    with pytest.raises(CheckpointError, match=r"^a\.ckpt is "):
        read_checkpoint(tmp_path / "a.ckpt")


def test_a_missing_file_and_an_empty_folder_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"There is no model file .*none\.safetensors"):
        read_checkpoint(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match=r"has no unet/config\.json"):
        read_checkpoint(tmp_path)


def test_others_may_read_a_written_file_where_the_umask_says_so(tmp_path):
    path, ordinary = tmp_path / "weights.safetensors", tmp_path / "ordinary"
    write_tensors(path, {"weight": torch.zeros(2)}, {})
    ordinary.touch()
    assert path.stat().st_mode == ordinary.stat().st_mode


def test_a_full_disk_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "model.safetensors"
    write_tensors(path, {"a": torch.ones(3)}, {})
    code = (
        "import resource, signal, sys, torch; from pathlib import Path\n"
        "from ip2p.ip2p_core.checkpoint_files import write_tensors\n"
        "from ip2p.ip2p_core.errors import CheckpointError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: write_tensors(Path(sys.argv[1]), {'a': torch.zeros(100000)}, {})\n"
        "except CheckpointError as error: print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert "could not be written" in run.stdout
    assert "a file that was there before is unchanged" in run.stdout
    assert torch.equal(load_file(path)["a"], torch.ones(3))
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_writing_makes_the_folder_and_replaces_the_old_file(editor, tmp_path):
    _, models = editor
    path = tmp_path / "new" / "model.safetensors"
    parts = [part.state_dict() for part in (models.unet, models.vae, models.text)]
    write_checkpoint(path, *parts, models.config, torch.float32)
    write_checkpoint(path, *parts, replace(models.config, recipe="second"), torch.float16)
    raw = read_checkpoint(path)
    assert raw.config.recipe == "second"
    assert {value.dtype for value in raw.state.values()} == {torch.float16}
    assert [one.name for one in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["none", "../editor", "/etc/passwd", ""])
def test_a_name_that_is_no_embedded_model_is_refused(name):
    with pytest.raises(CheckpointError, match="There is no embedded model"):
        embedded_model_path(name)
