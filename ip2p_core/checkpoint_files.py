"""Model files on disk: read without running code, write beside and rename, so that nothing is ever half written."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .errors import CheckpointError

_PICKLE_MAGIC = (b"PK\x03\x04", b"\x80")


def read_metadata(path: Path) -> tuple[list[str], dict[str, str]]:
    """Read the names of the weights and the text header of a safetensors file.

    Args:
        path: the file.

    Returns:
        Names of all weights, and the header's entries.

    Raises:
        CheckpointError: if the file is missing, cut off, damaged or of another format.
    """
    _require_file(path)
    try:
        with safe_open(path, framework="pt") as opened:
            return list(opened.keys()), dict(opened.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from None


def read_tensors(path: Path, is_wanted: Callable[[str], bool] = lambda _: True) -> dict[str, Tensor]:
    """Read weights from a .safetensors, or without running any code from a .ckpt, .pt or .bin.

    Args:
        path: the file.
        is_wanted: says by name which weights to read.

    Returns:
        Name -> weight, on the CPU.

    Raises:
        CheckpointError: if the file is missing, cut off, damaged, of another format, or a pickle with code.
    """
    _require_file(path)
    if path.suffix.lower() in (".ckpt", ".pt", ".pth", ".bin"):
        return {name: value for name, value in _read_pickle(path).items() if is_wanted(name)}
    try:
        with safe_open(path, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys() if is_wanted(name)}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from None


def _read_pickle(path: Path) -> dict[str, Tensor]:
    """The one place that opens pickles; weights_only refuses everything but tensors and plain containers."""
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path.name} is a pickle that contains code, or is damaged; it was not opened. Use the safetensors version "
            "of the model."
        ) from None
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise _damaged(path, error) from None
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else {}
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise CheckpointError(f"There is no model file {path}. Check the name, or put the file into that folder.")


def _damaged(path: Path, error: Exception) -> CheckpointError:
    with path.open("rb") as opened:
        start = opened.read(9)
    is_safetensors = start[8:] == b"{"  # after eight bytes of length, which may begin like a pickle
    if path.suffix.lower() == ".safetensors" and start.startswith(_PICKLE_MAGIC) and not is_safetensors:
        return CheckpointError(
            f"{path.name} is a pickle renamed to .safetensors; it was not opened. Use the safetensors version of the model."
        )
    reason = " ".join(str(error).split()).rstrip(".")
    return CheckpointError(
        f"{path.name} is cut off, damaged or not a model file ({reason}). Download or copy it again; it has "
        f"{path.stat().st_size} bytes."
    )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: the file.

    Returns:
        The object.

    Raises:
        CheckpointError: if the file is missing or holds anything else.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"The folder {path.parent} has no {path.name}. Choose the folder of a whole diffusers model, with its "
            "configuration files."
        ) from None
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({error}). Download it again.") from None
    if not isinstance(record, dict):
        raise CheckpointError(f"{path} does not hold a JSON object. Download it again.")
    return record


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file beside its place and rename it, so that the old file stays until the new one is whole.

    Args:
        path: the file; its folder is made if needed.
        tensors: the weights.
        metadata: header entries, strings only.

    Raises:
        CheckpointError: if it cannot be written, for example because the disk is full; the old file is untouched.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in tensors.items()}, beside, metadata=dict(metadata))
        permit_as_usual(beside)
        _sync(beside)
        beside.replace(path)
        _sync(path.parent)
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise CheckpointError(
            f"{path} could not be written ({reason}); a file that was there before is unchanged. Free some disk space or "
            "choose another folder."
        ) from None
    finally:
        beside.unlink(missing_ok=True)


def permit_as_usual(path: Path) -> None:
    """Give a file, which was made readable by its owner alone, the permissions that this user's new files get."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open folders
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
