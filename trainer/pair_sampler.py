"""Sampling of pairs through diffusers on the core's samplers: one noise and one guidance scale per pair.

Shapes: N pairs, B rows of a batch (see core's `batch_rows`), H W in pixels, h w in cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..ip2p_core.errors import BadImageSize
from ..ip2p_core.open_clip_adapter import token_strings
from ..ip2p_core.pair_generation import (
    PairDraw,
    PairSettings,
    batch_rows,
    make_blend,
    make_sharing,
    pair_rows,
    row_captions,
)
from ..ip2p_core.prompt_alignment import Caption
from ..ip2p_core.randomness import StepNoise, start_noise
from ..ip2p_core.sampling import sample, start_sample
from ..ip2p_core.schedule import is_full_denoise, make_sigmas
from ..ip2p_core.triplet import Triplet
from .edit_backend import Editor
from .pair_attention import PairAttention, share_attention
from .text_denoiser import BRANCHES, TextDenoiser


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


def sample_pairs(
    model: Editor,
    draws: Sequence[PairDraw],
    triplets: Sequence[Triplet],
    settings: PairSettings,
    sampling: PairSampling,
) -> Tensor:
    """Make one batch of pairs; it may hold samples of several prompts.

    Args:
        model: a text-to-image model.
        draws: the N samples.
        triplets: the texts of every sample.
        settings: how they share attention.
        sampling: size, steps, sampler.

    Returns:
        Pictures [2 N, H, W, 3] in [0, 1].

    Raises:
        BadImageSize: if the size does not fit the autoencoder.
    """
    batch = PairBatch(model, draws, triplets, settings, sampling)
    batch.run(sampling.steps)
    return batch.pictures()


class PairBatch:
    """A batch of pairs on its way; it can be stopped at a step, looked at, and go on with some of its pairs.

    Args:
        model: a text-to-image model.
        draws: the N samples.
        triplets: the texts of every sample.
        settings: how they share attention.
        sampling: size, steps, sampler.

    Raises:
        BadImageSize: if the size does not fit the autoencoder.
    """

    @torch.inference_mode()
    def __init__(
        self,
        model: Editor,
        draws: Sequence[PairDraw],
        triplets: Sequence[Triplet],
        settings: PairSettings,
        sampling: PairSampling,
    ) -> None:
        self.model, self.draws, self.triplets = model, list(draws), list(triplets)
        self.settings, self.sampling = settings, sampling
        self.step = 0
        shape = latent_shape(model, sampling)
        self.sigmas = make_sigmas(sampling.scheduler, model.schedule, sampling.steps).to(model.device)
        self._rows = batch_rows(draws)
        seeds = [draws[row.draw].seed for row in self._rows]
        self._fresh = [StepNoise(seed, 1, shape) for seed in seeds]
        noise = torch.cat([start_noise(seed, 1, shape) for seed in seeds]).to(model.device)
        is_full = is_full_denoise(float(self.sigmas[0]), model.schedule)
        self._x = self._denoised = start_sample(noise, self.sigmas[0], is_full_denoise=is_full)
        self._blend = make_blend(draws, triplets, settings, read_caption, (shape[1], shape[2]))
        self._pair = PairAttention(make_sharing(draws, triplets, settings, read_caption), self._blend)
        scales = [draws[row.draw].text_guidance_scale for row in self._rows]
        size = (sampling.height, sampling.width)
        captions = row_captions(self._rows, triplets)
        text = TextDenoiser(model, scales, captions, size)
        self._denoise = _PairDenoiser(text, self._pair, len(self.sigmas) - 1)

    @torch.inference_mode()
    def run(self, until: int) -> None:
        """Sample up to a step; `until` is the number of steps done afterwards."""
        first, blend, num_steps = self.step, self._blend, len(self.sigmas) - 1
        with share_attention(self.model.unet, self._pair):
            self._x = sample(
                self.sampling.sampler,
                lambda x, sigma, step: self._denoise(x, sigma, first + step),
                self._x,
                self.sigmas[first : until + 1],
                noise_sampler=lambda s, s_next: torch.cat([one(s, s_next) for one in self._fresh]).to(self._x),
                callback=self._look,
                after_step=None if blend is None else lambda x, step: blend.blend(x, first + step, num_steps),
            )
        self.step = until

    def _look(self, _step: int, denoised: Tensor) -> None:
        self._denoised = denoised

    @torch.inference_mode()
    def pictures(self, *, is_preview: bool = False) -> Tensor:
        """Decode all pairs.

        Args:
            is_preview: decode the clean pictures that the last step predicted instead of the samples themselves.

        Returns:
            Pictures [2 N, H, W, 3] in [0, 1]: original, edited and so on.
        """
        decoded = self.model.codec.decode(self._denoised if is_preview else self._x)
        return decoded[pair_rows(self._rows)]

    @torch.inference_mode()
    def keep(self, chosen: Sequence[int]) -> PairBatch:
        """Go on with some of the pairs; the others cost nothing any more.

        Args:
            chosen: numbers of the pairs, increasing.

        Returns:
            The smaller batch, at the same step.
        """
        draws, triplets = [self.draws[i] for i in chosen], [self.triplets[i] for i in chosen]
        smaller = PairBatch(self.model, draws, triplets, self.settings, self.sampling)
        pairs = pair_rows(self._rows)
        kept = [pairs[2 * chosen[row.draw] + (number != row.source)] for number, row in enumerate(smaller._rows)]
        smaller.step, smaller._x, smaller._denoised = self.step, self._x[kept], self._denoised[kept]
        smaller._fresh = [self._fresh[row] for row in kept]
        return smaller


def latent_shape(model: Editor, sampling: PairSampling) -> tuple[int, int, int]:
    """Return C, h, w of the latents of a size.

    Args:
        model: with the autoencoder.
        sampling: with the size.

    Returns:
        Channels, height and width.

    Raises:
        BadImageSize: if the size does not fit the autoencoder.
    """
    factor = model.codec.factor
    if sampling.width % factor or sampling.height % factor:
        raise BadImageSize(
            f"The size {sampling.width}x{sampling.height} is not a multiple of {factor}. Choose multiples of {8 * factor}."
        )
    return 4, sampling.height // factor, sampling.width // factor


class _PairDenoiser:
    """The guided denoised prediction of a batch of pairs."""

    def __init__(self, text: TextDenoiser, pair: PairAttention, num_steps: int) -> None:
        self._text, self._pair, self._num_steps = text, pair, num_steps

    def __call__(self, x: Tensor, sigma: Tensor, step: int) -> Tensor:
        """Predict [B, 4, h, w]."""
        self._pair.start_call(step, self._num_steps, BRANCHES, x.device)
        return self._text(x, sigma, step)
