"""Warnings for the person at the screen: in the log, and on the node that is running."""

from __future__ import annotations

import logging
import sys

from comfy_execution.utils import get_executing_context

logger = logging.getLogger(__name__)


def warn(message: str) -> None:
    """Warn in one sentence; without a running server (tests, scripts) in the log alone."""
    logger.warning(message)
    context = get_executing_context()
    # looked up, not imported: outside a server process the host's own module of this name cannot always be imported
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    if context is not None and server is not None:
        server.send_progress_text(message, context.node_id)
