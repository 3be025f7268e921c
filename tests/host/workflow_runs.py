"""What tests need to run the files in workflows/: their contents, and models in the places that they name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from ip2p.tests import tiny
from ip2p.tests.host.test_loading import write_folder
from ip2p.tests.host.workflow_files import FOLDER
from ip2p.tests.host.workflow_sources import COSXL_EDIT, INPUT_PICTURE, INSTRUCT_PIX2PIX, MAGICBRUSH

NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
ON_EMBEDDED = ["instruct_edit", "instruct_edit_advanced"]
ON_CHECKPOINTS = [name for name in NAMES if name not in ON_EMBEDDED]


def ui_file(name: str) -> dict:
    """Read a workflow as the front end opens it."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def api_file(name: str) -> dict:
    """Read a workflow as the server runs it."""
    return json.loads((FOLDER / "api" / f"{name}.json").read_text(encoding="utf-8"))


def furnish(comfy_root: Path, base: Path) -> None:
    """Put the host's picture, and tiny models under the names of the published checkpoints, where workflows look."""
    shutil.copy(comfy_root / "input" / INPUT_PICTURE, base / "input" / INPUT_PICTURE)
    for checkpoint in (INSTRUCT_PIX2PIX, COSXL_EDIT):
        tiny.tiny_editor(base / "models" / "checkpoints" / checkpoint.model_name, prediction_type="v")
    write_folder(tiny.tiny_models(factor=8), base / "models" / "diffusers" / MAGICBRUSH.model_name)
