"""Sampling of pairs with the host: one guidance scale per pair, one noise per pair, attention shared inside it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import comfy.ldm.modules.diffusionmodules.openaimodel
import comfy.samplers
import torch
from torch import Tensor

from ...ip2p_core.checkpoint import require_generator as require_text_to_image
from ...ip2p_core.errors import BadImageSize, ModelMismatch
from ...ip2p_core.guidance import guide_text
from ...ip2p_core.local_blend import LocalBlend
from ...ip2p_core.pair_generation import (
    PairDraw,
    PairSettings,
    batch_rows,
    make_blend,
    make_sharing,
    pair_rows,
    row_captions,
)
from ...ip2p_core.prompt_alignment import Caption
from ...ip2p_core.triplet import Triplet
from . import codec, sampling, text
from .guider import HOOKS, apply_hooks, step_of
from .pair_attention import share_attention
from .settings import config_of_model

UNetModel = comfy.ldm.modules.diffusionmodules.openaimodel.UNetModel


def require_generator(model) -> None:
    """Refuse a model that is not a text-to-image U-Net.

    Raises:
        ModelMismatch: naming what it is.
    """
    network = model.model.diffusion_model
    if not isinstance(network, UNetModel):
        raise ModelMismatch(
            f"The model's network is {type(network).__name__}; Prompt-to-Prompt shares the attention of U-Nets. "
            'Load an SD1.x, SD2.x or SDXL text-to-image checkpoint into "model".'
        )
    require_text_to_image(config_of_model(model))


class PairGuider(comfy.samplers.CFGGuider):
    """Classifier-free guidance with one scale per row, and local blend where it is wanted."""

    def __init__(self, model, scales: Sequence[float], blend: LocalBlend | None = None) -> None:
        super().__init__(model)
        self._blend, self._num_blended = blend, 0
        self.scales = torch.tensor(scales)
        self.cfg = float(self.scales.mean())  # read by logging and other people's wrappers

    def predict_noise(self, x, timestep, model_options={}, seed=None):  # noqa: ARG002, B006 - the host's signature
        """Predict the guided denoised sample of one step."""
        if self._blend is not None:
            sigmas = model_options["transformer_options"]["sample_sigmas"].float().cpu()
            step = step_of(sigmas, timestep)
            if step > self._num_blended:  # in place: the sampler goes on with the same tensor
                x.copy_(self._blend.blend(x, step - 1, len(sigmas) - 1))
                self._num_blended = step
        conds = [self.conds["positive"], self.conds["negative"]]
        cond, uncond = comfy.samplers.calc_cond_batch(self.inner_model, conds, x, timestep, model_options)
        if any(model_options.get(hook) for hook in HOOKS):
            scales = self.scales.to(x).reshape(-1, 1, 1, 1)  # hooks multiply by the scale, so one per row works
            return apply_hooks(self.inner_model, [cond, uncond], scales, conds, x, timestep, model_options)
        return guide_text(cond, uncond, self.scales)


def latent_shape(vae, width: int, height: int) -> tuple[int, int, int]:
    """Return C, H, W of the latents of a picture.

    Raises:
        ModelMismatch: if no VAE is connected.
        BadImageSize: if the size does not fit the VAE.
    """
    if vae is None or getattr(vae, "first_stage_model", None) is None:
        raise ModelMismatch('There is no autoencoder on "vae"; connect the VAE of Load InstructPix2Pix.')
    factor = vae.spacial_compression_decode()
    if width % factor or height % factor:
        raise BadImageSize(
            f"The size {width}x{height} is not a multiple of {factor}. Choose multiples of {8 * factor}."
        )
    return 4, height // factor, width // factor


def identity(model, clip, vae) -> Hashable:
    """Say which weights and patches these are; the host gives every load and every patch a new number."""
    patchers = model, clip.patcher, vae.patcher
    return tuple((id(one.model), str(one.patches_uuid)) for one in patchers)


def read_caption(clip) -> Callable[[str], Caption]:
    """Return a function that cuts a caption into the tokens of the host's tokenizer."""
    tokenizer = text.clip_tokenizer(clip)
    names = {number: token for token, number in tokenizer.get_vocab().items()}

    def read(caption: str) -> Caption:
        return Caption(tuple(names[number] for number in tokenizer(caption)["input_ids"][1:-1]))

    return read


def sample_pairs(  # noqa: PLR0913
    model,
    clip,
    vae,
    draws: Sequence[PairDraw],
    triplet: Triplet,
    settings: PairSettings,
    *,
    sampler_name: str,
    sigmas: Tensor,
    shape: tuple[int, int, int],
    callback: Callable[[int, Tensor, Tensor, int], None] | None = None,
) -> Tensor:
    """Make one batch of pairs.

    Args:
        model: MODEL of a text-to-image U-Net.
        clip: the host's CLIP.
        vae: the host's VAE.
        draws: the samples.
        triplet: their texts.
        settings: how they share attention.
        sampler_name: one of the host's samplers.
        sigmas: noise levels, decreasing.
        shape: C, H, W of the latents.
        callback: the host's, called once per step; its own preview by default.

    Returns:
        Pictures [2 * samples, H, W, 3] in [0, 1]: original, edited, original, edited and so on.
    """
    triplets, rows, read = [triplet] * len(draws), batch_rows(draws), read_caption(clip)
    blend = make_blend(draws, triplets, settings, read, (shape[1], shape[2]))
    is_paper_text = settings.mode == "paper_text"
    sharing = make_sharing(draws, triplets, settings, read)
    shared = share_attention(model, sharing, edits_cross_attention=is_paper_text, blend=blend)
    guider = PairGuider(shared, [draws[row.draw].text_guidance_scale for row in rows], blend)
    captions = row_captions(rows, triplets)
    guider.inner_set_conds(
        {
            "positive": text.encode_texts(clip, captions, {}),
            "negative": text.encode_texts(clip, [""] * len(captions), {}),
        }
    )
    seeds = [draws[row.draw].seed for row in rows]
    latent = {"samples": torch.zeros(len(seeds), *shape)}
    result = sampling.run_guider(guider, latent, sampler_name, sigmas, seeds[0], seeds=seeds, callback=callback)
    latents = result["samples"]
    if blend is not None:
        latents = blend.blend(latents, len(sigmas) - 2, len(sigmas) - 1)
    return codec.decode(vae, latents)[pair_rows(rows)]
