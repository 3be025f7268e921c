"""What is trained: the U-Net, with the text encoder or with low-rank adapters where that is asked for.

Shapes: B pairs, C latent channels, h w in latent cells, L tokens, D text width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ...ip2p_core.train_job import TrainConfig
from ..accelerate_adapter import Processes
from ..cuda_graphs import CudaGraphs
from ..edit_backend import Editor
from ..peft_adapter import add_adapters

DTYPES = {"fp64": torch.float64}


class TrainedNetwork(nn.Module):
    """One module, so that one wrapper, one optimizer and one file hold all that is trained."""

    def __init__(self, unet: Any, text_encoder: nn.Module | None, *, is_channels_last: bool) -> None:
        super().__init__()
        self.unet, self.text_encoder, self.is_channels_last = unet, text_encoder, is_channels_last
        self.base_conv_in = {
            f"conv_in.{name}": value.detach().cpu().clone() for name, value in unet.conv_in.named_parameters()
        }
        """As it was before the training; adapters are exported with the difference to it."""
        self._graphs: CudaGraphs | None = None

    def use_cuda_graphs(self) -> None:
        """Replay steps from CUDA graphs from now on; see `CudaGraphs`."""
        self._graphs = CudaGraphs(self, self._predict)

    def forward(self, x: Tensor, t: Tensor, text: Tensor, added: dict[str, Tensor] | None = None) -> Tensor:
        """Predict.

        Args:
            x: noisy and image latents [B, 2C, h, w].
            t: what the network takes as time [B].
            text: embeddings [B, L, D], or, where the text encoder is trained, token ids [B, L, 1].
            added: what SDXL takes besides.

        Returns:
            The output [B, C, h, w].
        """
        return self._predict(x, t, text, added) if self._graphs is None or added else self._graphs(x, t, text)

    def _predict(self, x: Tensor, t: Tensor, text: Tensor, added: dict[str, Tensor] | None = None) -> Tensor:
        if self.text_encoder is not None:
            text = self.text_encoder(input_ids=text[..., 0]).last_hidden_state
        if self.is_channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        output: Tensor = self.unet(x, t, text, added_cond_kwargs=added, return_dict=False)[0]
        return output


def is_replayed(config: TrainConfig, processes: Processes) -> bool:
    """Say whether steps are replayed from CUDA graphs: where it is wanted, on one GPU, with one micro-batch a step."""
    is_whole = config.batch_size == config.micro_batch_size and processes.count == 1
    return config.cuda_graphs and processes.device.type == "cuda" and is_whole


def make_network(editor: Editor, config: TrainConfig) -> TrainedNetwork:
    """Choose what is trained, and prepare it.

    Args:
        editor: the base, widened; its U-Net is changed.
        config: rank of adapters, text encoder, number format, checkpointing.

    Returns:
        The network; what is not trained takes no gradient.

    Raises:
        ConfigError: if the package peft is needed and missing, or no layer has a name of `lora_targets`.
    """
    unet: Any = editor.unet.train()
    if config.precision in DTYPES:
        unet.to(DTYPES[config.precision])
    editor.is_channels_last = editor.device.type != "cpu"  # a CPU goes forward faster so, but backward slower
    unet.to(memory_format=torch.channels_last if editor.is_channels_last else torch.contiguous_format)
    encoder = editor.text.encoders[0] if config.train_text_encoder else None
    if config.lora_rank:
        add_adapters(unet, config.lora_rank, config.lora_targets, config.seed)
        unet.conv_in.requires_grad_(
            True
        )  # its new channels start at 0: a low-rank difference has nothing to start from
    else:
        unet.requires_grad_(True)
    if encoder is not None:
        encoder.to(next(unet.parameters()).dtype).train().requires_grad_(True)
    if config.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    return TrainedNetwork(unet, encoder, is_channels_last=editor.is_channels_last)


def trained_parameters(network: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Name and parameter of all that is trained, without the names that wrappers add."""
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            yield plain_name(name), parameter


def plain_name(name: str) -> str:
    """Remove what DistributedDataParallel and torch.compile put into names."""
    return name.removeprefix("module.").replace("_orig_mod.", "")
