"""The guider: three predictions per step from the host, eq. 3 from the core.

Hooks of other nodes (RescaleCFG and its kin) expect two predictions and one scale; they get an equivalent pair.
"""

from __future__ import annotations

import comfy.model_base
import comfy.samplers
import comfy.utils
import torch
from torch import Tensor

from ...ip2p_core.errors import BadImageSize, BadInstruction, ModelMismatch
from ...ip2p_core.guidance import Branches, DualGuidance, GuidanceSettings, Predictions
from ...ip2p_core.relevance import RelevanceMeter
from .equal_rows import equal_rows_once

HOOKS = ("sampler_cfg_function", "sampler_pre_cfg_function", "sampler_post_cfg_function")
NEAR_ONE = 0.01
"""Closer than this to s_T = 1 the equivalent pair loses its precision, and another one is used."""
INSIDE = 0.999
"""A mask above this is all edit; resizing a mask of ones leaves some of it a rounding error below 1."""
BATCHED = ("cross_attn", "pooled_output", "concat_latent_image")


def require_editor(model) -> None:
    """Refuse a model that does not take image latents beside the noise.

    Raises:
        ModelMismatch: naming the channels seen.
    """
    unet_config = model.model.model_config.unet_config
    channels = unet_config.get("in_channels")
    if isinstance(model.model, comfy.model_base.IP2P) and channels == 8:
        return
    seen = f"{channels} input channels" if channels else f"the class {type(model.model).__name__}"
    raise ModelMismatch(
        f"The model has {seen}; InstructPix2Pix needs 8 (4 noisy + 4 image latents). "
        'Load an InstructPix2Pix checkpoint into "model".'
    )


class InstructGuider(comfy.samplers.CFGGuider):
    """Guidance with two scales. Sampling state is made anew for every run: the host keeps guiders between runs."""

    def __init__(self, model, settings: GuidanceSettings, meter: RelevanceMeter | None = None) -> None:
        super().__init__(model)
        self.settings = settings
        self.meter = meter
        self.cfg = settings.scales.text_guidance_scale  # read by logging and other people's wrappers
        self._guidance: DualGuidance | None = None
        self._sigmas: Tensor | None = None

    def set_conds(self, full: list, image: list, uncond: list) -> None:
        """Take the three conditionings; ControlNets spread from the key "positive" to the others."""
        self.inner_set_conds({"negative": uncond, "middle": image, "positive": full})

    def inner_sample(self, noise, latent_image, device, sampler, sigmas, denoise_mask, *args, **kwargs):
        """Prepare one run, then sample as the host does."""
        self.conds = expand_conds(self.conds, noise)
        latent_image = start_latents(self, sampler, sigmas, latent_image, denoise_mask)
        self._guidance = DualGuidance(self.settings, max(1, len(sigmas) - 1))
        self._sigmas = sigmas.float().cpu()
        with equal_rows_once(self.inner_model.diffusion_model):
            return super().inner_sample(noise, latent_image, device, sampler, sigmas, denoise_mask, *args, **kwargs)

    def predict_noise(self, x, timestep, model_options={}, seed=None):  # noqa: ARG002, B006 - the host's signature
        """Predict the guided denoised sample of one step."""
        step = step_of(self._sigmas, timestep)
        is_hooked = any(model_options.get(hook) for hook in HOOKS)
        branches = self._branches(step, is_hooked, model_options)
        predictions = self._predict(branches, x, timestep, model_options)
        if self.meter is not None:
            self.meter.add(predictions, timestep)
        guided = self._guidance.combine(predictions, x, timestep, step)
        if is_hooked:
            guided = self._through_hooks(guided, predictions, x, timestep, step, model_options)
        return guided

    def _branches(self, step: int, is_hooked: bool, model_options: dict) -> Branches:
        if model_options.get("disable_cfg1_optimization", False):
            return Branches(full=True, image=True, uncond=True)
        branches = self.settings.needed_branches(step, self._guidance.num_steps)
        return branches._replace(full=True) if is_hooked else branches

    def _predict(self, branches: Branches, x: Tensor, timestep: Tensor, model_options: dict) -> Predictions:
        keys = ("negative", "middle", "positive")  # the host's order; the last is its key branch for caching
        wanted = (branches.uncond, branches.image, branches.full)
        conds = [self.conds[key] if is_wanted else None for key, is_wanted in zip(keys, wanted, strict=True)]
        uncond, image, full = comfy.samplers.calc_cond_batch(self.inner_model, conds, x, timestep, model_options)
        return Predictions(
            full=full if branches.full else None,
            image=image if branches.image else None,
            uncond=uncond if branches.uncond else None,
        )

    def _through_hooks(self, guided, predictions, x, timestep, step, model_options):
        """Show the result to CFG hooks as an ordinary pair: u + s_T (full - u) = guided."""
        scale = self.settings.scales_at(step, self._guidance.num_steps).text_guidance_scale
        pair = equivalent_pair(guided, predictions, scale)
        scale = scale if abs(scale - 1.0) >= NEAR_ONE else 1.0
        conds = [self.conds["positive"], self.conds["middle"]]
        return apply_hooks(self.inner_model, pair, scale, conds, x, timestep, model_options)


def apply_hooks(model, pair: list[Tensor], scale, conds: list, x: Tensor, timestep: Tensor, model_options: dict):
    """Guide an ordinary pair [cond, uncond] through the CFG hooks of other nodes, as the host does."""
    for hook in model_options.get("sampler_pre_cfg_function", []):
        pair = hook(
            {
                "conds": conds,
                "conds_out": pair,
                "cond_scale": scale,
                "timestep": timestep,
                "sigma": timestep,
                "input": x,
                "model": model,
                "model_options": model_options,
            }
        )
    return comfy.samplers.cfg_function(
        model, pair[0], pair[1], scale, x, timestep, model_options=model_options, cond=conds[0], uncond=conds[1]
    )


def equivalent_pair(guided: Tensor, predictions: Predictions, scale: float) -> list[Tensor]:
    """Find [cond, uncond] whose plain guidance with this scale is `guided`.

    Near a scale of 1 no uncond can do it; there the pair is meant for a scale of exactly 1.
    """
    full = predictions.full
    if abs(scale - 1.0) >= NEAR_ONE:
        return [full, (guided - scale * full) / (1.0 - scale)]
    others = [p for p in (predictions.image, predictions.uncond) if p is not None]
    return [guided, others[0] if others else guided]


def step_of(sigmas: Tensor, timestep: Tensor) -> int:
    """Return the index of the step that a noise level belongs to; a level between two belongs to the earlier one."""
    sigma = float(timestep.flatten()[0]) * (1.0 - 1e-6)
    return max(0, int((sigmas[:-1] >= sigma).sum()) - 1)


def start_latents(guider, sampler, sigmas: Tensor, latents: Tensor, denoise_mask: Tensor | None) -> Tensor:
    """Let a full run start from noise alone, although the source latents are connected.

    The host adds the latents to the first noise; a run that keeps a region needs them there, and only there.
    """
    if latents is None or not sampler.max_denoise(guider, sigmas):
        return latents
    if denoise_mask is None:
        return torch.zeros_like(latents)
    return torch.where(denoise_mask > INSIDE, torch.zeros_like(latents), latents)


def expand_conds(conds: dict[str, list[dict]], noise: Tensor) -> dict[str, list[dict]]:
    """Give every conditioning the full batch: the host would tile texts a, b, a, b but image latents a, a, b, b.

    Raises:
        BadInstruction: if the batch of latents is not a multiple of that of the conditionings.
        BadImageSize: if image latents and noise differ in size (the host would resize them silently).
    """
    return {key: [_expand(cond, noise) for cond in entries] for key, entries in conds.items()}


def _expand(cond: dict, noise: Tensor) -> dict:
    expanded = dict(cond)
    for name in BATCHED:
        value = cond.get(name)
        if value is None:
            continue
        if noise.shape[0] % value.shape[0]:
            raise BadInstruction(
                f"There are {noise.shape[0]} latents for {value.shape[0]} conditioned images; the first must be a "
                "multiple of the second. Connect the latent of the same Instruct Conditioning."
            )
        expanded[name] = comfy.utils.repeat_to_batch_size(value, noise.shape[0])
    image_latents = expanded.get("concat_latent_image")
    if image_latents is not None and image_latents.shape[-2:] != noise.shape[-2:]:
        raise BadImageSize(
            f"The latent is {tuple(noise.shape[-2:])} cells (height, width) and the image latents "
            f"{tuple(image_latents.shape[-2:])}; they must be equal. Connect the latent of the same Instruct Conditioning."
        )
    return expanded
