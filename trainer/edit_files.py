"""Files of the command `edit`: which pictures to read, where results go, and writing that never leaves half a file."""

from __future__ import annotations

import errno
import re
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..ip2p_core.checkpoint_files import permit_as_usual
from ..ip2p_core.errors import BadImage, ConfigError, Ip2pError, OutputExists

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".jp2", ".ppm"})
WRITE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
PNG_KEY = "ip2p.edit"


def collect_photos(inputs: Iterable[Path]) -> list[Path]:
    """List the pictures that the arguments name; a folder stands for the pictures in it, sorted by name.

    Args:
        inputs: files and folders.

    Returns:
        Files, in the given order; those that do not exist are kept, so that each gets its message later.

    Raises:
        BadImage: if a folder holds no picture.
    """
    photos: list[Path] = []
    for path in inputs:
        if not path.is_dir():
            photos.append(path)
            continue
        found = sorted(file for file in path.iterdir() if file.is_file() and file.suffix.lower() in IMAGE_SUFFIXES)
        if not found:
            raise BadImage(
                f"The folder {path} holds no picture ({', '.join(sorted(IMAGE_SUFFIXES))}). Name another one."
            )
        photos.extend(found)
    return photos


def output_paths(output: Path, names: list[str]) -> list[Path]:
    """Choose the file of every result.

    Args:
        output: a file name with a known suffix (one result only), or a folder.
        names: one short name per result, without suffix.

    Returns:
        One distinct path per result.

    Raises:
        ConfigError: if several results would go into one file, or the suffix is unknown.
    """
    if not output.is_dir() and output.suffix:
        if output.suffix.lower() not in WRITE_FORMATS:
            raise ConfigError(
                f"The output {output} ends in {output.suffix}; write {', '.join(WRITE_FORMATS)}, or name a folder."
            )
        if len(names) > 1:
            raise ConfigError(f"There are {len(names)} results for the one file {output}; name a folder after -o.")
        return [output]
    paths: dict[Path, None] = {}  # in order, and quick to look up
    for name in names:
        number, path = 1, output / f"{name}.png"
        while path in paths:
            number += 1
            path = output / f"{name}-{number}.png"
        paths[path] = None
    return list(paths)


def slug(text: str, max_length: int = 40) -> str:
    """Turn a text into a part of a file name."""
    words = re.sub(r"[^\w]+", "-", text.lower()).strip("-_")
    return words[:max_length].strip("-_") or "edit"


def sidecar_path(picture: Path) -> Path:
    """Return where the record of a picture lies: beside it, with .json added."""
    return picture.with_name(f"{picture.name}.json")


def require_free(path: Path, *, is_overwriting: bool) -> None:
    """Refuse a path that is taken.

    Args:
        path: where a file shall be written.
        is_overwriting: the user asked to overwrite.

    Raises:
        OutputExists: if the path exists and may not be overwritten, or is a folder.
    """
    if path.is_dir():
        raise OutputExists(f"The output {path} is a folder; a file is needed. Choose another name after -o.")
    if path.exists() and not is_overwriting:
        raise OutputExists(f"The output {path} exists already; add --force to overwrite it, or choose another name.")


def write_picture(picture: Image.Image, path: Path, record: str) -> None:
    """Write a picture, and its record into the file where the format is PNG.

    Args:
        picture: RGB or RGBA.
        path: the file; its suffix chooses the format.
        record: JSON.

    Raises:
        BadImage: if the picture is transparent and the format is not.
    """
    file_format = WRITE_FORMATS[path.suffix.lower()]
    if file_format == "JPEG" and picture.mode == "RGBA":
        raise BadImage(
            f"The picture is transparent and JPEG cannot keep that; write {path.stem}.png instead of {path.name}."
        )
    info = PngInfo()
    info.add_itxt(PNG_KEY, record)
    formats: dict[str, dict[str, Any]] = {"PNG": {"pnginfo": info}, "JPEG": {"quality": 95}, "WEBP": {"lossless": True}}
    write_beside(path, lambda beside: picture.save(beside, format=file_format, **formats[file_format]))


def write_text(path: Path, text: str) -> None:
    """Write a text file."""
    write_beside(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def write_beside(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under another name and rename it, so that nobody ever sees half of it.

    Args:
        path: the final name; its folder is made if need be.
        write: writes the content to the path that it gets.

    Raises:
        Ip2pError: if it cannot be written, for example because the disk is full.
    """
    beside: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.stem[:40]}.", suffix=".part", delete=False
        ) as file:
            beside = Path(file.name)
        write(beside)
        permit_as_usual(beside)
        beside.replace(path)
    except OSError as error:
        raise Ip2pError(_describe_write_error(path, error)) from None
    finally:
        if beside is not None:
            beside.unlink(missing_ok=True)


def _describe_write_error(path: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"There is no space left to write {path}. Free some space or choose another disk, and run the command again."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"There is no permission to write {path}. Choose a folder that you may write to."
    return f"{path} cannot be written ({error.strerror or error}). Choose another name or folder after -o."
