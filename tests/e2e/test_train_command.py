"""`ip2p train`: what comes out, what it shows, and what it refuses."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from ip2p.ip2p_core.checkpoint import read_checkpoint
from ip2p.ip2p_core.pair_store import PairStore, PairWriter, SaveLimits
from ip2p.ip2p_core.pair_store.manifest import read_manifest
from ip2p.tests import tiny
from ip2p.tests.e2e import train_cases
from ip2p.trainer.__main__ import main
from ip2p.trainer.diffusers_adapter import load_base, load_editor, load_generator
from ip2p.trainer.edit import default_settings, edit_images
from ip2p.trainer.training.pictures import EditPairs, nearest_shape

NUM_PAIRS = 10
CPUINFO = Path("/proc/cpuinfo")
CPU_FLAGS = set(CPUINFO.read_text().split()) if CPUINFO.exists() else set()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    return train_cases.make_dataset(tmp_path_factory.mktemp("pairs") / "data", NUM_PAIRS)


@pytest.fixture
def bases(tmp_path, models) -> Path:
    """A model folder that a test may write to."""
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("four", "tiny", "nine"):
        (folder / f"{name}.safetensors").symlink_to(models / f"{name}.safetensors")
    return folder


def train(folder: Path, models: Path, dataset: Path, **changes) -> int:
    return main(["train", str(train_cases.write_config(folder, models, dataset, **changes))])


def test_at_step_zero_a_widened_base_predicts_what_it_predicted_whatever_the_picture(tmp_path, models):
    generator, editor = (
        load_generator(models / "four.safetensors"),
        load_base(models / "four.safetensors", device="cpu"),
    )
    assert bool((editor.unet.conv_in.bias == generator.unet.conv_in.bias).all())
    assert float(generator.unet.conv_in.bias.abs().max()) > 0
    random = torch.Generator().manual_seed(0)
    x, picture = torch.randn(2, 2, 4, 8, 8, generator=random)
    text, t = torch.randn(2, 77, tiny.TEXT_WIDTH, generator=random), torch.tensor([10, 900])
    with torch.no_grad():
        widened = editor.unet(torch.cat([x, 9 * picture], 1), t, text).sample
        torch.testing.assert_close(widened, generator.unet(x, t, text).sample, atol=1e-6, rtol=1e-5)


def test_the_file_that_comes_out_edits_as_the_training_showed(tmp_path, bases, dataset):
    """The grid of the last step against the same edits with the exported file, in half precision."""
    assert train(tmp_path, bases, dataset, validation_steps=6, validation_pairs=2, export_precision="fp32") == 0
    editor = load_editor("edited", models_dir=bases)
    assert editor.config.data_hash == EditPairs.open(dataset, "train").data_hash
    assert "6 steps of 4 pairs at 32 px" in editor.config.recipe
    grid = np.asarray(Image.open(tmp_path / "run" / "validation" / "step-00000006.png").convert("RGB"), np.int16)
    record = next(PairStore(dataset).records("val"))
    original = record.original.picture().resize((32, 32), Image.Resampling.LANCZOS)
    image = torch.from_numpy(np.asarray(original.convert("RGB"), np.float32) / 255)[None]
    settings = replace(default_settings(editor.config), working_resolution=32)
    edited = edit_images(editor, image, [record.triplet.instruction], settings, seed=0).image[0]
    side, factor = 160, 5  # cells are enlarged
    shown = grid[36 : 36 + side : factor, 6 + 2 * (side + 6) : 6 + 2 * (side + 6) + side : factor]
    assert np.abs(shown - (edited.numpy() * 255).round()).max() <= 2


def test_a_run_leaves_its_settings_versions_log_and_a_page_of_grids(tmp_path, bases, dataset):
    train(tmp_path, bases, dataset, validation_steps=3, scorer="clip")
    run = tmp_path / "run"
    assert json.loads((run / "config.json").read_text())["steps"] == 6
    assert "torch" in json.loads((run / "versions.json").read_text())
    kinds = [event["kind"] for event in train_cases.events(run)]
    assert kinds.count("grid") == 2
    assert kinds[-1] == "done"
    assert {"loss", "samples_per_second", "seconds_left", "memory_mib", "waiting"} <= set(train_cases.events(run)[0])
    records = [json.loads(line) for line in (run / "validation" / "validation.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [3, 6]
    assert all(-1 <= record["clip_directional"] <= 1 and record["loss"] > 0 for record in records)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curves = EventAccumulator(str(run / "tensorboard")).Reload()
    assert [one.step for one in curves.Scalars("loss")] == [1, 6]
    page = (run / "validation" / "index.html").read_text()
    assert page.index("losses.png") < page.index("Step 6") < page.index("Step 3")
    with Image.open(run / "validation" / "losses.png") as curve:
        assert min(curve.size) > 300


def test_loss_falls_when_the_same_pairs_are_seen_again_and_again(tmp_path, bases, dataset):
    train(tmp_path, bases, dataset, steps=150, checkpoint_steps=150, learning_rate=2e-3, train_text_encoder=True)
    losses = [event["loss"] for event in train_cases.events(tmp_path / "run") if event["kind"] == "step"]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:3])


def test_a_second_run_reuses_the_cache_and_other_crops_get_their_own(tmp_path, bases, dataset):
    train(tmp_path, bases, dataset)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.safetensors")}
    train(tmp_path, bases, dataset, output=str(tmp_path / "other"), seed=9)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.safetensors")} == files
    train(tmp_path, bases, dataset, output=str(tmp_path / "third"), flip=0.0)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_encoding_on_the_way_gives_the_loss_of_the_cache(tmp_path, bases, dataset):
    changes = {"resize_range": 1.0, "flip": 0.0, "steps": 1}
    for name in ("latents", "none"):
        train(tmp_path, bases, dataset, cache=name, output=str(tmp_path / name), **changes)
    first, second = (train_cases.events(tmp_path / name)[0]["loss"] for name in ("latents", "none"))
    assert first == pytest.approx(second, rel=2e-3)  # the cache is in half precision


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # in torch itself
def test_a_compiled_run_has_the_losses_of_one_that_is_not(tmp_path, bases, dataset):
    for compiled in (False, True):
        changes = {"compile": compiled, "steps": 2, "output": str(tmp_path / str(compiled))}
        assert train(tmp_path, bases, dataset, **changes) == 0
    plain, compiled = (
        [event["loss"] for event in train_cases.events(tmp_path / str(one)) if event["kind"] == "step"]
        for one in (False, True)
    )
    assert compiled == pytest.approx(plain, rel=1e-4)
    assert len(plain) > 1


@pytest.mark.parametrize(
    "changes",
    [
        {"cache_text": True},
        {"gradient_checkpointing": True},
        {"cache": "none", "workers": 2},
        {"precision": "bf16"},
        {"buckets": True},
        {"min_snr_gamma": 5.0, "mask_share": 0.5, "change_share": 0.2, "start_share": 0.5},
        {"lr_schedule": "cosine", "lr_warmup_steps": 2, "ema_decay": 0.0},
        {"base": "tiny"},
        {"preset": "embedded", "resolution": 32, "steps": 2, "micro_batch_size": 4},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_every_option_trains(tmp_path, bases, dataset, changes):
    assert train(tmp_path, bases, dataset, **{"steps": 2, **changes}) == 0
    assert read_checkpoint(bases / "ip2p" / "edited.safetensors").config.in_channels == 8


def test_gradient_checkpointing_and_kept_text_change_nothing(tmp_path, bases, dataset):
    losses = []
    for name, changes in (("plain", {}), ("checkpointed", {"gradient_checkpointing": True})):
        train(tmp_path, bases, dataset, steps=2, output=str(tmp_path / name), **changes)
        losses.append(train_cases.events(tmp_path / name)[0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_adapters_come_out_as_a_merged_model_and_as_a_file_for_lora_loaders(tmp_path, bases, dataset):
    train(tmp_path, bases, dataset, base="tiny", lora_rank=4, export_precision="fp32", ema_decay=0.0)
    adapters = load_file(bases / "loras" / "edited.safetensors")
    base, merged = (
        read_checkpoint(bases / name).parts().unet for name in ("tiny.safetensors", "ip2p/edited.safetensors")
    )
    torch.testing.assert_close(
        adapters["lora_unet_conv_in.diff"], merged["conv_in.weight"] - base["conv_in.weight"].float()
    )
    name = "mid_block.attentions.0.transformer_blocks.0.attn2.to_q"
    stem = "lora_unet_" + name.replace(".", "_")
    delta = adapters[f"{stem}.lora_up.weight"] @ adapters[f"{stem}.lora_down.weight"]
    delta = delta * adapters[f"{stem}.alpha"] / len(adapters[f"{stem}.lora_down.weight"])
    assert float(delta.abs().max()) > 0
    torch.testing.assert_close(merged[f"{name}.weight"] - base[f"{name}.weight"].float(), delta, atol=1e-6, rtol=1e-4)
    untouched = "down_blocks.0.resnets.0.conv1.weight"
    assert torch.equal(merged[untouched], base[untouched].float())


def test_weights_of_pairs_count_in_the_loss(tmp_path, bases, dataset):
    """Pairs of weight 0 teach nothing: the loss is 0 and so are the gradients."""

    with PairWriter(tmp_path / "weighted", {"made_by": "tests"}, SaveLimits(seconds=1e9)) as writer:
        for record in PairStore(dataset).records("train"):
            writer.add_record(replace(record, weight=0.0))
    train(tmp_path, bases, tmp_path / "weighted", steps=1)
    assert train_cases.events(tmp_path / "run")[0]["loss"] == 0
    train(tmp_path, bases, tmp_path / "weighted", steps=1, output=str(tmp_path / "plain"), use_weights=False)
    assert train_cases.events(tmp_path / "plain")[0]["loss"] > 0.1


@pytest.fixture
def damaged(tmp_path, dataset) -> tuple[Path, str, int]:
    """A copy of the dataset with one shard cut off, its name, and the pairs that are left in the split."""
    copy = tmp_path / "damaged"
    shutil.copytree(dataset, copy)
    entry = read_manifest(copy).shards[0]
    shard = copy / entry.shard_file
    shard.write_bytes(shard.read_bytes()[:-100])
    return copy, entry.name, entry.rows


def test_a_damaged_shard_is_named_or_skipped_and_counted(tmp_path, bases, damaged, capsys):
    folder, name, rows = damaged
    assert train(tmp_path, bases, folder) == 2
    assert name in capsys.readouterr().err
    assert train(tmp_path, bases, folder, damaged="skip") == 0
    assert f"{rows} in damaged shards left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"base": "nine"}, "9 input channels"),
        ({"base": "none"}, "no model 'none'"),
        ({"split": "test"}, "The split 'test' of"),
        ({"resolution": 40}, "resolution is 40; this model needs a multiple of 16"),
        ({"device": "cuda"}, "The device 'cuda' is not there"),
        ({"lora_rank": 4, "lora_targets": ["nowhere"]}, "lora_targets is ['nowhere']"),
        ({"cuda_graphs": True, "gradient_checkpointing": True}, "cuda_graphs goes neither with compile nor"),
        ({"optimizer": "adamw8bit"}, "bitsandbytes is missing"),
        ({"lerning_rate": 1.0}, "'lerning_rate'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_trained_is_refused_in_a_sentence(tmp_path, bases, dataset, capsys, changes, words):
    assert train(tmp_path, bases, dataset, **changes) == 2
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said


@pytest.mark.parametrize("buckets", [False, True])
def test_pairs_of_other_sizes_than_the_rest_train_along(tmp_path, bases, buckets):
    with PairWriter(tmp_path / "odd", {"made_by": "tests"}, SaveLimits(seconds=1e9)) as writer:
        for number, side in enumerate((36, 36, 52, 36, 20, 36)):
            record = train_cases.rendered_pair(number, side)
            writer.add_record(replace(record, prompt_id=f"{number:016x}"))
    assert train(tmp_path, bases, tmp_path / "odd", buckets=buckets, batch_size=2) == 0


@pytest.mark.skipif(not CPU_FLAGS, reason="this system does not say what its processor computes with")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_number_format_that_the_processor_emulates_is_named(tmp_path, bases, dataset, precision, capsys):
    config = train_cases.write_config(tmp_path, bases, dataset, precision=precision)
    assert main(["train", str(config), "--dry-run"]) == 0
    is_native = precision == "fp32" or {"avx512vl", "avx512bw", "avx512dq"} <= CPU_FLAGS
    assert ("has no bf16 arithmetic" in capsys.readouterr().out) == (not is_native)


def test_a_dry_run_says_what_it_would_take_and_writes_nothing(tmp_path, bases, dataset, capsys):
    config = train_cases.write_config(tmp_path, bases, dataset)
    assert main(["train", str(config), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "10 pairs, 6 steps of 4" in said
    assert "GiB" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("size", "shape"),
    [((512, 512), (256, 256)), ((768, 512), (192, 320)), ((512, 768), (320, 192)), ((100, 90), (256, 256))],
)
def test_buckets_are_near_the_aspect_ratio_and_the_resolution(size, shape):
    assert nearest_shape(*size, 256, 64) == shape
