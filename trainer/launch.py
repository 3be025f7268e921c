"""Starts the program where the pack is not installed, as inside ComfyUI: python PACK/trainer/launch.py COMMAND ...

It makes the folder of the pack known as the package `ip2p`; a worker process that imports this file again does so too.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

PACK = Path(__file__).resolve().parent.parent


def register() -> None:
    """Make this pack the package `ip2p` of this process."""
    spec = importlib.util.spec_from_file_location("ip2p", PACK / "__init__.py", submodule_search_locations=[str(PACK)])
    if spec is None or spec.loader is None:
        raise ImportError(f"{PACK} holds no package")
    module = importlib.util.module_from_spec(spec)
    sys.modules["ip2p"] = module
    spec.loader.exec_module(module)


sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]
register()

if __name__ == "__main__":
    sys.exit(importlib.import_module("ip2p.trainer.__main__").main())
