"""The command lines' argument parser: a mistake is one sentence, as every other error of the program."""

from __future__ import annotations

import argparse
from typing import Any

from ..ip2p_core.errors import ConfigError


class ArgumentParser(argparse.ArgumentParser):
    """Says what is wrong in one line instead of printing the usage and leaving."""

    def error(self, message: str) -> Any:
        """Refuse the arguments with a ConfigError."""
        raise ConfigError(f"{message}. Run {self.prog} --help for the arguments.")
