"""What every run writes into its folder first: its settings, and the versions of what it depends on."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from ..ip2p_core.pair_store.durable_files import write_durably

PACKAGES = ("torch", "diffusers", "transformers", "open_clip_torch", "pyarrow")


def write_run_record(folder: Path, config: Any, *packages: str) -> None:
    """Write config.json and versions.json.

    Args:
        folder: of the run.
        config: its settings, a dataclass.
        *packages: whose versions count besides the usual ones.

    Raises:
        PairStoreError: if the folder cannot be written.
    """
    for name, record in (("config", asdict(config)), ("versions", package_versions(*packages))):
        text = json.dumps(record, indent=1)
        write_durably(folder / f"{name}.json", lambda beside, text=text: beside.write_text(text))  # type: ignore[misc]


def package_versions(*more: str) -> dict[str, str]:
    """Return name -> version; "not installed" where a package is missing."""
    return {"python": platform.python_version(), **{name: _version(name) for name in (*PACKAGES, *more)}}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
