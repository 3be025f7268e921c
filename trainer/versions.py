"""Versions of Python and of the packages that a run depends on, for its folder."""

from __future__ import annotations

import platform
from importlib import metadata

PACKAGES = ("torch", "diffusers", "transformers", "open_clip_torch", "pyarrow")


def package_versions(*more: str) -> dict[str, str]:
    """Return name -> version; "not installed" where a package is missing."""
    return {"python": platform.python_version(), **{name: _version(name) for name in (*PACKAGES, *more)}}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
