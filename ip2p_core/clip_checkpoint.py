"""CLIP scorers on disk: open_clip's weights, and the description of the architecture in or beside the file."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from .checkpoint_files import read_json, read_metadata, read_tensors, write_tensors
from .errors import CheckpointError, ConfigError, ModelMismatch
from .model_config import FORMAT_VERSION, MODEL_CONFIG_KEY
from .open_clip_adapter import named_architecture


@dataclass(frozen=True, kw_only=True)
class ScorerConfig:
    """What a scorer's file says about itself under `ip2p.config`.

    Attributes:
        model_cfg: open_clip's description of the architecture: embed_dim, vision_cfg, text_cfg, quick_gelu, ...
        preprocess_cfg: mean and std of the training pictures, three numbers each; OpenAI's where it is empty.
        base: what the training started from.
        recipe: how it was trained.
        data_hash: identifies the training data.
        licence: of the weights.
    """

    model_cfg: dict[str, Any]
    preprocess_cfg: dict[str, Any] = field(default_factory=dict)
    base: str = ""
    recipe: str = ""
    data_hash: str = ""
    licence: str = ""

    def to_json(self) -> str:
        """Write the record as JSON."""
        return json.dumps({"format_version": FORMAT_VERSION, "kind": "clip", **asdict(self)}, sort_keys=True)


class ScorerFile(NamedTuple):
    """A CLIP model as it lies on disk."""

    state: dict[str, Tensor]
    config: ScorerConfig


def write_scorer(path: Path, state: Mapping[str, Tensor], config: ScorerConfig) -> None:
    """Write a scorer to one file that opens without being told the architecture.

    Args:
        path: the safetensors file.
        state: state dict of the open_clip model, in any floating type.
        config: what it is.

    Raises:
        CheckpointError: if it cannot be written.
    """
    write_tensors(path, state, {MODEL_CONFIG_KEY: config.to_json()})


def read_scorer(path: Path, architecture: str = "") -> ScorerFile:
    """Read a CLIP model with both towers, without running any code of the file.

    The architecture is what the file itself says under `ip2p.config`; else the one that is named; else what an
    `open_clip_config.json` beside the file says. Named architectures take the mean and std that all of open_clip's
    own weights of that name share, or OpenAI's. OpenAI's weights, those of the paper, need "ViT-L-14-quickgelu".

    Args:
        path: weights in open_clip's layout.
        architecture: open_clip's name of it; empty where the file or its folder says it.

    Returns:
        Weights and description.

    Raises:
        CheckpointError: if the file is missing, damaged, holds code, or does not fit the architecture.
        ModelMismatch: if it is no CLIP model with an image and a text tower that reads CLIP's tokens.
        ConfigError: if the architecture is unknown, or is neither named nor described.
    """
    is_pickle = path.suffix.lower() in (".ckpt", ".pt", ".pth", ".bin")
    header = {} if is_pickle else read_metadata(path)[1]
    if is_pickle and _is_torchscript(path):
        raise CheckpointError(
            f"{path.name} is a TorchScript archive, which holds code; it was not opened. Use the safetensors version of "
            "the model."
        )
    config = _describe(path, header.get(MODEL_CONFIG_KEY), architecture)
    state = {key.removeprefix("module."): value for key, value in read_tensors(path).items()}
    _require_towers(state, path.name)
    return ScorerFile(state, config)


def _is_torchscript(path: Path) -> bool:
    """Say whether a file is what OpenAI published: an archive of code and weights."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def _describe(path: Path, header: str | None, architecture: str) -> ScorerConfig:
    beside = path.with_name("open_clip_config.json")
    if header is not None:
        record = _parse_header(path.name, header)
    elif architecture:
        record = named_architecture(architecture)._asdict()
    elif beside.is_file():
        record = read_json(beside)
    else:
        raise ConfigError(
            f"{path.name} does not say which architecture it has. Name it as open_clip does, for example ViT-L-14, or "
            "ViT-L-14-quickgelu for OpenAI's weights."
        )
    known = {one.name: record[one.name] for one in fields(ScorerConfig) if one.name in record}
    if not isinstance(known.get("model_cfg"), dict) or not isinstance(known.get("preprocess_cfg", {}), dict):
        raise CheckpointError(
            f"{path.name} comes without open_clip's model_cfg. Name the architecture, or export it again."
        )
    return ScorerConfig(**known)


def _parse_header(name: str, header: str) -> dict[str, Any]:
    try:
        record = json.loads(header)
    except ValueError as error:
        raise CheckpointError(f"The {MODEL_CONFIG_KEY} of {name} is not JSON ({error}). Export it again.") from None
    kind = record.get("kind") if isinstance(record, dict) else None
    if kind != "clip":
        raise ModelMismatch(f"{name} is of the kind {kind!r}; scoring needs a CLIP model. Choose another file.")
    version = record.get("format_version")
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"The format version of {name} is {version!r}; this version of the pack reads {FORMAT_VERSION}. Update the "
            "pack, or export the model again."
        )
    return dict(record)


_NOT_USED = ("logit_scale", "logit_bias", "input_resolution", "context_length", "vocab_size", "attn_mask")


def _require_towers(names: Iterable[str], name: str) -> None:
    starts = {key.removeprefix("text.").split(".")[0] for key in names}
    absent = [tower for tower, start in (("text", "token_embedding"), ("image", "visual")) if start not in starts]
    if absent:
        found = ", ".join(sorted(starts)[:4]) or "nothing"
        raise ModelMismatch(
            f"{name} has no {' and no '.join(absent)} tower in open_clip's layout (it holds {found}); scoring pictures "
            "against texts needs both. Choose a whole CLIP model of open_clip."
        )


def load_weights(model: Any, state: Mapping[str, Tensor], name: str) -> None:
    """Put the weights into an open_clip model.

    Args:
        model: of the right architecture.
        state: its weights, in the layout with or without a text tower of its own.
        name: what messages call it.

    Raises:
        CheckpointError: if a weight is missing, left over or of another shape.
    """
    if hasattr(model, "text") and "token_embedding.weight" in state:
        apart = ("visual.", *_NOT_USED)
        state = {key if key.startswith(apart) else f"text.{key}": value for key, value in state.items()}
    wanted = {key: value.shape for key, value in model.state_dict().items() if key not in _NOT_USED}
    state = {key: value for key, value in state.items() if key not in _NOT_USED}
    wrong = [
        f"{key} has the shape {list(state[key].shape)} instead of {list(shape)}"
        for key, shape in wanted.items()
        if key in state and state[key].shape != shape
    ]
    wrong += [f"{key} is missing" for key in wanted if key not in state]
    wrong += [f"there is no place for {key}" for key in state if key not in wanted]
    if wrong:
        raise CheckpointError(
            f"{name} does not fit the architecture: {wrong[0]}. Name the architecture that these weights were trained with."
        )
    model.load_state_dict(state, strict=False)
