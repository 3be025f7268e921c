"""Training from a running ComfyUI: waited for, cancelled, in the background; its file edits as `ip2p edit` does."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ip2p.tests.e2e import train_cases
from ip2p.tests.host.comfy_host import Refused, error_of, node
from ip2p.tests.host.conftest import TINY_EDITOR, TINY_GENERATOR
from ip2p.trainer.diffusers_adapter import load_editor
from ip2p.trainer.edit import default_settings, edit_images

INSTRUCTION = "make it blue"
CLOSE = 2 / 255 * 255
SEED = 11


@pytest.fixture(scope="module")
def dataset(comfy_server) -> str:
    train_cases.make_dataset(comfy_server.base / "output" / "ip2p_datasets" / "for_training", 10)
    return "for_training"


def train_prompt(dataset: str, name: str, base: str = TINY_GENERATOR, run: str = "wait for the checkpoint", **changes):
    settings = {"learning_rate": 1e-3, "checkpoint_steps": 2, "device": "cpu", "cache_views": 1}
    sizes = {key: changes.pop(key) for key in ("steps", "batch_size") if key in changes}
    inputs = {
        "dataset": ["1", 1], "base_model": base, "checkpoint_name": name, "preset": "finetune", "steps": 4,
        "batch_size": 4, "micro_batch_size": 2, "resolution": 32, "seed": 0, "run": run,
        "more_settings": json.dumps({**settings, **changes}),
    }  # fmt: skip
    return {
        "1": node("LoadPairs", dataset_name=dataset, split="all", count=0, num_shown=1),
        "2": node("TrainInstructPix2Pix", **{**inputs, **sizes}),
    }


def edit_with(prompt: dict, picture: str, model_path) -> dict:
    """Add the edit by what was trained."""
    prompt["3"] = node("LoadInstructPix2Pix", model_name="embedded: editor", model_path=model_path)
    prompt["4"] = node("LoadImage", image=picture)
    prompt["5"] = node(
        "InstructEdit", model=["3", 0], clip=["3", 1], vae=["3", 2], image=["4", 0], instruction=INSTRUCTION, seed=SEED,
        steps=4, sampler_name="euler", scheduler="normal", text_guidance_scale=4.0, image_guidance_scale=1.5,
        working_resolution=64,
    )  # fmt: skip
    prompt["6"] = node("SaveImage", images=["5", 0], filename_prefix="trained")
    return prompt


@pytest.fixture(scope="module")
def picture(comfy_server) -> str:
    return comfy_server.put_input(Image.linear_gradient("L").resize((64, 64)).convert("RGB"), "train_picture.png")


def test_the_checkpoint_goes_on_to_the_loader_and_edits_as_the_command_line_does(comfy_server, dataset, picture):
    prompt = edit_with(train_prompt(dataset, "from_canvas"), picture, ["2", 0])
    entry = comfy_server.run(prompt, seconds=300)
    path = comfy_server.base / "models" / "ip2p" / "from_canvas.safetensors"
    (shown,) = [one for one in comfy_server.images(entry) if one.size == (64, 64)]
    editor = load_editor(path, device="cpu")
    scales = replace(default_settings(editor.config).guidance.scales, text_guidance_scale=4.0, image_guidance_scale=1.5)
    settings = default_settings(editor.config)
    settings = replace(
        settings, steps=4, sampler="euler", working_resolution=64, guidance=replace(settings.guidance, scales=scales)
    )
    source = Image.open(comfy_server.base / "input" / picture).convert("RGB")
    image = torch.from_numpy(np.asarray(source, np.float32) / 255)[None]
    expected = edit_images(editor, image, [INSTRUCTION], settings, seed=SEED).image[0].numpy() * 255
    assert np.abs(np.asarray(shown.convert("RGB"), np.float32) - expected).max() <= CLOSE
    run = comfy_server.base / "output" / "ip2p_runs" / "from_canvas"
    assert train_cases.events(run)[-1]["kind"] == "done"


def test_cancel_saves_and_queueing_again_goes_on(comfy_server, dataset):
    run = comfy_server.base / "output" / "ip2p_runs" / "cancelled"
    prompt = train_prompt(dataset, "cancelled", steps=400)
    prompt_id = comfy_server.queue(prompt)
    wait_for(lambda: list(run.glob("checkpoints/step-*/checkpoint.json")))
    comfy_server.post("/interrupt")
    entry = comfy_server.wait(prompt_id)
    assert [kind for kind, _ in entry["status"]["messages"]][-1] == "execution_interrupted"
    assert train_cases.events(run)[-1]["kind"] == "stopped"
    stopped_at = train_cases.events(run)[-1]["step"]
    prompt_id = comfy_server.queue(prompt)
    wait_for(lambda: train_cases.events(run)[-1]["step"] > stopped_at)
    assert any(
        event["message"] == "going on from a checkpoint" for event in train_cases.events(run) if "message" in event
    )
    comfy_server.post("/interrupt")
    comfy_server.wait(prompt_id)


def test_in_the_background_it_returns_at_once_and_can_be_stopped(comfy_server, dataset):
    run = comfy_server.base / "output" / "ip2p_runs" / "background"
    background = train_prompt(dataset, "background", run="go on in the background", steps=400)
    comfy_server.run(background)
    wait_for(lambda: list(run.glob("checkpoints/step-*/checkpoint.json")))
    comfy_server.run(train_prompt(dataset, "background", run="stop and save", steps=400))
    assert train_cases.events(run)[-1]["kind"] == "stopped"


def wait_for(condition, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_adapters_work_through_the_lora_loader_of_the_host(comfy_server, dataset, picture):
    """The base with the host's LoRA loader against the merged model."""
    trained = train_prompt(
        dataset, "adapted", base=TINY_EDITOR, lora_rank=4, learning_rate=1e-2, export_precision="fp32"
    )
    comfy_server.run(trained, seconds=300)
    merged = comfy_server.images(comfy_server.run(edit_with({}, picture, "adapted.safetensors")))[0]
    plain = comfy_server.images(comfy_server.run(edit_with({}, picture, TINY_EDITOR)))[0]
    prompt = edit_with({}, picture, TINY_EDITOR)
    prompt["7"] = node("LoraLoaderModelOnly", model=["3", 0], lora_name="adapted.safetensors", strength_model=1.0)
    prompt["5"]["inputs"]["model"] = ["7", 0]
    adapted = comfy_server.images(comfy_server.run(prompt))[0]
    one, other, base = (np.asarray(image.convert("RGB"), np.float32) for image in (merged, adapted, plain))
    assert np.abs(one - other).max() <= 3
    assert np.abs(one - base).max() > 8, "the adapters do nothing"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lerning_rate": 1}, "'lerning_rate'"),
        ({"split": "test"}, "The split 'test' of"),
        ({"batch_size": 5}, "no multiple of micro_batch_size"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(comfy_server, dataset, changes, words):
    entry = comfy_server.wait(comfy_server.queue(train_prompt(dataset, "mistaken", **changes)))
    assert words in error_of(entry)


@pytest.mark.parametrize("name", ["../outside", "a/b", "/etc/passwd", " "])
def test_a_name_that_leads_outside_is_refused_before_the_run(comfy_server, dataset, name):
    with pytest.raises(Refused, match="cannot name a checkpoint"):
        comfy_server.queue(train_prompt(dataset, name))


def test_the_launcher_needs_no_installed_package(tmp_path):
    """As inside ComfyUI: the folder of the pack has another name, and no package ip2p is installed."""
    import subprocess
    import sys

    from ip2p.tests.host.comfy_host import PACK

    link = tmp_path / "instruct-pix2pix-comfyui"
    link.symlink_to(PACK)
    code = (
        "import sys, runpy; sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in type(f).__module__ + str(f)];"
        f"sys.argv = ['launch.py', 'train', '--help']; runpy.run_path({str(link / 'trainer' / 'launch.py')!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: ip2p train" in done.stdout
    assert Path(PACK).exists()
