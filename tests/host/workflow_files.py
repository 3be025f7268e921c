"""Write workflows/*.json (as the front end saves them) and workflows/api/*.json (as the server runs them).

After a wanted change of workflow_sources.py or of a node, with a ComfyUI at COMFYUI_PATH or ~/comfy/ComfyUI:

    python -m ip2p.tests.host.workflow_files
"""

from __future__ import annotations

import json
import tempfile
import uuid
from pathlib import Path
from typing import Any, NamedTuple

from ip2p.tests.host.workflow_parts import BYPASSED, Node, Workflow
from ip2p.tests.host.workflow_sources import workflows

FOLDER = Path(__file__).resolve().parents[2] / "workflows"
PACK_NAME = "instruct-pix2pix"
WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
VIRTUAL = {"MarkdownNote"}
"""Nodes of the front end alone."""
FRONT_END_WIDGETS: dict[str, list[Any]] = {"PreviewAny": ["", False]}
"""Widgets that the front end adds to a node by itself: what is shown, and whether as plain text."""


class Input(NamedTuple):
    """An input of a node as the host describes it."""

    name: str
    type: str
    options: dict[str, Any]
    is_widget: bool
    is_optional: bool


def inputs_of(info: dict) -> list[Input]:
    """Read the inputs of a node in the order of its schema."""
    found = []
    for group in ("required", "optional"):
        for name in info["input_order"].get(group, ()):
            kind, *rest = info["input"][group][name]
            options = dict(rest[0]) if rest else {}
            if isinstance(kind, list):
                kind, options = "COMBO", {"options": kind, **options}
            is_widget = kind in WIDGET_TYPES and not options.get("forceInput")
            found.append(Input(name, kind, options, is_widget, group == "optional"))
    return found


def value_of(node: Node, one: Input) -> Any:
    """Return what a widget of a node shows."""
    value = node.inputs.get(one.name)
    if value is not None and not isinstance(value, list):
        return value
    if "default" in one.options or one.type != "COMBO":
        return one.options.get("default", "")
    return next(iter(one.options["options"]), "")


def api_prompt(workflow: Workflow, object_info: dict) -> dict:
    """Make the prompt of a workflow: bypassed nodes and notes left out, every widget given."""
    by_id = {node.id: node for node in workflow.nodes}
    prompt = {}
    for node in workflow.nodes:
        if node.type in VIRTUAL or node.mode == BYPASSED:
            continue
        info = object_info[node.type]
        values = {}
        for one in inputs_of(info):
            if isinstance(node.inputs.get(one.name), list):
                source, output = _behind_bypassed(by_id, object_info, *node.inputs[one.name])
                values[one.name] = [str(source), output]
            elif one.is_widget:
                values[one.name] = value_of(node, one)
        title = node.title or info["display_name"] or node.type
        prompt[str(node.id)] = {"class_type": node.type, "inputs": values, "_meta": {"title": title}}
    return prompt


def _behind_bypassed(by_id: dict[int, Node], object_info: dict, source: int, output: int) -> tuple[int, int]:
    """Follow a link through bypassed nodes, which pass on their input of the same type."""
    node = by_id[source]
    if node.mode != BYPASSED:
        return source, output
    info = object_info[node.type]
    kind = info["output"][output]
    name = next(one.name for one in inputs_of(info) if one.type == kind)
    return _behind_bypassed(by_id, object_info, *node.inputs[name])


def ui_workflow(workflow: Workflow, object_info: dict) -> dict:
    """Make the file that the front end opens."""
    records, links = {}, []
    for order, node in enumerate(workflow.nodes):
        records[node.id] = _ui_note(node, order) if node.type in VIRTUAL else _ui_node(node, order, object_info)
    for node in workflow.nodes:
        for slot, record in enumerate(records[node.id]["inputs"]):
            link = node.inputs.get(record["name"])
            if not isinstance(link, list):
                continue
            source, output = link
            link_id = len(links) + 1
            record["link"] = link_id
            records[source]["outputs"][output]["links"].append(link_id)
            links.append([link_id, source, output, node.id, slot, record["type"]])
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{PACK_NAME}/{workflow.name}")),
        "revision": 0,
        "last_node_id": max(records),
        "last_link_id": len(links),
        "nodes": list(records.values()),
        "links": links,
        "groups": [],
        "config": {},
        "extra": {},
        "version": 0.4,
    }


def _ui_node(node: Node, order: int, object_info: dict) -> dict:
    info = object_info[node.type]
    inputs = inputs_of(info)
    is_ours = PACK_NAME in info["python_module"]
    sockets = [_ui_socket(one) for one in inputs if not one.is_widget]
    widgets = [{**_ui_socket(one), "widget": {"name": one.name}} for one in inputs if one.is_widget]
    outputs = [
        {"name": name, "type": kind, "links": []}
        for name, kind in zip(info["output_name"], info["output"], strict=True)
    ]
    properties = {"Node name for S&R": node.type, "cnr_id": PACK_NAME if is_ours else "comfy-core"}
    titled = {"title": node.title} if node.title else {}
    return {
        **_ui_frame(node, order),
        "inputs": sockets + widgets,
        "outputs": outputs,
        **titled,
        "properties": properties,
        "widgets_values": [*_widget_values(node, inputs), *FRONT_END_WIDGETS.get(node.type, [])],
    }


def _ui_socket(one: Input) -> dict:
    optional = {"shape": 7} if one.is_optional else {}
    return {"name": one.name, **optional, "type": one.type, "link": None}


def _ui_note(node: Node, order: int) -> dict:
    return {
        **_ui_frame(node, order),
        "inputs": [],
        "outputs": [],
        "title": node.title,
        "properties": {},
        "widgets_values": [node.inputs["text"]],
        "color": "#432",
        "bgcolor": "#000",
    }


def _ui_frame(node: Node, order: int) -> dict:
    return {
        "id": node.id,
        "type": node.type,
        "pos": list(node.pos),
        "size": list(node.size),
        "flags": {},
        "order": order,
        "mode": node.mode,
    }


def _widget_values(node: Node, inputs: list[Input]) -> list:
    """Every widget in the order of the schema, with those that the front end adds."""
    values = []
    for one in inputs:
        if not one.is_widget:
            continue
        values.append(value_of(node, one))
        if one.options.get("control_after_generate"):
            values.append("fixed")
        if one.options.get("image_upload"):
            values.append("image")
    return values


def as_text(record: dict) -> str:
    """Return a record as the files hold it."""
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Write every file anew from a running host."""
    from ip2p.tests.host.comfy_host import find_comfy, make_base_directory, running_comfy

    with (
        tempfile.TemporaryDirectory() as folder,
        running_comfy(find_comfy(), make_base_directory(Path(folder))) as server,
    ):
        object_info = server.object_info()
    write(object_info)


def write(object_info: dict) -> None:
    """Write every file anew."""
    (FOLDER / "api").mkdir(parents=True, exist_ok=True)
    for workflow in workflows():
        (FOLDER / f"{workflow.name}.json").write_text(as_text(ui_workflow(workflow, object_info)), encoding="utf-8")
        (FOLDER / "api" / f"{workflow.name}.json").write_text(
            as_text(api_prompt(workflow, object_info)), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
