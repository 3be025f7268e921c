"""The oldest supported ComfyUI (0.3.64): the same nodes and inputs, and one edit to a picture."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from ip2p.tests import tiny
from ip2p.tests.host.comfy_host import edit_prompt, find_comfy, make_base_directory, running_comfy
from ip2p.tests.host.node_schema import SCHEMA_PATH, frozen_schema
from ip2p.tests.host.test_server import NODE_IDS


@pytest.fixture(scope="module")
def old_server(tmp_path_factory):
    root = find_comfy("COMFYUI_PATH_OLD", "~/comfy-0.3.64/ComfyUI")
    base = make_base_directory(tmp_path_factory.mktemp("old_comfy"))
    tiny.tiny_editor(base / "models" / "ip2p" / "tiny_editor.safetensors", prediction_type="v")
    # this version ends at the start when the templates package is newer than itself and has no such folder
    templates = base / "modules" / "comfyui_workflow_templates"
    (templates / "templates").mkdir(parents=True)
    (templates / "__init__.py").touch()
    with running_comfy(root, base, pythonpath=base / "modules") as server:
        yield server


def test_the_oldest_host_has_the_same_schema(old_server):
    frozen = json.loads(SCHEMA_PATH.read_text(encoding="utf-8"))
    assert frozen_schema(old_server.object_info(), NODE_IDS) == frozen


def test_the_oldest_host_edits_a_picture(old_server):
    name = old_server.put_input(Image.linear_gradient("L").resize((90, 60)).convert("RGB"), "picture.png")
    entry = old_server.run(edit_prompt(name, "make it black and white", "tiny_editor.safetensors"))
    assert [picture.size for picture in old_server.images(entry)] == [(90, 60)]
