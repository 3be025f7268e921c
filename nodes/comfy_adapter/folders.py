"""The host's model folders: what is offered in lists, and which file a name means."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

import folder_paths

from ...ip2p_core.checkpoint import embedded_model_path
from ...ip2p_core.errors import CheckpointError, Ip2pError

EMBEDDED_EDITOR = "embedded: editor"
EMBEDDED = {EMBEDDED_EDITOR: "editor"}
MODEL_FOLDER = "ip2p"
KINDS = (MODEL_FOLDER, "checkpoints", "diffusers")
FILE_TYPES = {".safetensors", ".ckpt"}


def register_model_folder() -> None:
    """Make models/ip2p known to the host, beside what extra_model_paths.yaml may have added."""
    folder_paths.add_model_folder_path(MODEL_FOLDER, str(Path(folder_paths.models_dir) / MODEL_FOLDER), is_default=True)
    paths, _ = folder_paths.folder_names_and_paths[MODEL_FOLDER]
    folder_paths.folder_names_and_paths[MODEL_FOLDER] = (paths, set(FILE_TYPES))


def model_names() -> list[str]:
    """List what can be loaded: embedded, then models/ip2p, models/checkpoints, models/diffusers."""
    names = list(EMBEDDED)
    for kind in KINDS:
        if kind not in folder_paths.folder_names_and_paths:
            continue
        if kind != "diffusers":
            names += [n for n in folder_paths.get_filename_list(kind) if Path(n).suffix.lower() in FILE_TYPES]
        if kind != "checkpoints":
            names += _diffusers_folders(kind)
    return list(dict.fromkeys(names))


def _diffusers_folders(kind: str) -> list[str]:
    """Relative paths of the diffusers models, up to two folders deep."""
    found = []
    for root in map(Path, folder_paths.get_folder_paths(kind)):
        for depth in ("*", "*/*"):
            configs = root.glob(f"{depth}/unet/config.json")
            found += [config.parent.parent.relative_to(root).as_posix() for config in configs]
    return sorted(found)


def vae_names() -> list[str]:
    """List the files in models/vae."""
    return [name for name in folder_paths.get_filename_list("vae") if Path(name).suffix.lower() in FILE_TYPES]


def resolve_model(name: str) -> Path:
    """Find the file or folder of a model name.

    Args:
        name: an embedded model, or a path relative to one of the model folders.

    Returns:
        The path of an existing file or folder inside the model folders (or of the embedded file).

    Raises:
        CheckpointError: if the name points outside the model folders, or nothing is there.
    """
    if name in EMBEDDED:
        return embedded_model_path(EMBEDDED[name])
    _refuse_outside(name)
    for kind in KINDS:
        for root in folder_paths.get_folder_paths(kind) if kind in folder_paths.folder_names_and_paths else ():
            path = Path(root) / name
            if path.is_file() or path.is_dir():
                return path
    raise CheckpointError(
        f'There is no model "{name}" in models/ip2p, models/checkpoints or models/diffusers. '
        "Put the file there, or choose another name in model_name."
    )


def _refuse_outside(name: str) -> None:
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    outside = posix.is_absolute() or windows.drive or windows.root or ".." in (*posix.parts, *windows.parts)
    if outside or not posix.parts:
        raise CheckpointError(
            f'The model name "{name}" does not lie inside the model folders; a name relative to models/ip2p, '
            "models/checkpoints or models/diffusers is needed. Move the model there and give its name alone."
        )


def resolve_vae(name: str) -> Path:
    """Find a file of models/vae."""
    _refuse_outside(name)
    path = folder_paths.get_full_path("vae", name)
    if path is None:
        raise CheckpointError(f'There is no autoencoder "{name}" in models/vae. Put the file there, or choose another.')
    return Path(path)


def fingerprint(name: str) -> tuple:
    """Say which files stand behind a name, and in which version."""
    try:
        path = resolve_model(name)
    except Ip2pError:
        return (name,)
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    stats = [(str(file), file.stat()) for file in files if file.is_file()]
    return tuple((file, stat.st_size, stat.st_mtime_ns) for file, stat in stats)
