"""The end of a run: one file that `LoadInstructPix2Pix` opens, and a file of the adapters where there are some."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ...ip2p_core.checkpoint import write_checkpoint
from ...ip2p_core.checkpoint_files import write_tensors
from ...ip2p_core.lora_keys import lora_to_kohya
from ...ip2p_core.train_job import TrainConfig
from ..peft_adapter import adapter_state, merged_state
from .network import TrainedNetwork
from .setup import RunParts

EXPORT_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
MODEL_FOLDER, LORA_FOLDER = "ip2p", "loras"


def export_run(config: TrainConfig, parts: RunParts, network: TrainedNetwork) -> Path:
    """Write what was trained.

    Args:
        config: of the run.
        parts: base and pairs.
        network: with the weights to export.

    Returns:
        Path of the whole model, adapters merged, in the folder `ip2p` of the models.

    Raises:
        CheckpointError: if it cannot be written.
    """
    editor, models = parts.editor, Path(config.models)
    described = replace(
        editor.config,
        base=editor.path.stem if editor.path else editor.config.base,
        recipe=f"ip2p train, preset {config.preset}: {config.steps} steps of {config.batch_size} pairs at {config.resolution} px",
        data_hash=parts.pairs.data_hash,
    )
    dtype = EXPORT_DTYPES[config.export_precision]
    encoders = [_on_cpu(encoder.state_dict()) for encoder in editor.text.encoders]
    path = Path(config.model_folder or models / MODEL_FOLDER) / f"{config.name}.safetensors"
    write_checkpoint(
        path,
        _on_cpu(merged_state(network.unet)),
        _on_cpu(editor.codec.vae.state_dict()),
        encoders[0],
        described,
        dtype,
        text_2=encoders[1] if len(encoders) > 1 else None,
    )
    if config.lora_rank:
        adapters = lora_to_kohya(_on_cpu(adapter_state(network.unet)), network.base_conv_in, config.lora_rank)
        halves = {name: value.to(dtype) for name, value in adapters.items()}
        metadata = {"ss_network_dim": str(config.lora_rank), "ss_network_alpha": str(config.lora_rank)}
        folder = Path(config.lora_folder or models / LORA_FOLDER)
        write_tensors(folder / f"{config.name}.safetensors", halves, metadata)
    return path


def _on_cpu(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu() for name, value in state.items()}
