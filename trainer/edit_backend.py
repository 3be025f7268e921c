"""A model on one device: the core's Protocols over the networks that an adapter has built.

Nothing here imports a backend; the networks are called by shape.
Shapes: B images, H W height and width in pixels, C latent channels, h w in latent cells, L tokens, D text width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..ip2p_core import open_clip_adapter
from ..ip2p_core.guidance import Branches, Predictions
from ..ip2p_core.image_tensor import from_model, to_model
from ..ip2p_core.model_config import ModelConfig
from ..ip2p_core.schedule import EdmSchedule, NoiseSchedule, make_scaled_linear, output_to_denoised, scale_model_input
from ..ip2p_core.shared_rows import shared_rows


class TextCondition(NamedTuple):
    """Encoded texts."""

    embeds: Tensor
    """[B, L, D]."""
    pooled: Tensor | None
    """[B, P], SDXL only."""

    def expand(self, num_images: int) -> TextCondition:
        """Repeat a single text for every image."""
        if len(self.embeds) == num_images:
            return self
        pooled = None if self.pooled is None else self.pooled.expand(num_images, -1)
        return TextCondition(self.embeds.expand(num_images, -1, -1), pooled)


@dataclass(frozen=True)
class DiffusersCodec:
    """An AutoencoderKL as the core's ImageCodec."""

    vae: Any
    scaling_factor: float
    factor: int

    def encode(self, image: Tensor) -> Tensor:
        """Encode images [B, H, W, 3] in [0, 1] to the mode of the posterior [B, C, h, w], unscaled, float32."""
        pixels = to_model(image).to(self.vae.device, self.vae.dtype)
        mode: Tensor = self.vae.encode(pixels).latent_dist.mode()
        return mode.float()

    def posterior(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images [B, 3, H, W] in [-1, 1] to mean and standard deviation [B, C, h, w], unscaled, float32."""
        posterior = self.vae.encode(pixels.to(self.vae.device, self.vae.dtype)).latent_dist
        return posterior.mean.float(), posterior.std.float()

    def decode(self, latents: Tensor) -> Tensor:
        """Decode scaled latents [B, C, h, w] to images [B, H, W, 3] in [0, 1], float32."""
        unscaled = (latents / self.scaling_factor).to(self.vae.dtype)
        return from_model(self.vae.decode(unscaled, return_dict=False)[0].float())


@dataclass(frozen=True)
class ClipEncoders:
    """One CLIP text encoder, or SDXL's two, with their paddings."""

    encoders: Sequence[Any]
    pad_ids: Sequence[int]

    def encode(self, texts: Sequence[str]) -> TextCondition:
        """Encode texts; equal ones are encoded once."""
        unique = list(dict.fromkeys(texts))
        outputs = [self._run(*each, unique) for each in zip(self.encoders, self.pad_ids, strict=True)]
        rows = torch.tensor([unique.index(text) for text in texts], device=outputs[0][0].device)
        embeds = torch.cat([hidden for hidden, _ in outputs], dim=-1)[rows]
        pooled = outputs[-1][1]
        return TextCondition(embeds, None if pooled is None else pooled[rows])

    def _run(self, encoder: Any, pad_id: int, texts: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        length = encoder.config.max_position_embeddings
        ids = [open_clip_adapter.tokenize(text, pad_id=pad_id, context_length=length) for text in texts]
        is_xl = len(self.encoders) > 1
        output = encoder(torch.tensor(ids, device=encoder.device), output_hidden_states=is_xl)
        if not is_xl:
            return output.last_hidden_state, None
        return output.hidden_states[-2], getattr(output, "text_embeds", None)

    def count_tokens(self, text: str) -> int:
        """Return the length of a text in tokens, with start and end, before any truncation."""
        return open_clip_adapter.count_tokens(text)


@dataclass
class DiffusersDenoiser:
    """A U-Net with the conditionings of one edit, as the core's EditDenoiser."""

    editor: Editor
    image_condition: Tensor
    """[B, C, h, w], in the scale that the family was trained with."""
    text: TextCondition
    null: TextCondition
    _rows: dict[Branches, tuple[Tensor, Tensor, dict[str, Tensor] | None]] = field(default_factory=dict)

    def predict(self, x: Tensor, sigma: Tensor, branches: Branches) -> Predictions:
        """Run the asked branches in one forward.

        Args:
            x: noisy sample [B, C, h, w], in units of sigma.
            sigma: noise standard deviation, scalar.
            branches: which predictions are needed.

        Returns:
            Denoised predictions [B, C, h, w]; None for the branches that were not asked for.
        """
        editor, num_rows = self.editor, sum(branches)
        if branches not in self._rows:
            self._rows[branches] = self._conditions(branches)
        images, embeds, added = self._rows[branches]
        scaled = scale_model_input(x, sigma).repeat(num_rows, 1, 1, 1)
        network_input = torch.cat([scaled.to(images.dtype), images], dim=1)
        if editor.is_channels_last:
            network_input = network_input.contiguous(memory_format=torch.channels_last)
        t = editor.schedule.network_time(sigma)
        with shared_rows(editor.leading, self._equal_parts(branches, added)):
            output = editor.unet(network_input, t, embeds, added_cond_kwargs=added, return_dict=False)[0]
        outputs = iter(output.to(x.dtype).chunk(num_rows))
        prediction_type = editor.config.prediction_type
        return Predictions(
            *(
                output_to_denoised(next(outputs), x, sigma, prediction_type) if is_needed else None
                for is_needed in branches
            )
        )

    def _equal_parts(self, branches: Branches, added: Any) -> list[int]:
        """`full` and `image` begin alike, unless the time embedding holds text, as SDXL's does."""
        names = [name for name, is_needed in branches._asdict().items() if is_needed]
        is_shared = added is None and {"full", "image"} <= set(names)
        return [names.index("full") if is_shared and name == "image" else i for i, name in enumerate(names)]

    def _conditions(self, branches: Branches) -> tuple[Tensor, Tensor, dict[str, Tensor] | None]:
        """Stack image and text conditions of the needed branches, in the order full, image, uncond."""
        condition = self.image_condition
        zeros = torch.zeros_like(condition)
        wanted = [
            pair
            for pair, is_needed in zip(
                ((condition, self.text), (condition, self.null), (zeros, self.null)), branches, strict=True
            )
            if is_needed
        ]
        texts = [text.expand(len(condition)) for _, text in wanted]
        images = torch.cat([image for image, _ in wanted]).to(self.editor.dtype)
        height, width = (side * self.editor.codec.factor for side in condition.shape[-2:])
        added = added_conditions(texts, (height, width), self.editor.dtype)
        return images, torch.cat([text.embeds for text in texts]).to(self.editor.dtype), added


def added_conditions(
    texts: Sequence[TextCondition], size: tuple[int, int], dtype: torch.dtype
) -> dict[str, Tensor] | None:
    """Stack what SDXL takes beside the text embeddings; None for other families.

    Args:
        texts: one per branch of the call.
        size: height and width of the pictures in pixels.
        dtype: number format of the U-Net.

    Returns:
        Pooled text and the six numbers of the size, for every row.
    """
    pooled = [text.pooled for text in texts if text.pooled is not None]
    if not pooled:
        return None
    stacked = torch.cat(pooled).to(dtype)
    time_ids = stacked.new_tensor([*size, 0, 0, *size])
    return {"text_embeds": stacked, "time_ids": time_ids.expand(len(stacked), -1)}


@dataclass
class Editor:
    """A complete model on one device: an editor, or a text-to-image generator."""

    config: ModelConfig
    unet: Any
    codec: DiffusersCodec
    text: ClipEncoders
    schedule: NoiseSchedule
    path: Path | None = None
    is_channels_last: bool = False
    leading: Sequence[nn.Module] = ()
    """What of the U-Net lies before its first cross-attention, where equal rows are computed once."""

    @property
    def scaling_factor(self) -> float:
        """Scaled latents are unscaled latents times this."""
        return self.codec.scaling_factor

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the U-Net."""
        dtype: torch.dtype = next(self.unet.parameters()).dtype
        return dtype

    @property
    def device(self) -> torch.device:
        """Where the U-Net runs."""
        device: torch.device = next(self.unet.parameters()).device
        return device

    def denoiser(self, image_latents: Tensor, text: TextCondition, null: TextCondition) -> DiffusersDenoiser:
        """Bind the conditionings of one edit.

        Args:
            image_latents: [B, C, h, w], unscaled.
            text: the instructions.
            null: the negative instruction, usually the empty text.

        Returns:
            The denoiser of the edit.
        """
        is_scaled = self.config.image_latent_scale == "scaled"
        condition = image_latents * self.scaling_factor if is_scaled else image_latents
        return DiffusersDenoiser(self, condition, text, null)

    def use_channels_last(self) -> None:
        """Order the U-Net's numbers as convolutions like them; the results stay the same up to rounding."""
        self.unet.to(memory_format=torch.channels_last)
        self.is_channels_last = True

    def compile(self) -> None:
        """Compile the U-Net: slow on the first step of every new size, faster afterwards."""
        self.unet = torch.compile(self.unet)
        self.leading = ()


def make_schedule(config: ModelConfig) -> NoiseSchedule:
    """Return the noise levels of a model: Stable Diffusion's, or EDM's for CosXL."""
    return EdmSchedule() if config.image_latent_scale == "scaled" else make_scaled_linear()
