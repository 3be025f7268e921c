"""How processes of this machine are started that work beside this one."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext


def worker_context(modules: Sequence[str]) -> ForkServerContext | SpawnContext:
    """Choose how worker processes start: on Linux forked from a server that imports libraries once for all of them.

    The server is a fresh process, without threads and without a GPU in use, and so are those that it forks. Importing torch
    and diffusers takes several seconds of a processor, and a few hundred megabytes that forked processes share.

    Args:
        modules: what the server imports; those of the first call count, since one server serves all.

    Returns:
        The context whose `Process` to use. Where there is no such server every process starts from nothing.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", *modules])  # launch.py makes the pack importable
    return context
