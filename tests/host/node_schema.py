"""The frozen ids, inputs and defaults of the nodes. Saved workflows depend on them.

Write the file anew after a wanted change, with a ComfyUI at COMFYUI_PATH or ~/comfy/ComfyUI:

    python -m ip2p.tests.host.node_schema
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

SCHEMA_PATH = Path(__file__).with_name("node_schema.json")
HOST_LISTS = {"base_model", "model_name", "vae_name", "sampler_name", "scheduler", "scorer_name", "file"}
FIELDS = ("display_name", "category", "output", "output_name", "output_is_list", "output_node", "deprecated")


def frozen_schema(object_info: dict, node_ids: set[str]) -> dict:
    """Keep what a saved workflow depends on, from the answer of /object_info; lists of the host's are left out."""
    return {node_id: _frozen(object_info[node_id]) for node_id in sorted(node_ids)}


def _frozen(info: dict) -> dict:
    inputs = {
        group: [_frozen_input(name, *info["input"][group][name]) for name in info["input_order"][group]]
        for group in info["input_order"]
    }
    return {"input": inputs, **{field: info.get(field) for field in FIELDS}}


def _frozen_input(name: str, kind: object, options: dict | None = None) -> dict:
    kept = {
        key: value for key, value in (options or {}).items() if key in ("default", "min", "max", "step", "multiline")
    }
    if isinstance(kind, list) or kind == "COMBO":
        kind = "COMBO"
        if name not in HOST_LISTS:
            kept["options"] = (options or {}).get("options")
    return {"name": name, "type": kind, **kept}


def main() -> None:
    """Write the file from a running host."""
    from ip2p.tests.host.comfy_host import find_comfy, make_base_directory, running_comfy
    from ip2p.tests.host.test_server import NODE_IDS

    with (
        tempfile.TemporaryDirectory() as folder,
        running_comfy(find_comfy(), make_base_directory(Path(folder))) as server,
    ):
        schema = frozen_schema(server.object_info(), NODE_IDS)
    SCHEMA_PATH.write_text(json.dumps(schema, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
