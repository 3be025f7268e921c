"""The folder of a test is its tier: tests/unit -> marker unit."""

from __future__ import annotations

from pathlib import Path

import pytest

TIERS = ("browser", "e2e", "host", "parity", "unit", "gpu")
"""In this order: the longest tests first, so that two processes end together."""
ROOT = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(ROOT).parts[0]
        if folder in TIERS:
            item.add_marker(folder)
    places = {name: place for place, name in enumerate(TIERS)}
    items.sort(key=lambda item: places.get(item.path.relative_to(ROOT).parts[0], len(TIERS)))
