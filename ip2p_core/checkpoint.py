"""Model files: the original single-file layout, diffusers folders, and ours, all read into one form and written as one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from .checkpoint_files import read_metadata, read_tensors, write_tensors
from .checkpoint_folder import is_diffusers_folder, read_folder, read_vae
from .checkpoint_keys import (
    State,
    text_from_ldm,
    text_to_ldm,
    unet_from_ldm,
    unet_to_ldm,
    vae_from_ldm,
    vae_to_ldm,
    widen_conv_in,
)
from .checkpoint_layout import (
    FAMILY_OF_WIDTH,
    MODEL_PREFIXES,
    TEXT_PREFIX,
    UNET_PREFIX,
    VAE_PREFIX,
    ModelParts,
    RawCheckpoint,
    family_of,
    join_parts,
    with_prefix,
)
from .errors import CheckpointError, ModelMismatch
from .model_config import MODEL_CONFIG_KEY, Family, ModelConfig, family_config
from .schedule import PredictionType

__all__ = [
    "MODEL_CONFIG_KEY",
    "TEXT_PREFIX",
    "UNET_PREFIX",
    "VAE_PREFIX",
    "ModelConfig",
    "ModelParts",
    "RawCheckpoint",
    "embedded_model_path",
    "join_parts",
    "read_checkpoint",
    "require_editor",
    "require_generator",
    "text_from_ldm",
    "text_to_ldm",
    "unet_from_ldm",
    "unet_to_ldm",
    "vae_from_ldm",
    "vae_to_ldm",
    "widen_conv_in",
    "widened",
    "write_checkpoint",
]

EMA_PREFIX = "model_ema."
CONV_IN = UNET_PREFIX + "input_blocks.0.0.weight"
COSXL_MARKS = "edm_vpred."


def read_checkpoint(path: Path | str, vae_path: Path | str | None = None) -> RawCheckpoint:
    """Open a model of any layout this pack knows.

    Args:
        path: a safetensors file, a .ckpt without code, or a diffusers folder.
        vae_path: another autoencoder to use instead: a file, or a diffusers folder of one.

    Returns:
        The complete model; no weight is missing, none is left over.

    Raises:
        CheckpointError: if it is missing, damaged, incomplete, contains code, or is of an unknown family.
        ModelMismatch: if its U-Net has other than 4 or 8 input channels.
    """
    path = Path(path)
    other_vae = None if vae_path is None else Path(vae_path)
    raw = _read_folder(path, other_vae) if path.is_dir() else _read_file(path, other_vae)
    if raw.config.in_channels not in (4, 8):
        raise ModelMismatch(
            f"The model {path.name} has {raw.config.in_channels} input channels; editors of InstructPix2Pix have 8 and "
            "their generators 4. Choose an InstructPix2Pix checkpoint, not an inpainting or depth model."
        )
    raw.parts()  # refuses incomplete weights
    return raw


def _read_folder(path: Path, other_vae: Path | None) -> RawCheckpoint:
    if not is_diffusers_folder(path):
        raise CheckpointError(
            f"The folder {path} has no unet/config.json. Choose the folder of a whole diffusers model, with its "
            "configuration files."
        )
    folder = read_folder(path, other_vae)
    family = family_of(folder.config)
    parts = ModelParts(unet=folder.unet, vae=folder.vae, text=folder.text, text_2=folder.text_2)
    return RawCheckpoint(join_parts(parts, folder.config, family), folder.config, "diffusers", family)


def _read_file(path: Path, other_vae: Path | None) -> RawCheckpoint:
    raw = _read_own_file(path)
    if other_vae is None:
        return raw
    vae, vae_config = read_vae(other_vae, raw.config.vae)
    others = {name: value for name, value in raw.state.items() if not name.startswith(VAE_PREFIX)}
    state = others | with_prefix(VAE_PREFIX, vae_to_ldm(vae, vae_config))
    return replace(raw, state=state, config=replace(raw.config, vae=vae_config))


def _read_own_file(path: Path) -> RawCheckpoint:
    metadata: dict[str, str] = {}
    if path.suffix.lower() == ".safetensors":
        names, metadata = read_metadata(path)
        sources = _sources(names)
        stored = read_tensors(path, set(sources.values()).__contains__)
    else:
        stored = read_tensors(path)
        sources = _sources(list(stored))
    state = {name: stored[source] for name, source in sources.items()}
    if MODEL_CONFIG_KEY in metadata:
        config = ModelConfig.from_json(metadata[MODEL_CONFIG_KEY])
        return RawCheckpoint(state, config, "ip2p", family_of(config))
    return _recognise(path, state)


def _sources(names: list[str]) -> dict[str, str]:
    """Say which stored weight serves as which; running averages go first, as the original program samples with them."""
    stored, sources = set(names), {}
    for name in names:
        is_model = name.startswith(MODEL_PREFIXES) and not name.endswith("position_ids")
        if is_model or name.startswith(COSXL_MARKS):
            average = EMA_PREFIX + name.removeprefix("model.").replace(".", "")
            sources[name] = average if name.startswith(UNET_PREFIX) and average in stored else name
    return sources


def _recognise(path: Path, state: State) -> RawCheckpoint:
    """Describe a full-size single file that carries no description of its own."""
    if CONV_IN not in state:
        raise CheckpointError(
            f"{path.name} holds no whole Stable Diffusion model: the weight {CONV_IN!r} is missing. Choose a checkpoint "
            "with U-Net, autoencoder and text encoder; of a diffusers model choose the folder, not the file in it."
        )
    width = next((int(value.shape[1]) for name, value in state.items() if name.endswith("attn2.to_k.weight")), 0)
    channels, in_channels = (int(size) for size in state[CONV_IN].shape[:2])
    if channels != 320 or width not in FAMILY_OF_WIDTH:
        raise CheckpointError(
            f"{path.name} is of an unknown family ({channels} channels, text width {width}) and carries no "
            f"{MODEL_CONFIG_KEY}. Use a model of SD 1.x, SD 2.x, SDXL or CosXL, or one that this pack exported."
        )
    family = FAMILY_OF_WIDTH[width]
    if family == "sdxl" and any(name.startswith(COSXL_MARKS) for name in state):
        family = "cosxl"
    config = family_config(family, in_channels, _guess_prediction_type(family, state))
    return RawCheckpoint(state, config, "ldm", family)


def _guess_prediction_type(family: Family, state: State) -> PredictionType:
    """Tell SD2.x's v-models from its eps-models, by ComfyUI's rule: a single file does not say which it is."""
    probe = state.get(UNET_PREFIX + "output_blocks.11.1.transformer_blocks.0.norm1.bias")
    is_v = family == "sd2" and probe is not None and float(probe.float().std(unbiased=False)) > 0.09
    return "v" if is_v else "eps"


def require_editor(config: ModelConfig) -> None:
    """Refuse a model that cannot edit.

    Args:
        config: description of the model.

    Raises:
        ModelMismatch: if it does not have 8 input channels.
    """
    if config.in_channels != 8:
        raise ModelMismatch(
            f"The model has {config.in_channels} input channels; InstructPix2Pix needs 8 (4 noisy + 4 image latents). "
            'Load an InstructPix2Pix checkpoint into "model".'
        )


def require_generator(config: ModelConfig) -> None:
    """Refuse a model that does not turn text into images.

    Args:
        config: description of the model.

    Raises:
        ModelMismatch: if it does not have 4 input channels.
    """
    if config.in_channels != 4:
        kind = "; that is an editor" if config.in_channels == 8 else ""
        raise ModelMismatch(
            f"The model has {config.in_channels} input channels{kind}. Pairs are made by a text-to-image model with 4. "
            'Load an SD1.x, SD2.x or SDXL text-to-image checkpoint into "model".'
        )


def widened(parts: ModelParts, config: ModelConfig) -> ModelConfig:
    """Turn a text-to-image model into an editor that ignores its picture as yet (arXiv:2211.09800, section 3.2).

    Args:
        parts: the weights; the first convolution is replaced.
        config: their description.

    Returns:
        The description of the editor; an editor's own, unchanged.
    """
    if config.in_channels == 8:
        return config
    unet = parts.unet
    unet["conv_in.weight"], unet["conv_in.bias"] = widen_conv_in(unet["conv_in.weight"], unet["conv_in.bias"])
    return replace(config, kind="editor", in_channels=8, unet={**config.unet, "in_channels": 8})


def write_checkpoint(
    path: Path | str,
    unet: Mapping[str, Tensor],
    vae: Mapping[str, Tensor],
    text: Mapping[str, Tensor],
    config: ModelConfig,
    dtype: torch.dtype = torch.float16,
    *,
    text_2: Mapping[str, Tensor] | None = None,
) -> None:
    """Write one safetensors file in the original layout, with its description in the header.

    Args:
        path: where to.
        unet: weights of diffusers' UNet2DConditionModel.
        vae: weights of diffusers' AutoencoderKL.
        text: weights of transformers' CLIPTextModel.
        config: description of the model.
        dtype: of the stored weights.
        text_2: weights of SDXL's second text encoder.

    Raises:
        CheckpointError: if a weight is missing or left over, or the file cannot be written.
    """
    parts = ModelParts(dict(unet), dict(vae), dict(text), None if text_2 is None else dict(text_2))
    state = join_parts(parts, config, family_of(config))
    stored = {name: value.detach().to("cpu", dtype) for name, value in state.items()}
    write_tensors(Path(path), stored, {MODEL_CONFIG_KEY: config.to_json(), **_modelspec(Path(path).stem, config)})


def _modelspec(title: str, config: ModelConfig) -> dict[str, str]:
    """Describe the file by Stability's ModelSpec 1.0, which the host's model browser shows."""
    architecture = {"sd1": "stable-diffusion-v1", "sd2": "stable-diffusion-v2"}.get(
        family_of(config), "stable-diffusion"
    )
    return {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{architecture}/{'instruct-pix2pix' if config.kind == 'editor' else 'text-to-image'}",
        "modelspec.implementation": "https://github.com/timothybrooks/instruct-pix2pix",
        "modelspec.title": title,
        "modelspec.resolution": f"{config.working_resolution}x{config.working_resolution}",
        "modelspec.prediction_type": "epsilon" if config.prediction_type == "eps" else "v",
        "modelspec.license": config.licence,
        "modelspec.description": config.recipe,
    }


def embedded_model_path(name: str) -> Path:
    """Return where an embedded model lies.

    Args:
        name: "editor", "generator" or "clip".

    Returns:
        The path, inside this package.

    Raises:
        CheckpointError: if there is no embedded model of that name.
    """
    folder = Path(__file__).parent / "assets"
    path = folder / f"{name}.safetensors"
    if path.parent != folder or not path.is_file():
        known = ", ".join(sorted(one.stem for one in folder.glob("*.safetensors"))) or "none"
        raise CheckpointError(
            f"There is no embedded model {name!r} (there is: {known}). Choose one of these, or a file."
        )
    return path
