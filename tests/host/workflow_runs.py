"""What tests need to run the files in workflows/: their contents, and models in the places that they name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from ip2p.tests import tiny
from ip2p.tests.host.comfy_host import PACK
from ip2p.tests.host.pair_workflow_sources import TRIPLETS_FILE
from ip2p.tests.host.test_loading import write_folder
from ip2p.tests.host.workflow_files import FOLDER
from ip2p.tests.host.workflow_parts import INPUT_PICTURE
from ip2p.tests.host.workflow_sources import COSXL_EDIT, INSTRUCT_PIX2PIX, MAGICBRUSH

NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
ON_EMBEDDED = ["instruct_edit", "instruct_edit_advanced"]
OF_PAIRS = ["caption_to_pairs", "make_dataset", "make_pairs", "prompt_to_prompt"]
"""On the embedded generator."""
OF_EVALUATION = ["guidance_grid"]
OF_BASELINES = ["sdedit_baseline"]
OF_TEXT = ["write_instructions"]
OF_TRAINING = ["train_editor"]
"""On the dataset that make_dataset leaves."""
ON_CHECKPOINTS = [
    name
    for name in NAMES
    if name not in (*ON_EMBEDDED, *OF_PAIRS, *OF_EVALUATION, *OF_BASELINES, *OF_TEXT, *OF_TRAINING)
]


def ui_file(name: str) -> dict:
    """Read a workflow as the front end opens it."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def api_file(name: str) -> dict:
    """Read a workflow as the server runs it."""
    return json.loads((FOLDER / "api" / f"{name}.json").read_text(encoding="utf-8"))


def furnish(comfy_root: Path, base: Path) -> None:
    """Put the host's picture, the example triplets, and tiny models under published names, where workflows look."""
    shutil.copy(PACK / "docs" / "examples" / TRIPLETS_FILE, base / "input" / TRIPLETS_FILE)
    shutil.copy(comfy_root / "input" / INPUT_PICTURE, base / "input" / INPUT_PICTURE)
    for checkpoint in (INSTRUCT_PIX2PIX, COSXL_EDIT):
        tiny.tiny_editor(base / "models" / "checkpoints" / checkpoint.model_name, prediction_type="v")
    write_folder(tiny.tiny_models(factor=8), base / "models" / "diffusers" / MAGICBRUSH.model_name)
