"""The command line: `ip2p COMMAND ...`, or `python -m ip2p.trainer COMMAND ...`.

Each command is loaded only when it is called. What a user can repair is one sentence and exit code 2.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from ..ip2p_core.errors import Ip2pError

COMMANDS = {
    "edit": (".edit_command", "edit pictures by a written instruction"),
    "demo": (".demo", "edit held-out pictures with the embedded model and write before/after sheets"),
    "triplets": (".triplets.command", "write instructions and edited captions for captions"),
    "pairs": (".pairs_command", "make a dataset of pairs from triplets of texts"),
    "train": (".train_command", "train a model that edits by instruction on a dataset of pairs"),
    "evaluate": (".evaluation.command", "measure editors and baselines on examples, with plots and one page"),
    "export": (".export_command", "write a model in another layout or number format, or make any model an editor"),
    "dataset": (".dataset_command", "check, review, export and import datasets of pairs"),
    "proof": (".proof.command", "run the whole chain in the rendered world and write what it shows"),
    "train-embedded": (".embedded.command", "train the embedded editor again"),
    "train-embedded-generator": (".embedded.generator", "train the embedded text-to-image model again"),
    "train-embedded-clip": (".embedded.clip", "train the embedded CLIP again"),
    "evaluate-embedded": (".evaluate_embedded", "measure the embedded editor"),
    "evaluate-embedded-generator": (".evaluate_generator", "measure the embedded text-to-image model and its pairs"),
}
INTERRUPTED, USER_ERROR = 130, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments without the program's name; by default those of the process.

    Returns:
        The exit code: 0 done, 1 some results are missing, 2 a mistake that the message names, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(_help())
        return 0 if arguments else USER_ERROR
    command, rest = arguments[0], arguments[1:]
    if command not in COMMANDS:
        return _fail(f"ip2p: there is no command {command!r}; choose one of {', '.join(COMMANDS)}.")
    try:
        module = importlib.import_module(COMMANDS[command][0], __package__)
        return int(module.main(rest) or 0)
    except Ip2pError as error:
        return _fail(f"ip2p {command}: {error}")
    except KeyboardInterrupt:
        return _fail(f"ip2p {command}: interrupted.", INTERRUPTED)


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(["usage: ip2p COMMAND ...", "", *lines, "", "ip2p COMMAND --help explains a command.", ""])


def _fail(message: str, code: int = USER_ERROR) -> int:
    sys.stderr.write(f"{message}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
