"""The files in workflows/ in ComfyUI's real front end."""

from __future__ import annotations

import sys
from itertools import combinations

import pytest

from ip2p.tests.host.comfy_host import PACK_FOLDER
from ip2p.tests.host.workflow_runs import NAMES, api_file, ui_file

TITLE_HEIGHT = 30
SAVE_NODE = 4
EDITED_PREVIEW = 6
"""The preview of edited pictures in caption_to_pairs and make_pairs."""
GRID_PREVIEW = 5
"""The preview of the grid in guidance_grid: three rows and four columns of 256 pixels, with labels."""
RUN = {
    "instruct_edit": (SAVE_NODE, (768, 768)),
    "caption_to_pairs": (EDITED_PREVIEW, (96, 96)),
    "guidance_grid": (GRID_PREVIEW, (1144, 825)),
}
OTHERS = [name for name in NAMES if name not in RUN]


def assert_opened_as_saved(front_end, name: str) -> None:
    """No missing node, every widget as in the file and among its choices, and the prompt that of the twin."""
    assert front_end.errors() == ""
    saved = {node["id"]: node for node in ui_file(name)["nodes"]}
    nodes = front_end.nodes()
    assert {node["id"] for node in nodes} == set(saved)
    for node in nodes:
        assert node["known"], f"{node['type']} is missing"
        assert not node["broken"], f"{node['type']} is marked as broken"
        values = [widget["value"] for widget in node["widgets"]]
        assert values == saved[node["id"]].get("widgets_values", []), f"stale widgets on {node['type']}"
        for widget in node["widgets"]:
            if widget["choices"] is not None and widget["name"] != "lora_name":
                assert widget["value"] in widget["choices"], f"{node['type']}.{widget['name']}"
    assert front_end.exported_prompt() == api_file(name)


def assert_tidy(front_end) -> None:
    """Every node is as large as its widgets need, and none lies on another."""
    nodes = front_end.nodes()
    for node in nodes:
        assert all(size >= needed for size, needed in zip(node["size"], node["needed"], strict=True)), (
            f"{node['title']} is {node['size']} and needs {node['needed']}"
        )
    for one, other in combinations(nodes, 2):
        assert not overlap(one, other), f"{one['title']} and {other['title']} overlap"


def overlap(one: dict, other: dict) -> bool:
    """Say whether two nodes, with their titles, share a part of the canvas."""
    (x, y), (width, height) = one["pos"], one["size"]
    (u, v), (other_width, other_height) = other["pos"], other["size"]
    return (
        x < u + other_width and u < x + width and y - TITLE_HEIGHT < v + other_height and v - TITLE_HEIGHT < y + height
    )


@pytest.mark.parametrize("name", RUN)
def test_a_workflow_opens_from_the_templates_and_run_shows_the_picture(front_end, screenshots, capsys, name):
    node, size = RUN[name]
    front_end.open_template(PACK_FOLDER, name)
    assert_opened_as_saved(front_end, name)
    assert_tidy(front_end)
    assert front_end.run(node) == size
    assert front_end.errors() == ""
    path = front_end.screenshot(screenshots / f"{name}.png")
    with capsys.disabled():
        sys.stdout.write(f"\nscreenshot: {path}\n")


@pytest.mark.soak
@pytest.mark.parametrize("name", OTHERS)
def test_every_other_workflow_opens_as_saved(front_end, screenshots, name):
    front_end.load(ui_file(name))
    front_end.screenshot(screenshots / f"{name}.png")
    assert_opened_as_saved(front_end, name)
    assert_tidy(front_end)
