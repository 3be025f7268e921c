"""Arguments of the command `edit`, and how they become settings: the model's defaults, a repeated record, then options."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..ip2p_core.errors import BadInstruction, ConfigError
from ..ip2p_core.guidance import ApgSettings
from ..ip2p_core.instruction import clean_instruction
from ..ip2p_core.sampling import SAMPLERS
from ..ip2p_core.schedule import SCHEDULERS
from .argument_parser import ArgumentParser
from .edit import EditSettings
from .edit_record import EditRecord, read_record

MAX_SEEDS = 10_000
EXAMPLES = """\
examples:
  ip2p edit photo.jpg "make it black and white" -o edited.png
  ip2p edit holiday/ -i "make it winter" -i "make it night" -o out/      two results for each picture
  ip2p edit photo.jpg --chain -i "make it winter" -i "add snow" -o out/  one after another
  ip2p edit --repeat edited.png -o again.png                             the same picture again
"""


@dataclass(frozen=True)
class EditTask:
    """What the user asked for, checked as far as it can be without a model or a picture."""

    photos: tuple[Path, ...]
    chains: tuple[tuple[str, ...], ...]
    """Alternatives; each is one instruction, or several to apply one after another."""
    seeds: tuple[int, ...]
    options: argparse.Namespace
    repeated: EditRecord | None


def build_parser() -> argparse.ArgumentParser:
    """Describe the arguments."""
    parser = ArgumentParser(
        prog="ip2p edit",
        description="Edit pictures by a written instruction. Size and transparency of each picture are kept.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "inputs",
        nargs="*",
        metavar="PHOTO",
        help="pictures and folders; without -i, the last argument is the instruction",
    )
    add("-i", "--instruction", action="append", metavar="TEXT", help="what to change; again for an alternative")
    add("--chain", action="store_true", help="apply the instructions one after another, not as alternatives")
    add("-n", "--negative-instruction", metavar="TEXT", help="what to stay away from; usually empty")
    add("-o", "--output", metavar="OUT", type=Path, help="a file for one result, or a folder")
    add("--force", action="store_true", help="overwrite results that exist")
    add("--dry-run", action="store_true", help="say what would be done, and do nothing")
    add("--repeat", metavar="FILE", type=Path, help="take everything from a .json or PNG that this command wrote")
    _add_model_arguments(parser)
    _add_sampling_arguments(parser)
    _add_guidance_arguments(parser)
    return parser


def _add_model_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("model").add_argument
    add("--model", metavar="NAME", help='"editor", the embedded one (default), or a file or folder in the model folder')
    add("--models", metavar="DIR", type=Path, default=Path("models"), help="the model folder (default: models)")
    add("--vae", metavar="NAME", help="another autoencoder, a file or folder in the model folder")
    add("--device", metavar="NAME", help="cpu, cuda, cuda:1, mps; default: the GPU if there is one")
    add("--dtype", help="float32, float16, bfloat16; default: float32 on a CPU, float16 on a GPU")
    add("--compile", action="store_true", help="compile the model: slow at first, faster for many pictures of one size")


def _add_sampling_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("sampling; the defaults are the model's own").add_argument
    add("--seed", "--seeds", metavar="SEEDS", dest="seeds", help="one, or several: 7 or 1,2,3 or 0-9; default 0")
    add("--steps", type=int, metavar="N", help="sampling steps; 10 to 100")
    add("--sampler", choices=list(SAMPLERS))
    add("--scheduler", choices=list(SCHEDULERS))
    add("--working-resolution", type=int, metavar="PIXELS", help="longer side at which the model works")
    add("--denoise", type=float, metavar="X", help="above 0 to 1; below 1 the edit starts from the picture; default 1")
    add(
        "--mask", type=Path, metavar="FILE", help="white where the picture may change; the rest stays exactly as it was"
    )
    add("--feather", type=int, metavar="PIXELS", help="soft rim inside the mask; default 8")


def _add_guidance_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("guidance").add_argument
    pair: dict[str, Any] = {"type": float, "nargs": 2, "metavar": ("START", "END")}
    add(
        "-t",
        "--text-guidance-scale",
        type=float,
        metavar="X",
        help="how strongly it follows the text; 5 to 10 is usual",
    )
    add(
        "-g",
        "--image-guidance-scale",
        type=float,
        metavar="X",
        help="higher keeps more of the picture; 1 to 2 is usual",
    )
    add("--text-interval", **pair, help="share of the steps where the text is guided; default 0 1")
    add("--image-interval", **pair, help="share of the steps where the picture is guided; default 0 1")
    add("--rescale", type=float, metavar="X", help="0 to 1; tames contrast at high scales; default 0")
    add("--apg", action="store_true", help="projected guidance: high scales with less saturation")
    add("--apg-eta", type=float, metavar="X", help="share of the parallel part that is kept; default 0")
    add("--apg-norm-threshold", type=float, metavar="X", help="longest guidance step; default 0, no limit")
    add("--apg-momentum", type=float, metavar="X", help="share of earlier steps; default 0; -0.5 is usual")


def parse_task(argv: Sequence[str]) -> EditTask:
    """Read the arguments.

    Args:
        argv: the arguments after `edit`.

    Returns:
        The checked task.

    Raises:
        BadInstruction: if there is no instruction, or an empty one.
        ConfigError: if something else is wrong.
    """
    options = build_parser().parse_intermixed_args(list(argv))
    repeated = read_record(options.repeat) if options.repeat else None
    inputs, instructions = list(options.inputs), list(options.instruction or [])
    if not instructions and repeated is None:
        instructions = [_last_as_instruction(inputs)]
    if options.output is None:
        raise ConfigError("There is no output; name a file or a folder after -o.")
    photos = tuple(Path(one) for one in inputs)
    if not photos and repeated is not None:
        photos = (find_beside(repeated.photo.name, options.repeat, "picture"),)
    if not photos:
        raise ConfigError(
            'There is no picture to edit; write for example: ip2p edit photo.jpg "make it night" -o out.png'
        )
    cleaned = [clean_instruction(text) for text in instructions]
    if repeated is not None and not cleaned:
        chains = [tuple(repeated.chain)]
    else:
        chains = [tuple(cleaned)] if options.chain else [(text,) for text in cleaned]
    default_seed = 0 if repeated is None else repeated.seed
    return EditTask(photos, tuple(chains), _parse_seeds(options.seeds, default_seed), options, repeated)


def _last_as_instruction(inputs: list[str]) -> str:
    if not inputs:
        raise BadInstruction('There is no instruction; write what shall change, for example "make it black and white".')
    text = inputs.pop()
    if text.strip() and _exists(text):
        raise BadInstruction(
            f"The last argument {text!r} is a file or folder, not an instruction; write what shall change after the "
            "pictures, or with -i."
        )
    return clean_instruction(text)


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):  # longer than a file name may be, or with a zero byte
        return False


def find_beside(name: str, record: Path, kind: str) -> Path:
    """Look for a file of a record beside the record and in the working folder.

    Args:
        name: of the file.
        record: the .json or picture that names it.
        kind: what the file is, for the message.

    Returns:
        The file.

    Raises:
        ConfigError: if it is in neither place.
    """
    for candidate in (record.parent / name, Path(name)):
        if candidate.is_file() and candidate.resolve() != record.resolve():
            return candidate
    raise ConfigError(
        f"The {kind} {name} of {record} is not beside it nor in this folder; name it: "
        + (
            f"ip2p edit --mask path/to/{name} ..."
            if kind == "mask"
            else f"ip2p edit path/to/{name} --repeat {record} ..."
        )
    )


def _parse_seeds(text: str | None, default: int) -> tuple[int, ...]:
    if text is None:
        return (default,)
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        start, end = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if not start <= end < 2**64 or end - start >= MAX_SEEDS:
            raise ConfigError(
                f"The seeds {text!r} cannot be read; write 7, or 1,2,3, or 0-9, each from 0 to 2**64 - 1."
            )
        seeds.extend(range(start, end + 1))
    return tuple(dict.fromkeys(seeds))


def apply_options(settings: EditSettings, options: argparse.Namespace) -> EditSettings:
    """Change settings by the options that were given.

    Args:
        settings: the model's defaults, or those of a repeated record.
        options: the parsed arguments.

    Returns:
        The settings of the edit.

    Raises:
        ConfigError: if a value is out of range.
    """
    names = ("steps", "sampler", "scheduler", "denoise", "working_resolution", "feather", "negative_instruction")
    changed = replace(settings, **_given(options, names))
    guidance = settings.guidance
    scales = replace(guidance.scales, **_given(options, ("text_guidance_scale", "image_guidance_scale")))
    changes = _given(options, ("rescale",))
    changes.update((name, tuple(value)) for name, value in _given(options, ("text_interval", "image_interval")).items())
    apg = {name.removeprefix("apg_"): value for name, value in _given(options, _APG_OPTIONS).items()}
    if options.apg or apg:
        changes["apg"] = replace(guidance.apg or ApgSettings(), **apg)
    changed = replace(changed, guidance=replace(guidance, scales=scales, **changes))
    mistakes = [
        f"{name} is {value}; it must be at least {least}."
        for name, value, least in (
            ("steps", changed.steps, 1),
            ("working_resolution", changed.working_resolution, 1),
            ("feather", changed.feather, 0),
        )
        if value < least
    ]
    if not 0.0 < changed.denoise <= 1.0:
        mistakes.append(f"denoise is {changed.denoise:g}; it must be above 0 and at most 1.")
    if mistakes:
        raise ConfigError(*mistakes)
    return changed


_APG_OPTIONS = ("apg_eta", "apg_norm_threshold", "apg_momentum")


def _given(options: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}
