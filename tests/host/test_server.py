"""The pack inside a running ComfyUI of the version it is made for."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from pathlib import Path

import aiohttp
import pytest
from PIL import Image

from ip2p.tests.host.comfy_host import ComfyServer, Refused, edit_prompt, error_of
from ip2p.tests.host.node_schema import SCHEMA_PATH, frozen_schema

TINY = "tiny_editor.safetensors"
NODE_IDS = {
    "LoadInstructPix2Pix",
    "InstructConditioning",
    "InstructGuider",
    "DualCFGSampler",
    "DualCFGModel",
    "InstructDecode",
    "InstructEdit",
    "CaptionEdit",
    "ParseTriplet",
    "LoadTriplets",
    "Prompt2PromptPair",
    "LoadCLIPScorer",
    "CLIPDirectionalFilter",
    "SavePairs",
    "LoadPairs",
    "TrainInstructPix2Pix",
    "GuidanceGrid",
    "AutoGuidance",
    "EditMetrics",
    "RelevanceMask",
}


@pytest.fixture(scope="module")
def picture(comfy_server: ComfyServer) -> str:
    gradient = Image.linear_gradient("L").resize((90, 60))
    return comfy_server.put_input(Image.merge("RGB", [gradient, gradient.rotate(180), gradient]), "picture.png")


def test_the_host_offers_exactly_our_nodes(comfy_server):
    ours = {
        name for name, info in comfy_server.object_info().items() if "instruct-pix2pix" in info.get("python_module", "")
    }
    assert ours == NODE_IDS


def test_the_schema_is_the_frozen_one(comfy_server):
    frozen = json.loads(SCHEMA_PATH.read_text(encoding="utf-8"))
    assert frozen_schema(comfy_server.object_info(), NODE_IDS) == frozen, (
        "A node's id, inputs or defaults changed. If that is wanted: python -m ip2p.tests.host.node_schema"
    )


def test_every_node_and_input_explains_itself(comfy_server):
    for node_id in NODE_IDS:
        info = comfy_server.object_info(node_id)[node_id]
        assert info["display_name"] != node_id
        assert len(info["description"]) > 40
        assert info["search_aliases"]
        for kind in ("required", "optional"):  # the host adds hidden ones to output nodes
            for name, (_, *options) in info["input"].get(kind, {}).items():
                assert options[0].get("tooltip"), f"{node_id}.{name} has no tooltip"


def test_the_log_has_no_failed_import(comfy_server):
    start, _, _ = comfy_server.log.partition("got prompt")  # later ones are refusals that other tests ask for
    assert "IMPORT FAILED" not in start
    assert "Traceback" not in start


def test_an_edit_ends_in_a_picture_of_the_input_size(comfy_server, picture):
    entry = comfy_server.run(edit_prompt(picture, "make it black and white", TINY))
    (result,) = comfy_server.images(entry)
    assert result.size == (90, 60)


def test_the_same_prompt_gives_the_same_picture(comfy_server, picture):
    results = []
    for prefix in ("first", "second"):
        prompt = edit_prompt(picture, "add a hat", TINY, seed=7)
        prompt["4"]["inputs"]["filename_prefix"] = prefix
        comfy_server.post("/free", {"unload_models": True, "free_memory": True})
        results.append(comfy_server.images(comfy_server.run(prompt))[0].tobytes())
    assert results[0] == results[1]


def test_interrupt_stops_a_run_between_two_steps(comfy_server, picture):
    prompt_id = comfy_server.queue(edit_prompt(picture, "slowly", TINY, steps=5000, working_resolution=64))
    end = time.monotonic() + 60
    while "/5000 [" not in comfy_server.log.replace("0/5000 [", "") and time.monotonic() < end:
        time.sleep(0.1)
    started = time.monotonic()
    comfy_server.post("/interrupt")
    entry = comfy_server.wait(prompt_id)
    assert time.monotonic() - started < 20
    assert [kind for kind, _ in entry["status"]["messages"]][-1] == "execution_interrupted"


def test_an_edit_works_again_after_an_interrupt(comfy_server, picture):
    comfy_server.run(edit_prompt(picture, "once more", TINY, seed=99))


@pytest.mark.parametrize(
    "name", ["../secret.safetensors", "/etc/passwd", "..\\secret.safetensors", "C:\\x.safetensors"]
)
def test_a_model_name_that_points_outside_is_refused_in_one_sentence(comfy_server, picture, name):
    with pytest.raises(Refused) as refusal:
        comfy_server.queue(edit_prompt(picture, "x", name))
    (problem,) = refusal.value.answer["node_errors"]["1"]["errors"]
    assert "does not lie inside the model folders" in problem["details"]


def test_a_failed_edit_shows_one_sentence(comfy_server, picture):
    entry = comfy_server.wait(comfy_server.queue(edit_prompt(picture, "  ", TINY)))
    assert error_of(entry) == (
        'The instruction is empty; write what shall change, for example "make it black and white".'
    )


def test_a_new_model_file_appears_without_a_restart(comfy_server):
    copy = Path(comfy_server.base / "models" / "checkpoints" / "another.safetensors")
    copy.write_bytes((comfy_server.base / "models" / "ip2p" / TINY).read_bytes())
    names = comfy_server.object_info("LoadInstructPix2Pix")["LoadInstructPix2Pix"]["input"]["required"]["model_name"]
    assert "another.safetensors" in json.dumps(names)


async def _listen(server: ComfyServer, prompt: dict) -> tuple[list[dict], list[bytes]]:
    """Run a prompt with previews on and collect what the front end would receive."""
    client_id, texts, binaries = str(uuid.uuid4()), [], []
    address = server.url.replace("http", "ws") + f"/ws?clientId={client_id}"
    async with aiohttp.ClientSession() as session, session.ws_connect(address) as socket:
        record = {"prompt": prompt, "client_id": client_id, "extra_data": {"preview_method": "latent2rgb"}}
        await session.post(f"{server.url}/prompt", json=record)
        async for message in socket:
            if message.type == aiohttp.WSMsgType.BINARY:
                binaries.append(message.data)
                continue
            texts.append(json.loads(message.data))
            if texts[-1]["type"] in ("execution_success", "execution_error"):
                break
    return texts, binaries


def test_progress_previews_and_warnings_reach_the_front_end(comfy_server, picture):
    instruction = " ".join(f"word{i}" for i in range(500))
    prompt = edit_prompt(picture, instruction, TINY, steps=300, seed=5, working_resolution=64)
    texts, binaries = asyncio.run(_listen(comfy_server, prompt))
    assert texts[-1]["type"] == "execution_success"
    values = [record["data"]["value"] for record in texts if record["type"] == "progress"]
    assert values == sorted(values)
    assert values[-1] == 300
    kinds = {int.from_bytes(data[:4], "big") for data in binaries}
    assert kinds & {1, 4}, "no preview picture arrived"
    notices = [data.decode("utf-8", "replace") for data in binaries if int.from_bytes(data[:4], "big") == 3]
    assert any("the text encoder reads 77" in notice for notice in notices)
