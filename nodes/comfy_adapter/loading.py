"""A model file or folder to the host's MODEL, CLIP and VAE, with the host's own classes.

One way for every layout and size: the core reads and checks the weights, this file builds what holds them. The host's
own loader cannot open diffusers folders with 8 input channels, SD2.x with 8, or tiny models.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import comfy.latent_formats
import comfy.model_base
import comfy.model_detection
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.supported_models
import comfy.utils
import torch
from comfy.model_base import ModelType

from ...ip2p_core.checkpoint import RawCheckpoint, read_checkpoint
from ...ip2p_core.errors import CheckpointError
from ...ip2p_core.model_config import ModelConfig
from . import settings
from .loading_clip import build_clip

UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."
HOST_CONFIGS = {
    "sd1": comfy.supported_models.SD15,
    "sd2": comfy.supported_models.SD20,
    "sdxl": comfy.supported_models.SDXL,
    "cosxl": comfy.supported_models.SDXL,
    "tiny": comfy.supported_models.SD15,
}


class Loaded(NamedTuple):
    """What the loader node returns."""

    model: comfy.model_patcher.ModelPatcher
    clip: comfy.sd.CLIP
    vae: comfy.sd.VAE


def load(path: Path, vae_path: Path | None = None) -> Loaded:
    """Open a model.

    Args:
        path: a model file or diffusers folder.
        vae_path: another autoencoder to use, or None.

    Returns:
        MODEL, CLIP and VAE, each carrying the model's record and a factory that loads it again.

    Raises:
        CheckpointError: if the file is damaged, incomplete or of an unknown family.
    """
    raw = read_checkpoint(path, vae_path)
    clip, vae = build_clip(raw), _build_vae(raw)
    loaded = Loaded(
        _build_model(raw), clip, vae
    )  # last: it takes its weights out of raw, so that they are not held twice
    if raw.family == "tiny":
        fit_preview(loaded)
    origin = (str(path), None if vae_path is None else str(vae_path))
    for patcher, factory in zip(_patchers(loaded), (reload_model, reload_clip, reload_vae), strict=True):
        settings.attach(patcher, raw.config)
        patcher.cached_patcher_init = (factory, origin)
    return loaded


def _patchers(loaded: Loaded) -> tuple:
    return loaded.model, loaded.clip.patcher, loaded.vae.patcher


def reload_model(path: str, vae_path: str | None, disable_dynamic: bool = False):
    """Load the MODEL of a file again, for hosts that need a fresh copy."""
    return _build_model(_read(path, vae_path), disable_dynamic)


def reload_clip(path: str, vae_path: str | None, disable_dynamic: bool = False):
    """Load the CLIP of a file again and return its patcher."""
    return build_clip(_read(path, vae_path), disable_dynamic).patcher


def reload_vae(path: str, vae_path: str | None, disable_dynamic: bool = False):  # noqa: ARG001 - the host's signature
    """Load the VAE of a file again and return its patcher."""
    return _build_vae(_read(path, vae_path)).patcher


def _read(path: str, vae_path: str | None) -> RawCheckpoint:
    return read_checkpoint(Path(path), None if vae_path is None else Path(vae_path))


class ScaledLatents(comfy.latent_formats.LatentFormat):
    """Latents of an autoencoder with its own scale and factor."""

    def __init__(self, config: ModelConfig) -> None:
        self.scale_factor = config.scaling_factor
        self.latent_channels = int(config.vae.get("latent_channels", 4))
        self.spacial_downscale_ratio = config.vae_factor


def fit_preview(loaded: Loaded) -> None:
    """Give the host a linear map from latents to colours for its previews, which it knows for the big families only."""
    latent_format = loaded.model.model.latent_format
    coarse = torch.randn(1, latent_format.latent_channels, 4, 4, generator=torch.Generator().manual_seed(0))
    latents = torch.nn.functional.interpolate(coarse, size=(16, 16), mode="bilinear")
    pixels = loaded.vae.decode(latent_format.process_out(latents)).float().cpu().movedim(-1, 1)
    colours = torch.nn.functional.adaptive_avg_pool2d(pixels, (16, 16)) * 2 - 1
    cells = torch.cat([latents, torch.ones_like(latents[:, :1])], dim=1).flatten(2)[0].T
    factors = torch.linalg.lstsq(cells, colours.flatten(2)[0].T).solution
    latent_format.latent_rgb_factors = factors[:-1].tolist()
    latent_format.latent_rgb_factors_bias = factors[-1].tolist()


def _build_model(raw: RawCheckpoint, disable_dynamic: bool = False):
    management, weights = comfy.model_management, raw.state
    host_config = _host_config(raw)
    num_parameters = comfy.utils.calculate_parameters(weights, UNET_PREFIX)
    device, dtypes = management.get_torch_device(), host_config.supported_inference_dtypes
    dtype = management.unet_dtype(
        model_params=num_parameters,
        supported_dtypes=dtypes,
        weight_dtype=comfy.utils.weight_dtype(weights, UNET_PREFIX),
    )
    host_config.set_inference_dtype(dtype, management.unet_manual_cast(dtype, device, dtypes))
    if raw.family == "tiny":
        operations = comfy.ops.pick_operations(dtype, host_config.manual_cast_dtype)
        host_config.custom_operations = with_norm_groups(operations, int(raw.config.unet.get("norm_num_groups", 32)))
    initial_device = management.unet_inital_load_device(num_parameters, dtype)
    model = _make_network(raw, host_config, initial_device)
    require_complete(model.diffusion_model, weights, UNET_PREFIX, "U-Net")
    patcher_class = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    patcher_class = comfy.model_patcher.ModelPatcher if disable_dynamic else patcher_class
    patcher = patcher_class(model, load_device=device, offload_device=management.unet_offload_device())
    assign = {"assign": patcher.is_dynamic()} if hasattr(patcher, "is_dynamic") else {}
    model.load_model_weights(weights, UNET_PREFIX, **assign)
    if device.type == "cpu":  # its convolutions are up to a sixth faster so
        model.diffusion_model.to(memory_format=torch.channels_last)
    return patcher


def _host_config(raw: RawCheckpoint):
    """Describe the network in the host's words: shapes from the weights, the rest from the model's record."""
    config = raw.config
    unet_config = comfy.model_detection.detect_unet_config(raw.state, UNET_PREFIX)
    host_config = HOST_CONFIGS[raw.family](unet_config)
    host_config.unet_config["num_heads"] = config.num_heads or -1
    host_config.unet_config["num_head_channels"] = config.num_head_channels or -1
    if raw.family == "tiny":
        host_config.latent_format = ScaledLatents(config)
        host_config.unet_config["channel_mult"] = width_ratios(config.unet["block_out_channels"])
    else:
        host_config.latent_format.scale_factor = config.scaling_factor
    return host_config


def _make_network(raw: RawCheckpoint, host_config, device):
    config, is_xl = raw.config, raw.family in ("sdxl", "cosxl")
    if raw.family == "cosxl":
        model_type = host_config.model_type(raw.state)  # reads the noise range beside the weights
    else:
        model_type = ModelType.V_PREDICTION if config.prediction_type == "v" else ModelType.EPS
    base = comfy.model_base
    if config.in_channels != 8:
        return (base.SDXL if is_xl else base.BaseModel)(host_config, model_type=model_type, device=device)
    editor = base.SDXL_instructpix2pix if is_xl else base.SD15_instructpix2pix
    model = editor(host_config, model_type=model_type, device=device)
    if config.image_latent_scale == "scaled":
        model.process_ip2p_image_in = model.process_latent_in
    else:
        model.process_ip2p_image_in = _unscaled
    return model


def _unscaled(image_latents):
    return image_latents


def require_complete(module, weights: dict, prefix: str, part: str) -> None:
    """Refuse weights that would leave a part of a module as it was made: random.

    Raises:
        CheckpointError: naming the first missing weight.
    """
    missing = [name for name in module.state_dict() if prefix + name not in weights]
    if missing:
        raise CheckpointError(
            f"The {part} lacks the weight {missing[0]!r} ({len(missing)} are missing); it would be left random. "
            "Use a complete checkpoint."
        )


@dataclass(frozen=True)
class WidthRatio:
    """A level's width as a fraction of the first level's; the host multiplies it with that and expects an integer."""

    width: int
    first: int

    def __mul__(self, first: int) -> int:
        return self.width * first // self.first

    __rmul__ = __mul__


def width_ratios(widths: list[int]) -> list:
    """Describe the widths of a network's levels in the host's words; it can only detect whole multiples by itself."""
    first = widths[0]
    return [WidthRatio(width, first) if width % first else width // first for width in widths]


def with_norm_groups(operations, num_groups: int):
    """Make the host's layers with another number of groups in the normalisations than its 32, which thin layers cannot have.

    A group of one or two channels erases the mean colour of a picture, so tiny models are trained with fewer groups.
    """

    class GroupNorm(operations.GroupNorm):
        def __init__(self, num_groups, num_channels, **options) -> None:  # noqa: ARG002 - the host's 32
            super().__init__(num_groups=wanted, num_channels=num_channels, **options)

    wanted = num_groups
    return type("GroupedOperations", (operations,), {"GroupNorm": GroupNorm})


def set_norm_groups(module, config: dict) -> None:
    """Group the normalisations of an autoencoder as its record says."""
    for norm in module.modules():
        if isinstance(norm, torch.nn.GroupNorm):
            norm.num_groups = int(config.get("norm_num_groups", 32))


def _build_vae(raw: RawCheckpoint) -> comfy.sd.VAE:
    config = raw.config.vae
    channels = list(config["block_out_channels"])
    ddconfig = {
        "double_z": True,
        "z_channels": int(config.get("latent_channels", 4)),
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": channels[0],
        "ch_mult": width_ratios(channels),
        "num_res_blocks": int(config.get("layers_per_block", 1)),
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    weights = {n.removeprefix(VAE_PREFIX): w for n, w in raw.state.items() if n.startswith(VAE_PREFIX)}
    vae = comfy.sd.VAE(sd=weights, config={"params": {"ddconfig": ddconfig, "embed_dim": ddconfig["z_channels"]}})
    require_complete(vae.first_stage_model, weights, "", "autoencoder")
    set_norm_groups(vae.first_stage_model, raw.config.vae)
    vae.downscale_ratio = vae.upscale_ratio = raw.config.vae_factor
    vae.latent_channels = ddconfig["z_channels"]
    if vae.device.type == "cpu":
        vae.first_stage_model.to(memory_format=torch.channels_last)
    return vae
