"""From a micro-batch to its loss: encode, drop, noise, predict, compare (arXiv:2211.09800, eq. 1).

Shapes: B pairs, C latent channels, h w in latent cells, L tokens, D text width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...ip2p_core import open_clip_adapter
from ...ip2p_core.conditioning import Conditioning, drop_conditioning
from ...ip2p_core.errors import ConfigError
from ...ip2p_core.objective import changed_region, edit_loss, min_snr_weights, region_weights
from ...ip2p_core.schedule import EdmSchedule
from ...ip2p_core.train_job import TrainConfig
from ..edit_backend import Editor, TextCondition, added_conditions
from .batches import MicroBatch
from .latents import PairLatents, encode_pairs

Predict = Callable[..., Tensor]


class EditObjective:
    """Computes the loss of micro-batches.

    Args:
        editor: autoencoder, text encoders and schedule; its U-Net is not used.
        config: of the training.
        instructions: texts by number; the first is empty.
        dtype: number format of what is compared.
    """

    def __init__(self, editor: Editor, config: TrainConfig, instructions: Sequence[str], dtype: torch.dtype) -> None:
        self.editor, self.config, self.instructions, self.dtype = editor, config, instructions, dtype
        self._ids: dict[int, Tensor] = {}
        self._kept: TextCondition | None = None
        if config.train_text_encoder and len(editor.text.encoders) > 1:
            raise ConfigError("train_text_encoder is for models with one text encoder. Switch it off for this base.")

    @torch.no_grad()
    def keep_text(self, batch: int = 64) -> None:
        """Encode every instruction once and keep the embeddings, in half precision, on the CPU."""
        parts = [
            self.editor.text.encode(self.instructions[i : i + batch]) for i in range(0, len(self.instructions), batch)
        ]
        pooled = [part.pooled.half().cpu() for part in parts if part.pooled is not None]
        embeds = torch.cat([part.embeds.half().cpu() for part in parts])
        self._kept = TextCondition(embeds, torch.cat(pooled) if pooled else None)

    def loss(self, predict: Predict, batch: MicroBatch) -> Tensor:
        """Compute the loss of one micro-batch.

        Args:
            predict: the network: (x [B, 2C, h, w], t [B], text, added) -> [B, C, h, w].
            batch: what to learn from.

        Returns:
            A scalar.
        """
        config, editor, device = self.config, self.editor, self.editor.device
        pair = self._latents(batch)
        t, u, starts = (value.to(device, non_blocking=True) for value in (batch.t, batch.u, batch.starts))
        edited = pair.edited_mean + pair.edited_std * batch.posterior.to(pair.edited_mean)
        latents = edited * editor.scaling_factor
        is_scaled = editor.config.image_latent_scale == "scaled"
        image_latents = pair.original * editor.scaling_factor if is_scaled else pair.original
        text, null = self._text(batch.instructions)
        conditioning = drop_conditioning(Conditioning(image_latents, text.embeds), null.embeds, u, config.dropout)
        added = self._added(text, null, u, batch)

        def network(x: Tensor, t: Tensor, embeds: Tensor) -> Tensor:
            return predict(x, self._time(t), embeds, added)

        return edit_loss(
            network,
            latents,
            conditioning,
            t,
            batch.noise.to(latents),
            schedule=editor.schedule,
            prediction_type=editor.config.prediction_type,
            starts=starts if config.start_share else None,
            weights=self._weights(batch, pair, edited, t),
        )

    def _latents(self, batch: MicroBatch) -> PairLatents:
        pair = batch.latents or encode_pairs(self.editor.codec, batch.cropped, batch.shape)
        moved = (value.to(self.editor.device, non_blocking=True) for value in pair)
        return PairLatents(*(value.to(self.dtype) if value.is_floating_point() else value for value in moved))

    def _text(self, numbers: Tensor) -> tuple[TextCondition, TextCondition]:
        """Instructions of a micro-batch and the empty one: embeddings, or token ids [B, L, 1]."""
        wanted = [*numbers.tolist(), 0]
        if self.config.train_text_encoder:
            ids = torch.stack([self._token_ids(number) for number in wanted])[..., None].to(self.editor.device)
            return TextCondition(ids[:-1], None), TextCondition(ids[-1:], None)
        whole = self._embed(wanted)
        embeds = whole.embeds.to(self.editor.device, self.dtype)
        if whole.pooled is None:
            return TextCondition(embeds[:-1], None), TextCondition(embeds[-1:], None)
        pooled = whole.pooled.to(self.editor.device, self.dtype)
        return TextCondition(embeds[:-1], pooled[:-1]), TextCondition(embeds[-1:], pooled[-1:])

    @torch.no_grad()
    def _embed(self, wanted: list[int]) -> TextCondition:
        if self._kept is None:
            return self.editor.text.encode([self.instructions[number] for number in wanted])
        embeds, pooled = self._kept
        return TextCondition(embeds[wanted], None if pooled is None else pooled[wanted])

    def _token_ids(self, number: int) -> Tensor:
        if number not in self._ids:
            text = self.editor.text
            length = text.encoders[0].config.max_position_embeddings
            ids = open_clip_adapter.tokenize(self.instructions[number], pad_id=text.pad_ids[0], context_length=length)
            self._ids[number] = torch.tensor(ids)
        return self._ids[number]

    def _added(
        self, text: TextCondition, null: TextCondition, u: Tensor, batch: MicroBatch
    ) -> dict[str, Tensor] | None:
        """What SDXL takes besides; its pooled text is dropped together with the embeddings."""
        if text.pooled is None or null.pooled is None:
            return None
        as_tokens = Conditioning(batch.noise.to(text.pooled), text.pooled[:, None])
        pooled = drop_conditioning(as_tokens, null.pooled[:, None], u, self.config.dropout).text_embeds[:, 0]
        return added_conditions([TextCondition(text.embeds, pooled)], batch.shape, self.dtype)

    def _time(self, t: Tensor) -> Tensor:
        schedule = self.editor.schedule
        return schedule.network_time(schedule.t_to_sigma(t)) if isinstance(schedule, EdmSchedule) else t

    def _weights(self, batch: MicroBatch, pair: PairLatents, edited: Tensor, t: Tensor) -> Tensor:
        """All that weighs the loss, multiplied: [B, 1, 1, 1] or [B, 1, h, w]."""
        config, editor = self.config, self.editor
        weights = batch.weights.to(edited).reshape(-1, 1, 1, 1)
        if config.min_snr_gamma:
            kind = editor.config.prediction_type
            weights = weights * min_snr_weights(t, config.min_snr_gamma, editor.schedule, kind).to(edited)
        if config.change_share:
            region = changed_region(pair.original, edited, 1 / editor.scaling_factor)
            weights = weights * region_weights(region, config.change_share)
        if config.mask_share:
            weights = weights * region_weights(pair.mask, config.mask_share)
        return weights
