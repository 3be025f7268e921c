"""The node InstructEdit and `ip2p edit` give the same pictures: same model, same seed, two independent backends."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from PIL import Image

from ip2p.ip2p_core import image_tensor
from ip2p.ip2p_core.checkpoint import embedded_model_path
from ip2p.tests import tiny
from ip2p.tests.host.test_edit import edit

INSTRUCTION = "make it black and white"
CLOSE = 2 / 255
PLAN = {"steps": 0, "sampler_name": "euler_ancestral"}
"""The model's own number of steps, and fresh noise at each of them."""


@pytest.fixture(scope="module", params=["random", "embedded"])
def model_path(comfy, request):
    """A tiny editor with random weights, and the embedded one at its own defaults."""
    if request.param == "embedded":
        return embedded_model_path("editor")
    path = comfy.models / "ip2p" / "same_as_command_line.safetensors"
    tiny.tiny_editor(path, prediction_type="v")
    return path


@pytest.fixture(scope="module")
def in_the_host(model_path):
    from ip2p.nodes.comfy_adapter import loading

    with torch.inference_mode():
        return loading.load(model_path)


def headless(model_path, images, instructions, seed):
    """What the command does with a batch, after reading the files."""
    from ip2p.trainer.diffusers_adapter import load_editor
    from ip2p.trainer.edit import default_settings, edit_source, encode_source

    editor = load_editor(model_path, device="cpu", dtype="float32")
    settings = replace(default_settings(editor.config), sampler=PLAN["sampler_name"])
    source = encode_source(editor, images, settings)
    return edit_source(editor, source, [instructions], settings, seed=seed).image


@pytest.mark.parametrize("num_images", [1, 3])
def test_the_node_and_the_headless_edit_agree(model_path, in_the_host, photo, num_images):
    images = photo[:num_images]
    node, _ = edit(in_the_host, images, INSTRUCTION, seed=21, **PLAN)
    command = headless(model_path, images, [INSTRUCTION] * num_images, 21)
    assert (node - command).abs().max() <= CLOSE
    assert node.std() > 0.01


def test_the_node_and_the_command_agree_from_file_to_file(model_path, in_the_host, photo, tmp_path):
    from ip2p.trainer.__main__ import main

    picture, output = tmp_path / "photo.png", tmp_path / "edited.png"
    image_tensor.to_pil(photo[0]).save(picture)
    models = ["--models", str(model_path.parent), "--model", model_path.name]
    arguments = ["edit", str(picture), INSTRUCTION, "-o", str(output), *models, "--seed", "3", "--dtype", "float32"]
    arguments += ["--sampler", "euler_ancestral"]
    assert main([*arguments, "--device", "cpu"]) == 0
    command = image_tensor.load_image(output).pixels
    node, _ = edit(in_the_host, image_tensor.load_image(picture).pixels[None], INSTRUCTION, seed=3, **PLAN)
    with Image.open(output) as opened:
        assert opened.size == (70, 50)
    assert (node[0] - command).abs().max() <= CLOSE
