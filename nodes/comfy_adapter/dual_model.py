"""Dual guidance for a plain KSampler: wrappers on the model, no slot of another node taken.

The sampler's positive is `full`, its negative is `image`, its cfg is s_T. The third branch, `uncond`, is made from
`image` by taking its image latents away.
"""

from __future__ import annotations

import math
import uuid

import comfy.conds
import torch
from comfy.patcher_extension import WrappersMP

from ...ip2p_core.guidance import GuidanceScales, Predictions, guide, needed_branches
from .guider import expand_conds, start_latents
from .roles import check_options

KEY = "ip2p_dual_cfg"


def add_dual_guidance(model, image_guidance_scale: float):
    """Return a clone of the model that a plain KSampler guides with two scales.

    Args:
        model: an editor.
        image_guidance_scale: s_I.

    Returns:
        The clone.
    """
    patched = model.clone()
    guidance = _DualGuidance(image_guidance_scale)
    patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, guidance.outer_sample)
    patched.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, KEY, guidance.sampler_sample)
    patched.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, KEY, guidance.predict_noise)
    patched.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, KEY, guidance.calc_cond_batch)
    return patched


class _DualGuidance:
    """The wrappers; what belongs to one run travels in transformer_options, nothing is kept here."""

    def __init__(self, image_guidance_scale: float) -> None:
        self.image_guidance_scale = image_guidance_scale

    @staticmethod
    def outer_sample(executor, noise, *args, **kwargs):
        """Check the wiring once, and give the conditionings the full batch."""
        guider = executor.class_obj
        for key, role in (("positive", "full"), ("negative", "image")):
            for cond in guider.conds.get(key, []):
                check_options(cond, role, socket=f"{key} of the sampler")
        guider.conds = expand_conds(guider.conds, noise)
        return executor(noise, *args, **kwargs)

    @staticmethod
    def sampler_sample(executor, guider, sigmas, extra_args, callback, noise, latents, denoise_mask, *args):
        """Start a full run from noise alone."""
        latents = start_latents(guider, executor.class_obj, sigmas, latents, denoise_mask)
        return executor(guider, sigmas, extra_args, callback, noise, latents, denoise_mask, *args)

    @staticmethod
    def predict_noise(executor, x, timestep, model_options={}, seed=None):  # noqa: B006 - the host's signature
        """Tell the inner wrapper s_T, and the conditioning that the host drops at s_T = 1."""
        guider = executor.class_obj
        options = dict(model_options.get("transformer_options", {}))
        options[KEY] = (float(guider.cfg), guider.conds.get("negative"))
        return executor(x, timestep, {**model_options, "transformer_options": options}, seed)

    def calc_cond_batch(self, executor, model, conds, x, timestep, model_options):
        """Predict three branches instead of two, and return the pair that the host's guidance turns into eq. 3."""
        options = dict(model_options.get("transformer_options", {}))
        s_T, image_conds = options.pop(KEY, (None, None))
        model_options = {**model_options, "transformer_options": options}
        if s_T is None or len(conds) != 2 or not image_conds:
            return executor(model, conds, x, timestep, model_options)
        scales = GuidanceScales(text_guidance_scale=s_T, image_guidance_scale=self.image_guidance_scale)
        needed = needed_branches(scales)
        wanted = [
            without_image(image_conds) if needed.uncond else None,
            image_conds if needed.image else None,
            conds[0],
        ]
        uncond, image, full = executor(model, wanted, x, timestep, model_options)
        predictions = Predictions(
            full=full, image=image if needed.image else None, uncond=uncond if needed.uncond else None
        )
        guided = guide(predictions, scales)
        if math.isclose(s_T, 1.0):  # the host takes the first of the pair as it is
            return [guided, guided]
        return [full, (guided - s_T * full) / (1.0 - s_T)]


def without_image(conds: list[dict]) -> list[dict]:
    """Make `uncond` out of `image`: the same text, zeros for the image latents."""
    blank = []
    for cond in conds:
        concat = cond["model_conds"]["c_concat"]
        zeros = comfy.conds.CONDNoiseShape(torch.zeros_like(concat.cond))
        blank.append(
            {**cond, "uuid": uuid.uuid5(cond["uuid"], KEY), "model_conds": {**cond["model_conds"], "c_concat": zeros}}
        )
    return blank
