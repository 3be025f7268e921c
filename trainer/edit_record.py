"""What is written about every edited picture: everything needed to make it again.

The same JSON lies beside the picture and inside it where the file is a PNG.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from PIL import Image

from ..ip2p_core.errors import ConfigError
from ..ip2p_core.guidance import ApgSettings, GuidanceScales, GuidanceSettings
from .edit import EditSettings
from .edit_files import PNG_KEY, sidecar_path

RECORD_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class FileMark:
    """A file that an edit was made from."""

    name: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class EditRecord:
    """One edit.

    Attributes:
        photo: the picture that was edited.
        chain: the instructions, one after another.
        seed: of this picture.
        settings: scales, steps and so on.
        mask: the mask file, or None.
        model: name of the model inside its folder, and a digest of its weights' header and size.
        vae: name of another autoencoder, or None.
        dtype: number format of the network.
        device: where it ran.
        version: of the program.
    """

    photo: FileMark
    chain: list[str]
    seed: int
    settings: EditSettings
    mask: FileMark | None
    model: FileMark
    vae: str | None
    dtype: str
    device: str
    version: str

    def to_json(self) -> str:
        """Write the record."""
        return json.dumps({"record_version": RECORD_VERSION, **asdict(self)}, indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, origin: Path) -> EditRecord:
        """Read a record.

        Args:
            text: JSON, as `to_json` writes it.
            origin: the file it comes from, for the message.

        Returns:
            The record.

        Raises:
            ConfigError: if it is no record of an edit.
        """
        try:
            values = json.loads(text)
            if values.pop("record_version") != RECORD_VERSION:
                raise ConfigError(f"{origin} was written by another version of the program. Update ip2p.")
            values["photo"], values["model"] = FileMark(**values["photo"]), FileMark(**values["model"])
            values["mask"] = FileMark(**values["mask"]) if values["mask"] else None
            values["settings"] = _settings(values["settings"])
            return cls(**values)
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ConfigError(
                f"{origin} is no record of an edit ({error}). Name a .json that `ip2p edit` wrote, or a PNG it made."
            ) from None


def _settings(values: dict[str, Any]) -> EditSettings:
    guidance = dict(values.pop("guidance"))
    return EditSettings(
        **values,
        guidance=GuidanceSettings(
            scales=GuidanceScales(**guidance["scales"]),
            text_interval=tuple(guidance["text_interval"]),
            image_interval=tuple(guidance["image_interval"]),
            rescale=guidance["rescale"],
            apg=ApgSettings(**guidance["apg"]) if guidance["apg"] else None,
        ),
    )


def read_record(path: Path) -> EditRecord:
    """Read the record of an edit from its JSON file, or from the picture.

    Args:
        path: a .json file, a PNG, or another picture with its .json beside it.

    Returns:
        The record.

    Raises:
        ConfigError: if there is none.
    """
    if not path.is_file():
        raise ConfigError(f"There is no file {path} to repeat. Name a .json that `ip2p edit` wrote, or a PNG it made.")
    try:
        if path.suffix.lower() == ".json":
            return EditRecord.from_json(path.read_text(encoding="utf-8"), path)
        with Image.open(path) as picture:
            text = getattr(picture, "text", {}).get(PNG_KEY)
        if text is None and sidecar_path(path).is_file():
            text = sidecar_path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, SyntaxError):
        text = None
    if text is None:
        raise ConfigError(f"{path} holds no record of an edit. Name a .json that `ip2p edit` wrote, or a PNG it made.")
    return EditRecord.from_json(text, path)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def mark(path: Path) -> FileMark:
    """Return name and digest of a picture, as far as it can be read."""
    return FileMark(name=path.name, sha256=file_digest(path) if path.is_file() else "")


def model_digest(path: Path) -> str:
    """Return a digest that tells one model from another without reading all of it: sizes, and 1 MiB at both ends."""
    digest = hashlib.sha256()
    files = sorted(path.rglob("*.safetensors")) if path.is_dir() else [path]
    for file in files:
        size = file.stat().st_size
        digest.update(f"{size}:".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(1 << 20))
            stream.seek(max(size - (1 << 20), 0))
            digest.update(stream.read(1 << 20))
    return digest.hexdigest()


def program_version() -> str:
    """Return the version of the installed program."""
    try:
        return metadata.version("instruct-pix2pix")
    except metadata.PackageNotFoundError:  # run from its folder, not installed
        return "unknown"
