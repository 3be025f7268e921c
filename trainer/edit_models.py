"""Names of models: resolved inside the model folders, never outside them."""

from __future__ import annotations

from pathlib import Path, PurePath

from ..ip2p_core.checkpoint import embedded_model_path
from ..ip2p_core.errors import CheckpointError

EMBEDDED = ("editor", "generator", "clip")
SUBFOLDERS = ("", "ip2p", "checkpoints", "diffusers")
VAE_SUBFOLDERS = ("vae", "")


def resolve_model(name: str, models_dir: Path) -> Path:
    """Find a model by name.

    Args:
        name: "editor", "generator" or "clip" for the embedded ones, or a file or folder inside `models_dir` or its folders ip2p, checkpoints
            and diffusers; the suffix .safetensors may be left out.
        models_dir: folder of the models.

    Returns:
        The file, or the folder of a diffusers model.

    Raises:
        CheckpointError: if there is none, or the name points outside.
    """
    if name in EMBEDDED:
        return embedded_model_path(name)
    return _find(name, models_dir, SUBFOLDERS, "model")


def resolve_vae(name: str, models_dir: Path) -> Path:
    """Find another autoencoder by name, inside `models_dir` or its folder vae.

    Args:
        name: a file or a folder; the suffix .safetensors may be left out.
        models_dir: folder of the models.

    Returns:
        The file or folder.

    Raises:
        CheckpointError: if there is none, or the name points outside.
    """
    return _find(name, models_dir, VAE_SUBFOLDERS, "autoencoder")


def _find(name: str, models_dir: Path, subfolders: tuple[str, ...], kind: str) -> Path:
    pure = PurePath(name)
    if pure.is_absolute() and pure.is_relative_to(models_dir.absolute()):
        pure = pure.relative_to(models_dir.absolute())
    if not name.strip() or pure.is_absolute() or ".." in pure.parts:
        raise CheckpointError(
            f"The {kind} name {name!r} points outside the model folder {models_dir}; give a name inside it, and the "
            "folder itself with --models."
        )
    for subfolder in subfolders:
        for candidate in (models_dir / subfolder / pure, models_dir / subfolder / f"{pure}.safetensors"):
            if candidate.exists():
                return candidate
    raise CheckpointError(
        f"There is no {kind} {name!r} in {models_dir} (nor in its folders {', '.join(filter(None, subfolders))}); put "
        "the file there, or name its folder with --models."
    )
