"""The rules of the house that no other tool checks, and one run of the tool that checks the arrows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = ("ip2p_core", "nodes", "trainer", "tests", "benchmarks")
SOURCES = [ROOT / "__init__.py", *(path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")))]
BACKENDS = {
    "comfy",
    "comfy_api",
    "folder_paths",
    "diffusers",
    "transformers",
    "accelerate",
    "ray",
    "open_clip",
    "torchmetrics",
}


def test_core_loads_no_host_and_no_backend():
    modules = [path.stem for path in sorted((ROOT / "ip2p_core").glob("*.py")) if path.stem != "open_clip_adapter"]
    imports = "\n".join(f"import ip2p.ip2p_core.{name}" for name in modules if name != "__init__")
    code = f"import sys\n{imports}\nprint(*(name for name in {sorted(BACKENDS)} if name in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


def test_loading_the_package_loads_nothing_else():
    code = "import sys; import ip2p; print(*(name for name in sys.modules if name.startswith(('ip2p.', 'torch'))))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


def test_the_arrows_between_the_parts_hold():
    tool = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run([tool, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_longer_than_300_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


def test_requirements_are_the_mandatory_dependencies():
    assert (ROOT / "requirements.txt").read_text().split() == PYPROJECT["project"]["dependencies"]


def test_every_package_folder_is_listed():
    folders = {path.parent for folder in ("ip2p_core", "nodes", "trainer") for path in (ROOT / folder).rglob("*.py")}
    wanted = {"ip2p", *("ip2p." + ".".join(folder.relative_to(ROOT).parts) for folder in folders)}
    assert set(PYPROJECT["tool"]["setuptools"]["packages"]) == wanted


def test_no_part_imports_the_package_by_its_absolute_name():
    # the host loads the folder under another name
    pattern = re.compile(r"^\s*(from ip2p[.\s]|import ip2p\b)", re.MULTILINE)
    inside = [path for path in SOURCES if path.relative_to(ROOT).parts[0] not in ("tests", "benchmarks")]
    assert [str(path) for path in inside if pattern.search(path.read_text(encoding="utf-8"))] == []


def test_every_function_of_math_md_exists():
    names = re.findall(r"`ip2p_core/(\w+)\.py:(\w+)`", (ROOT / "docs" / "MATH.md").read_text(encoding="utf-8"))
    assert len(names) > 15
    for module, function in names:
        source = (ROOT / "ip2p_core" / f"{module}.py").read_text(encoding="utf-8")
        assert re.search(rf"^\s*(def|class) {function}\b", source, re.MULTILINE), f"{module}.py has no {function}"


def test_every_test_of_math_md_exists():
    names = re.findall(
        r"`(tests/\w+/test_\w+\.py)`: `(test_\w+)`", (ROOT / "docs" / "MATH.md").read_text(encoding="utf-8")
    )
    assert len(names) > 15
    for path, test in names:
        assert f"def {test}(" in (ROOT / path).read_text(encoding="utf-8"), f"{path} has no {test}"
