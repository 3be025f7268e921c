"""The host's model folders: what is offered in lists, and which file a name means."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

import folder_paths

from ...ip2p_core.checkpoint import embedded_model_path
from ...ip2p_core.errors import BadTriplet, CheckpointError, Ip2pError, PairStoreError

EMBEDDED_EDITOR = "embedded: editor"
EMBEDDED = {EMBEDDED_EDITOR: "editor", "embedded: generator": "generator"}
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


def is_outside(name: str) -> bool:
    """Say whether a name leads out of the folder that it belongs to, on any system."""
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    parts = (*posix.parts, *windows.parts)
    return bool(posix.is_absolute() or windows.drive or windows.root or ".." in parts or not posix.parts)


def _refuse_outside(name: str) -> None:
    if is_outside(name):
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


DATASETS = "ip2p_datasets"
TRIPLET_TYPES = (".jsonl", ".ndjson")


def triplet_files() -> list[str]:
    """List the files of triplets in the input folder."""
    root = Path(folder_paths.get_input_directory())
    found = (path for path in root.rglob("*") if path.suffix.lower() in TRIPLET_TYPES)
    return sorted(path.relative_to(root).as_posix() for path in found)


def resolve_input(name: str) -> Path:
    """Find a file of the input folder.

    Raises:
        BadTriplet: if the name points outside the input folder, or nothing is there.
    """
    if not name or is_outside(name) or not (Path(folder_paths.get_input_directory()) / name).is_file():
        raise BadTriplet(f'There is no file "{name}" in the input folder. Put the .jsonl file there and choose it.')
    return Path(folder_paths.get_input_directory()) / name


def stamp(path: Path) -> tuple:
    """Say in which version a file is there."""
    try:
        stat = path.stat()
    except OSError:
        return (str(path),)
    return str(path), stat.st_size, stat.st_mtime_ns


def dataset_folder() -> Path:
    """Return where the datasets lie: output/ip2p_datasets."""
    return Path(folder_paths.get_output_directory()) / DATASETS


def dataset_names() -> list[str]:
    """List the datasets."""
    root = dataset_folder()
    return sorted(path.parent.relative_to(root).as_posix() for path in root.glob("**/manifest.json"))


def resolve_dataset(name: str) -> Path:
    """Return the folder of a dataset, there or not yet.

    Raises:
        PairStoreError: if the name points outside output/ip2p_datasets.
    """
    if not name.strip() or is_outside(name):
        raise PairStoreError(
            f'The dataset name "{name}" does not lie inside output/{DATASETS}; give a name like "my_pairs".'
        )
    return dataset_folder() / name.strip()
