"""ComfyUI's front end as a person uses it: templates, nodes, Run. A page object; selectors live here and nowhere else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect, sync_playwright

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
"""The browsers that the Makefile looks for, in its order."""
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
START_SECONDS = 120
RUN_SECONDS = 180

NODES = """() => app.graph.nodes.map(node => ({
    id: Number(node.id), type: node.type, title: node.title, pos: [...node.pos], size: [...node.size],
    needed: [...node.computeSize()], known: node.type in LiteGraph.registered_node_types, broken: !!node.has_errors,
    widgets: (node.widgets ?? []).filter(widget => !widget.name.startsWith('$$')).map(widget => ({
        name: widget.name, value: widget.value,
        choices: Array.isArray(widget.options?.values) ? widget.options.values : null,
    })),
}))"""

PICTURE = """id => {
    const picture = app.graph.getNodeById(id)?.imgs?.[0];
    return picture?.complete && picture.naturalWidth ? [picture.naturalWidth, picture.naturalHeight] : null;
}"""


@contextmanager
def opened_front_end(url: str) -> Iterator[FrontEnd]:
    """Open the front end in a fresh profile, past the greeting of the first visit."""
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        pytest.fail(f"There is no Chromium: none of {', '.join(CHROMIUM)} is on the path.", pytrace=False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=[*OPTIONS, "--disable-sync"])
        page = browser.new_page(viewport={"width": 1920, "height": 1080})
        page.set_default_timeout(START_SECONDS * 1000)
        page.goto(url)
        page.get_by_test_id("queue-button").wait_for()
        page.wait_for_function("() => window.app?.graph && app.extensionManager?.workflow?.activeWorkflow")
        yield FrontEnd(page)
        browser.close()


class FrontEnd:
    """One tab with the front end."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def open_template(self, pack: str, name: str) -> None:
        """Open a workflow of a pack through the templates dialog."""
        dialog = self.page.get_by_role("dialog")
        self.page.get_by_role("button", name="Templates").first.click()
        dialog.get_by_text(pack, exact=True).click()
        dialog.get_by_test_id(f"template-workflow-{name}").click()
        expect(dialog).to_be_hidden()
        self.page.wait_for_function("name => app.extensionManager.workflow.activeWorkflow.filename === name", arg=name)

    def load(self, workflow: dict) -> None:
        """Open a workflow as if its file had been dropped onto the page."""
        self.page.evaluate("async workflow => { await app.loadGraphData(workflow) }", workflow)

    def nodes(self) -> list[dict[str, Any]]:
        """Describe every node on the canvas."""
        return self.page.evaluate(NODES)

    def exported_prompt(self) -> dict:
        """Return what the front end sends to the server."""
        return self.page.evaluate("async () => (await app.graphToPrompt()).output")

    def errors(self) -> str:
        """Return what the error overlay says; empty without one."""
        overlay = self.page.get_by_test_id("error-overlay")
        return overlay.inner_text() if overlay.is_visible() else ""

    def run(self, output_node: int) -> tuple[int, int]:
        """Press Run and wait for the picture on a node; return its width and height."""
        self.page.get_by_test_id("queue-button").click()
        picture = self.page.wait_for_function(PICTURE, arg=output_node, timeout=RUN_SECONDS * 1000)
        return tuple(picture.json_value())

    def screenshot(self, path: Path) -> Path:
        """Fit the workflow into the window and take a picture of it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.locator("#graph-canvas").press(".")
        self.page.wait_for_timeout(1500)
        self.page.screenshot(path=path)
        return path
