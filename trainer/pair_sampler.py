"""Sampling of pairs through diffusers on the core's samplers: one noise and one guidance scale per pair.

Rows of a batch: original, edited, original, edited and so on. Shapes: N pairs, B = 2 N rows, H W in pixels, h w in cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..ip2p_core.errors import BadImageSize
from ..ip2p_core.guidance import guide_text
from ..ip2p_core.open_clip_adapter import token_strings
from ..ip2p_core.pair_generation import PairDraw, PairSettings, make_sharing
from ..ip2p_core.prompt_alignment import Caption
from ..ip2p_core.randomness import StepNoise, start_noise
from ..ip2p_core.sampling import StepCallback, sample, start_sample
from ..ip2p_core.schedule import is_full_denoise, make_sigmas, output_to_denoised, scale_model_input
from ..ip2p_core.triplet import Triplet
from .edit_backend import Editor, TextCondition, added_conditions
from .pair_attention import PairAttention, share_attention

BRANCHES = (True, False)
"""Conditional, then unconditional, in one call of the network."""


@dataclass(frozen=True, kw_only=True)
class PairSampling:
    """How a batch is sampled.

    Attributes:
        width: of the pictures, in pixels.
        height: of the pictures, in pixels.
        steps: sampling steps; the published generator takes 100.
        sampler: a key of sampling.SAMPLERS.
        scheduler: one of schedule.SCHEDULERS.
    """

    width: int = 512
    height: int = 512
    steps: int = 100
    sampler: str = "euler_ancestral"
    scheduler: str = "normal"


def read_caption(text: str) -> Caption:
    """Cut a caption into CLIP's tokens."""
    return Caption(token_strings(text))


@torch.inference_mode()
def sample_pairs(
    model: Editor,
    draws: Sequence[PairDraw],
    triplets: Sequence[Triplet],
    settings: PairSettings,
    sampling: PairSampling,
    callback: StepCallback | None = None,
) -> Tensor:
    """Make one batch of pairs; it may hold samples of several prompts.

    Args:
        model: a text-to-image model.
        draws: the N samples.
        triplets: the texts of every sample.
        settings: how they share attention.
        sampling: size, steps, sampler.
        callback: called once per step.

    Returns:
        Pictures [2 N, H, W, 3] in [0, 1].

    Raises:
        BadImageSize: if the size does not fit the autoencoder.
    """
    factor = model.codec.factor
    if sampling.width % factor or sampling.height % factor:
        raise BadImageSize(
            f"The size {sampling.width}x{sampling.height} is not a multiple of {factor}. Choose multiples of {8 * factor}."
        )
    shape = (4, sampling.height // factor, sampling.width // factor)
    sigmas = make_sigmas(sampling.scheduler, model.schedule, sampling.steps).to(model.device)
    noise = torch.cat([start_noise(draw.seed, 1, shape).expand(2, *shape) for draw in draws])
    fresh = [StepNoise(draw.seed, 1, shape) for draw in draws]
    pair = PairAttention(make_sharing(draws, triplets, settings, read_caption))
    denoise = _PairDenoiser(model, pair, draws, triplets, (sampling.height, sampling.width), len(sigmas) - 1)
    x = start_sample(
        noise.to(model.device), sigmas[0], is_full_denoise=is_full_denoise(float(sigmas[0]), model.schedule)
    )
    with share_attention(model.unet, pair):
        latents = sample(
            sampling.sampler,
            denoise,
            x,
            sigmas,
            noise_sampler=lambda s, s_next: torch.cat([one(s, s_next).expand(2, *shape) for one in fresh]).to(x),
            callback=callback,
        )
    return model.codec.decode(latents)


class _PairDenoiser:
    """The guided denoised prediction of a batch of pairs."""

    def __init__(
        self,
        model: Editor,
        pair: PairAttention,
        draws: Sequence[PairDraw],
        triplets: Sequence[Triplet],
        size: tuple[int, int],
        num_steps: int,
    ) -> None:
        self.model, self.pair, self.num_steps = model, pair, num_steps
        self.scales = torch.tensor([draw.text_guidance_scale for draw in draws], device=model.device)
        self.scales = self.scales.repeat_interleave(2)
        captions = [text for triplet in triplets for text in (triplet.caption, triplet.edited_caption)]
        texts: list[TextCondition] = [model.text.encode(captions), model.text.encode([""] * len(captions))]
        self.embeds = torch.cat([text.embeds for text in texts]).to(model.dtype)
        self.added: Any = added_conditions(texts, size, model.dtype)

    def __call__(self, x: Tensor, sigma: Tensor, step: int) -> Tensor:
        """Predict [B, 4, h, w]."""
        model = self.model
        self.pair.start_call(step, self.num_steps, BRANCHES, x.device)
        network_input = scale_model_input(x, sigma).repeat(len(BRANCHES), 1, 1, 1).to(model.dtype)
        if model.is_channels_last:
            network_input = network_input.contiguous(memory_format=torch.channels_last)
        t = model.schedule.network_time(sigma)
        output = model.unet(network_input, t, self.embeds, added_cond_kwargs=self.added, return_dict=False)[0]
        outputs = output.to(x.dtype).chunk(len(BRANCHES))
        cond, uncond = (output_to_denoised(one, x, sigma, model.config.prediction_type) for one in outputs)
        return guide_text(cond, uncond, self.scales)
