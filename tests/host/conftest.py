"""ComfyUI for the host tier: as a server with the pack in custom_nodes, and inside this process for single functions."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ip2p.tests import tiny, tiny_clip
from ip2p.tests.fault_proxy import FaultProxy
from ip2p.tests.host.comfy_host import (
    MODEL_FOLDERS,
    PACK,
    ComfyServer,
    find_comfy,
    make_base_directory,
    running_comfy,
)

LANGUAGE_KEY = "sk-of-the-host-987654321"
TINY_EDITOR, TINY_GENERATOR, TINY_SCORER = (f"tiny_{name}.safetensors" for name in ("editor", "generator", "scorer"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the host warn: its own code and its dependencies raise warnings that are not ours to mend."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(scope="session")
def comfy_root() -> Path:
    """The checkout of the version this pack is made for."""
    return find_comfy()


@pytest.fixture(scope="session")
def comfy_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base directory with this pack, and tiny models with random weights in models/ip2p."""
    base = make_base_directory(tmp_path_factory.mktemp("comfy"))
    tiny.tiny_editor(base / "models" / "ip2p" / TINY_GENERATOR, in_channels=4)
    tiny_clip.tiny_scorer(base / "models" / "ip2p" / TINY_SCORER)
    tiny.tiny_editor(base / "models" / "ip2p" / TINY_EDITOR, prediction_type="v")
    return base


@pytest.fixture(scope="session")
def language_server() -> Iterator[FaultProxy]:
    """What OPENAI_BASE_URL names in the running ComfyUI; tests say what it answers."""
    with FaultProxy("", answer="nothing").running() as proxy:
        yield proxy


@pytest.fixture(scope="session")
def comfy_server(comfy_root: Path, comfy_base: Path, language_server: FaultProxy) -> Iterator[ComfyServer]:
    """A running ComfyUI with this pack, shared by all tests of the session."""
    names = {"OPENAI_BASE_URL": language_server.url, "OPENAI_API_KEY": LANGUAGE_KEY}
    with running_comfy(comfy_root, comfy_base, **names) as server:
        yield server


@pytest.fixture(scope="session")
def comfy(comfy_root: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """ComfyUI's modules inside this process, on the CPU, with a base directory of their own."""
    base = tmp_path_factory.mktemp("comfy_in_process")
    for name in MODEL_FOLDERS:
        (base / "models" / name).mkdir(parents=True)
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != PACK]
    sys.path.insert(0, str(comfy_root))
    from comfy.cli_args import args

    args.cpu, args.use_pytorch_cross_attention, args.base_directory = True, True, str(base)
    import nodes

    assert Path(nodes.__file__).parent == comfy_root, "another module named nodes came first"
    from ip2p.nodes.comfy_adapter import folders

    folders.register_model_folder()
    return SimpleNamespace(root=comfy_root, base=base, models=base / "models", nodes=nodes)


@pytest.fixture(autouse=True)
def _as_the_host_runs_nodes() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(scope="session")
def editor(comfy: SimpleNamespace):
    """A tiny editor with random weights, as our loader node gives it: MODEL, CLIP, VAE."""
    path = comfy.models / "ip2p" / TINY_EDITOR
    tiny.tiny_editor(path, prediction_type="v")
    from ip2p.nodes.comfy_adapter import loading

    with torch.inference_mode():
        return loading.load(path)


@pytest.fixture(scope="session")
def photo() -> torch.Tensor:
    """Three pictures [3, 50, 70, 3]: smooth, different, of an odd size."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(3, 3, 5, 7, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(50, 70), mode="bicubic").clamp(0, 1).movedim(1, -1)
