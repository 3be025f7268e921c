"""The only file that knows diffusers and transformers: builds a model of theirs and hands it to the core.

It converts and calls; every formula lives in `ip2p_core`.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..ip2p_core import open_clip_adapter
from ..ip2p_core.checkpoint import ModelParts, read_checkpoint, require_editor, require_generator, widened
from ..ip2p_core.errors import CheckpointError, ConfigError
from ..ip2p_core.model_config import ModelConfig
from ..ip2p_core.shared_rows import modules_before_text
from .edit_backend import ClipEncoders, DiffusersCodec, Editor, make_schedule
from .edit_models import resolve_model, resolve_vae

TOKEN_STD = 0.5
"""Of fresh token embeddings. At CLIP's own 0.02 the few layers of a small encoder drown the words: measured after hours
of training, "red" and "green" still came out within 5 % of one another."""
MODEL_MODULES = (
    "diffusers.models.autoencoders.autoencoder_kl",
    "diffusers.models.unets.unet_2d_condition",
    "transformers.models.clip.modeling_clip",
)
"""What loading a model imports, which takes seconds."""
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def load_editor(
    name: str | Path,
    *,
    models_dir: Path | None = None,
    vae: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
) -> Editor:
    """Open an InstructPix2Pix model: ours, an original single file, CosXL-Edit, or a diffusers folder.

    Args:
        name: a path where `models_dir` is None; else a name inside it, or "editor" for the embedded model.
        models_dir: folder of the models.
        vae: name of another autoencoder.
        dtype: "float32", "float16", "bfloat16", or "auto": float32 on a CPU, float16 elsewhere.
        device: as torch names it, or "auto".

    Returns:
        The model, complete, ready to edit.

    Raises:
        ConfigError: if diffusers or transformers is missing, or the device or dtype is unknown.
    """
    return _load(name, _of_kind(require_editor), models_dir, vae, dtype, device)


def load_generator(
    name: str | Path,
    *,
    models_dir: Path | None = None,
    vae: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
) -> Editor:
    """Open a text-to-image model with 4 input channels; otherwise as `load_editor`."""
    return _load(name, _of_kind(require_generator), models_dir, vae, dtype, device)


def load_base(
    name: str | Path, *, models_dir: Path | None = None, dtype: str = "float32", device: str = "auto"
) -> Editor:
    """Open a model to be trained into an editor: a text-to-image model is widened to 8 input channels (section 3.2)."""
    return _load(name, widened, models_dir, None, dtype, device)


def _load(
    name: str | Path,
    prepare: Callable[[ModelParts, ModelConfig], ModelConfig],
    models_dir: Path | None,
    vae: str | None,
    dtype: str,
    device: str,
) -> Editor:
    torch_device = choose_device(device)
    torch_dtype = choose_dtype(dtype, torch_device)
    path = Path(name) if models_dir is None else resolve_model(str(name), models_dir)
    vae_path = None if vae is None else Path(vae) if models_dir is None else resolve_vae(vae, models_dir)
    raw = read_checkpoint(path, vae_path)
    parts, family = raw.parts(), raw.family
    config = prepare(parts, raw.config)
    del raw
    editor = build_editor(
        parts, config, torch_dtype, torch_device, pad_id=0 if family == "sd2" else open_clip_adapter.END_ID
    )
    editor.path = path
    return editor


def _of_kind(require: Callable[[ModelConfig], None]) -> Callable[[ModelParts, ModelConfig], ModelConfig]:
    def prepare(_parts: ModelParts, config: ModelConfig) -> ModelConfig:
        require(config)
        return config

    return prepare


def new_modules(unet: dict[str, Any], vae: dict[str, Any], text_encoder: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Build networks with fresh random weights, to be trained.

    Args:
        unet: keyword arguments of UNet2DConditionModel.
        vae: keyword arguments of AutoencoderKL.
        text_encoder: keyword arguments of CLIPTextConfig.

    Returns:
        U-Net, autoencoder and text encoder.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    text = CLIPTextModel(CLIPTextConfig(**text_encoder))
    torch.nn.init.normal_(text.get_input_embeddings().weight, std=TOKEN_STD)
    return UNet2DConditionModel(**unet), AutoencoderKL(**vae), text


def choose_attention(unet: Any, device: torch.device) -> None:
    """Make a U-Net that is trained on processors compute attention by matrix products and a softmax.

    Compiled, that is 1.4 times faster there than the fused kernel, which other devices keep; the numbers agree.
    """
    from diffusers.models.attention_processor import AttnProcessor

    if device.type == "cpu":
        unet.set_attn_processor(AttnProcessor())


def build_editor(
    parts: ModelParts,
    config: ModelConfig,
    dtype: torch.dtype,
    device: torch.device,
    *,
    pad_id: int = open_clip_adapter.END_ID,
) -> Editor:
    """Build the networks and fill in every weight.

    Args:
        parts: the weights, with the names of diffusers and transformers; emptied, to save memory.
        config: what the networks look like.
        dtype: number format of the U-Net and the text encoders.
        device: where they run.
        pad_id: padding token of the first text encoder.

    Returns:
        The model.

    Raises:
        ConfigError: if diffusers or transformers is missing.
    """
    try:
        from diffusers import AutoencoderKL, UNet2DConditionModel
        from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection
    except ImportError as error:
        raise ConfigError(
            f"The package {error.name or 'diffusers'} is missing; install it with: pip install diffusers transformers"
        ) from None

    unet = _filled("U-Net", lambda: UNet2DConditionModel(**config.unet), parts.unet, dtype, device)
    vae_dtype = torch.float32 if dtype == torch.float16 else dtype  # SDXL's autoencoder overflows in float16
    vae = _filled("autoencoder", lambda: AutoencoderKL(**config.vae), parts.vae, vae_dtype, device)
    is_xl = config.text_encoder_2 is not None
    text_config = CLIPTextConfig(**config.text_encoder)
    encoders = [_filled("text encoder", lambda: CLIPTextModel(text_config), parts.text, dtype, device)]
    if is_xl:
        text_config_2 = CLIPTextConfig(**(config.text_encoder_2 or {}))
        encoders.append(
            _filled(
                "second text encoder",
                lambda: CLIPTextModelWithProjection(text_config_2),
                parts.text_2 or {},
                dtype,
                device,
            )
        )
    codec = DiffusersCodec(vae, config.scaling_factor, config.vae_factor)
    clip = ClipEncoders(encoders, [pad_id, 0][: len(encoders)])
    editor = Editor(config, unet, codec, clip, make_schedule(config))
    if device.type == "cpu":  # convolutions are up to a sixth faster so
        vae.to(memory_format=torch.channels_last)
        editor.use_channels_last()
        editor.leading = modules_before_text(_entrance(unet))  # measured on a CPU only
    return editor


def _entrance(unet: Any) -> Iterator[nn.Module]:
    """The modules of a U-Net in the order in which a batch goes through them, up to its middle."""
    yield unet.conv_in
    for block in unet.down_blocks:
        for number, resnet in enumerate(block.resnets):
            yield resnet
            yield from list(getattr(block, "attentions", ()))[number : number + 1]
        yield from block.downsamplers or ()


def _filled(
    part: str, build: Callable[[], Any], state: dict[str, Tensor], dtype: torch.dtype, device: torch.device
) -> Any:
    """Build a network without random weights and fill in every one; `state` is emptied, so that no weight lies twice."""
    try:
        with torch.device("meta"):
            network = build()
        wanted = network.state_dict().keys()
        converted = {_prefixed(name, wanted): state.pop(name).to(device, dtype) for name in list(state)}
        network.load_state_dict(converted, strict=True, assign=True)
    except (RuntimeError, TypeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"The weights of the {part} do not fit its configuration ({reason}). Use a checkpoint whose configuration "
            "belongs to its weights."
        ) from None
    for module in network.modules():
        if isinstance(getattr(module, "position_ids", None), Tensor):
            positions = torch.arange(network.config.max_position_embeddings, device=device)[None]
            module.register_buffer("position_ids", positions, persistent=False)
    unfilled = [name for name, value in [*network.named_parameters(), *network.named_buffers()] if value.is_meta]
    if unfilled:
        raise CheckpointError(f"The {part} lacks the weight {unfilled[0]!r}. Use a complete checkpoint.")
    return network.eval().requires_grad_(False)


def _prefixed(name: str, wanted: Container[str]) -> str:
    """Some versions and classes of transformers' CLIP keep the prefix `text_model.`, others do not."""
    prefixed = f"text_model.{name}"
    return prefixed if prefixed in wanted else name


def choose_device(device: str) -> torch.device:
    """Turn "auto" or a device name into a device.

    Args:
        device: "auto", "cpu", "cuda", "cuda:1", "mps" ...

    Returns:
        The device.

    Raises:
        ConfigError: if there is no such device.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError):
        raise ConfigError(
            f"The device {device!r} is not there; use auto, cpu, or cuda with a GPU and its driver."
        ) from None
    return chosen


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Turn "auto" or a name into a number format.

    Args:
        dtype: "auto" or a key of DTYPES.
        device: where the network will run.

    Returns:
        float32 on a CPU, float16 elsewhere, unless named.

    Raises:
        ConfigError: if the name is unknown.
    """
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else torch.float16
    if dtype not in DTYPES:
        raise ConfigError(f"The dtype {dtype!r} is unknown; use auto, {', '.join(DTYPES)}.")
    return DTYPES[dtype]
