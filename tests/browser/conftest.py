"""A ComfyUI with this pack and the models that its workflows name, and its front end in Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ip2p.tests.browser.frontend import FrontEnd, opened_front_end
from ip2p.tests.host.comfy_host import ComfyServer, find_comfy, make_base_directory, running_comfy
from ip2p.tests.host.workflow_runs import furnish


@pytest.fixture(scope="session")
def browser_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """A running ComfyUI whose user has been here before: the front end opens without its tour."""
    root, base = find_comfy(), make_base_directory(tmp_path_factory.mktemp("comfy_for_browser"))
    furnish(root, base)
    with running_comfy(root, base) as server:
        server.post("/settings", {"Comfy.TutorialCompleted": True})
        yield server


@pytest.fixture(scope="module")
def front_end(browser_server: ComfyServer) -> Iterator[FrontEnd]:
    """Not for the whole session: playwright's event loop runs in this thread, and other tests run loops of their own."""
    with opened_front_end(browser_server.url) as front_end:
        yield front_end


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """Where pictures for looking at go; git ignores it."""
    return Path(__file__).resolve().parents[2] / "out" / "browser"
