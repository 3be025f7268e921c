"""Every workflow of the pack in a running ComfyUI: over its HTTP API, with comfy run, in its list of templates."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy
import pytest
from comfy_cli.workflow_to_api import convert_ui_to_api
from PIL import Image

from ip2p.tests.host.comfy_host import PACK, PACK_FOLDER
from ip2p.tests.host.test_server import NODE_IDS
from ip2p.tests.host.workflow_files import FOLDER, api_prompt, as_text, ui_workflow
from ip2p.tests.host.workflow_runs import (
    NAMES,
    OF_BASELINES,
    OF_EVALUATION,
    OF_PAIRS,
    OF_TEXT,
    OF_TRAINING,
    ON_CHECKPOINTS,
    ON_EMBEDDED,
    api_file,
    furnish,
    ui_file,
)
from ip2p.tests.host.workflow_sources import workflows

APPLICATIONS = {
    "style_and_medium", "season_weather_time", "background", "object_swap", "material", "make_up", "try_on", "hair",
}  # fmt: skip
FILES = sorted(FOLDER.rglob("*.json"))
SIZE = (768, 768)
"""Of the host's own picture."""


@pytest.fixture(scope="module")
def server(comfy_server, comfy_root, comfy_base):
    furnish(comfy_root, comfy_base)
    return comfy_server


@pytest.fixture(scope="module")
def object_info(server):
    return server.object_info()


def fetch(server, path: str) -> bytes:
    with urllib.request.urlopen(f"{server.url}{path}", timeout=60) as answer:  # noqa: S310 - our own server
        return answer.read()


def test_there_is_a_workflow_for_every_application():
    assert set(ON_CHECKPOINTS) == APPLICATIONS
    assert {*ON_EMBEDDED, *OF_PAIRS, *OF_EVALUATION, *OF_BASELINES, *OF_TEXT, *OF_TRAINING} <= set(NAMES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_no_workflow_holds_a_path_or_an_address(path):
    text = path.read_text(encoding="utf-8")
    assert not re.findall(r'https?:|www\.|\.\.[/\\]|"[/~][^"]*"|\b[A-Za-z]:\\', text)


def test_every_file_is_what_its_source_says(object_info):
    for workflow in workflows():
        for path, record in (
            (FOLDER / f"{workflow.name}.json", ui_workflow(workflow, object_info)),
            (FOLDER / "api" / f"{workflow.name}.json", api_prompt(workflow, object_info)),
        ):
            assert path.read_text(encoding="utf-8") == as_text(record), (
                f"{path.name} is out of date. If the change is wanted: python -m ip2p.tests.host.workflow_files"
            )


@pytest.mark.parametrize("name", NAMES)
def test_the_twin_is_the_workflow(object_info, name):
    assert convert_ui_to_api(ui_file(name), object_info) == api_file(name)


@pytest.mark.parametrize("name", NAMES)
def test_every_node_of_a_twin_has_a_title_and_its_required_inputs(object_info, name):
    for node in api_file(name).values():
        assert node["_meta"]["title"]
        assert set(object_info[node["class_type"]]["input"].get("required", {})) <= set(node["inputs"])


@pytest.mark.parametrize("name", [*ON_EMBEDDED, *ON_CHECKPOINTS])
def test_a_workflow_runs_to_a_picture_of_the_input_size(server, name):
    prompt = api_file(name)
    for node in prompt.values():
        if node["class_type"] == "InstructEdit" and name in ON_CHECKPOINTS:
            node["inputs"]["steps"] = 3  # of random weights; the picture is not what counts
    (picture,) = server.images(server.run(prompt, seconds=300))
    assert picture.size == SIZE
    assert len(picture.resize((32, 32)).getcolors(32 * 32)) > 4, "the picture is of one colour"


@pytest.mark.parametrize("name", OF_PAIRS)
def test_a_workflow_of_pairs_runs_to_pictures(server, name):
    prompt = api_file(name)
    for node in prompt.values():
        if node["class_type"] == "Prompt2PromptPair":
            node["inputs"].update(steps=4, num_samples=min(2, node["inputs"]["num_samples"]))  # wiring, not quality
    pictures = server.images(server.run(prompt, seconds=300))
    assert len(pictures) >= 2
    assert all(len(picture.resize((32, 32)).getcolors(32 * 32)) > 4 for picture in pictures)


@pytest.mark.parametrize("name", OF_EVALUATION)
def test_a_workflow_of_evaluation_runs_to_a_grid_a_plot_and_a_table(server, name):
    entry = server.run(api_file(name), seconds=300)
    grid, plot = server.images(entry)
    assert grid.size == (1144, 825)
    assert all(len(picture.resize((64, 64)).getcolors(64 * 64)) > 4 for picture in (grid, plot))
    assert len("".join(entry["outputs"]["8"]["text"]).splitlines()) == 1 + 12


def test_sdedit_and_the_editor_both_make_the_red_square_blue(server):
    entry = server.run(api_file("sdedit_baseline"), seconds=300)
    before, by_caption, by_instruction = (numpy.array(one, float) for one in server.images(entry))
    assert before.shape == by_caption.shape == by_instruction.shape == (96, 96, 3)
    red, _, blue = before[48, 48]
    assert red > blue + 100
    for edited in (by_caption, by_instruction):
        inside = edited[40:56, 40:56].mean((0, 1))
        assert inside[2] > inside[0] + 50, "the middle is not blue"
        assert numpy.abs(edited - before).mean() > 5
    corners = (slice(0, 12), slice(84, 96))
    assert min(by_instruction[rows, columns].mean() for rows in corners for columns in corners) > 200


def test_the_workflow_of_instructions_shows_an_edit_of_its_caption_and_of_an_answer(server):
    entry = server.run(api_file("write_instructions"))
    shown = {node_id: "".join(output["text"]) for node_id, output in entry["outputs"].items() if "text" in output}
    assert shown["2"]
    assert "lighthouse" in shown["3"] or "lighthouse" in shown["2"]
    assert "a lighthouse by the sea on a sunny day" in shown["4"]
    assert (shown["6"], shown["7"]) == ("make it night", "a lighthouse by the sea at night")


def test_the_training_workflow_goes_from_the_dataset_of_make_dataset_to_edited_pictures(server):
    """A dataset of few pairs may have none in one split; the workflow trains on "train"."""
    made = api_file("make_dataset")
    for node in made.values():
        if node["class_type"] == "Prompt2PromptPair":
            node["inputs"].update(steps=4, num_samples=2)
    server.run(made, seconds=300)
    prompt = api_file("train_editor")
    for node in prompt.values():
        if node["class_type"] == "TrainInstructPix2Pix":
            node["inputs"].update(steps=3)
        if node["class_type"] == "InstructEdit":
            node["inputs"].update(steps=3)
    pictures = server.images(server.run(prompt, seconds=300))
    assert len(pictures) >= 4
    assert (server.base / "models" / "ip2p" / "shapes_editor.safetensors").is_file()


@pytest.mark.parametrize("form", [ui_file, api_file], ids=["ui", "api"])
@pytest.mark.parametrize("name", ON_EMBEDDED)
def test_comfy_run_takes_a_workflow_in_both_formats(server, tmp_path, name, form):
    path, prefix = tmp_path / f"{name}.json", f"comfy_run_{form.__name__}_{name}"
    workflow = json.dumps(form(name))
    path.write_text(workflow.replace(f'"{name}"', f'"{prefix}"'), encoding="utf-8")
    host, port = server.url.removeprefix("http://").split(":")
    tool = Path(sys.executable).with_name("comfy")
    command = [tool, "--skip-prompt", "run", "--workflow", path, "--host", host, "--port", port, "--wait", "--json"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    (path,) = (server.base / "output").glob(f"{prefix}_*.png")
    with Image.open(path) as picture:
        assert picture.size == SIZE


def test_the_server_lists_and_serves_every_workflow(server):
    assert sorted(server.get("/workflow_templates")[PACK_FOLDER]) == NAMES
    for name in NAMES:
        assert json.loads(fetch(server, f"/api/workflow_templates/{PACK_FOLDER}/{name}.json")) == ui_file(name)


def test_every_thumbnail_is_a_small_picture_that_the_server_serves(server):
    thumbnails = sorted(FOLDER.glob("*.jpg"))
    assert "instruct_edit" in {path.stem for path in thumbnails}, "python -m ip2p.tests.host.thumbnail makes it"
    for path in thumbnails:
        assert path.stem in NAMES
        assert path.stat().st_size < 200_000
        assert fetch(server, f"/api/workflow_templates/{PACK_FOLDER}/{path.name}") == path.read_bytes()


@pytest.mark.parametrize("node_id", sorted(NODE_IDS))
def test_every_node_has_a_help_page_that_names_its_inputs_and_outputs(server, object_info, node_id):
    page = fetch(server, f"/extensions/{PACK_FOLDER}/docs/{node_id}.md").decode()
    info = object_info[node_id]
    assert page.startswith(f"# {info['display_name']}\n")
    shown = [
        info["input"].get(kind, {}) for kind in ("required", "optional")
    ]  # the host adds hidden ones to output nodes
    names = [name for group in shown for name in group] + info["output_name"]
    see_guider = {"text_start", "text_end", "image_start", "image_end"} | {n for n in names if n.startswith("apg")}
    skipped = see_guider if node_id == "DualCFGSampler" else set()
    missing = [name for name in names if name not in skipped and f"`{name}`" not in page]
    assert missing == [], f"{node_id}.md does not explain {missing}"


def test_there_is_no_help_page_without_a_node():
    assert {path.stem for path in (PACK / "web" / "docs").glob("*.md")} == NODE_IDS
