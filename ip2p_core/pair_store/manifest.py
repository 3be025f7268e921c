"""manifest.json: which files belong to a dataset, what is in them, and which pairs were rejected by hand.

It is written last and replaced as a whole: a file that it does not name does not exist for any reader.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import PairStoreError
from .durable_files import write_durably

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
KIND = "ip2p_pairs"


@dataclass(frozen=True)
class ShardEntry:
    """One shard of accepted pairs and the ledger of all candidates of the same units of work."""

    name: str
    """Stem of both files, for example "000003-9f86d081"."""
    rows: int
    """Accepted pairs; with 0 there is no shard file, only a ledger."""
    sha256: str
    """Of the shard file; empty if there is none."""
    first_prompt: str
    last_prompt: str
    """Smallest and largest prompt_id in the ledger."""
    ledger_rows: int
    ledger_sha256: str

    @property
    def shard_file(self) -> str | None:
        """Path of the shard inside the dataset."""
        return f"shards/{self.name}.parquet" if self.rows else None

    @property
    def ledger_file(self) -> str:
        """Path of the ledger inside the dataset."""
        return f"ledger/{self.name}.parquet"

    def files(self) -> list[tuple[str, str]]:
        """List the files inside the dataset, each with its SHA-256."""
        ledger = (self.ledger_file, self.ledger_sha256)
        return [ledger] if self.shard_file is None else [(self.shard_file, self.sha256), ledger]


@dataclass
class Manifest:
    """What manifest.json holds."""

    config_hash: str
    config: dict[str, Any] = field(default_factory=dict)
    """How the pairs were made, as far as it decides what they are."""
    shards: list[ShardEntry] = field(default_factory=list)
    rejected: dict[str, list[int]] = field(default_factory=dict)
    """Pairs rejected by hand, prompt_id -> sample indices: still on the disk, left out by readers."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Free remarks of the program that made the pairs, for example counts of a safety filter."""

    @property
    def num_rejected(self) -> int:
        """Pairs rejected by hand."""
        return sum(map(len, self.rejected.values()))

    def is_rejected(self, prompt_id: str, sample_index: int) -> bool:
        """Say whether a pair was rejected by hand."""
        return sample_index in self.rejected.get(prompt_id, ())


def hash_config(config: Mapping[str, Any]) -> str:
    """Hash a configuration; order of keys does not count.

    Args:
        config: what JSON can express.

    Returns:
        The first 16 hexadecimal digits of the SHA-256 of its canonical JSON.
    """
    canonical = json.dumps(config, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace the manifest of a dataset.

    Args:
        folder: the dataset.
        manifest: the new content.

    Raises:
        PairStoreError: if it cannot be written; the old one stays.
    """
    record = {"kind": KIND, "format_version": FORMAT_VERSION, **asdict(manifest)}
    text = json.dumps(record, indent=1, ensure_ascii=False)
    write_durably(folder / MANIFEST_NAME, lambda beside: beside.write_text(text, encoding="utf-8"))


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a dataset.

    Args:
        folder: the dataset.

    Returns:
        Its content.

    Raises:
        PairStoreError: if there is none, it is damaged, or a newer program wrote it.
    """
    path = folder / MANIFEST_NAME
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PairStoreError(
            f"{folder} is not a dataset of pairs: it has no {MANIFEST_NAME}. Choose a folder that ip2p wrote, or import "
            "this one with ip2p dataset import."
        ) from None
    except (OSError, ValueError) as error:
        raise PairStoreError(f"{path} cannot be read ({error}). Restore it from a copy.") from None
    if not isinstance(record, dict) or record.pop("kind", None) != KIND:
        raise PairStoreError(f"{path} is not the manifest of a dataset of pairs. Choose a folder that ip2p wrote.")
    version = record.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise PairStoreError(
            f"{folder.name} has the dataset format {version}; this program reads format {FORMAT_VERSION}. Use the version "
            "of ip2p that wrote it, or update ip2p."
        )
    try:
        shards = [ShardEntry(**entry) for entry in record.pop("shards")]
        return Manifest(shards=shards, **record)
    except (TypeError, KeyError) as error:
        raise PairStoreError(f"{path} lacks or has unknown entries ({error}). Restore it from a copy.") from None
