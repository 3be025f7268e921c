"""Child process: the same edit inside ComfyUI, by our node and by the host's own nodes. Prints one line of JSON.

Usage: python -m ip2p.benchmarks.in_host COMFYUI_FOLDER MODEL SIZE STEPS ROUNDS
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from .timing import measure

INSTRUCTION = "make it black and white"
SEED = 1


def main(comfy_root: str, model: str, size: str, steps: str, num_rounds: str) -> None:
    """Time both in one process, taking turns."""
    pack = Path(__file__).resolve().parents[1]
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != pack]
    sys.path.insert(0, comfy_root)
    from comfy.cli_args import args

    args.cpu, args.use_pytorch_cross_attention = True, True
    from ..nodes.comfy_adapter import loading

    with torch.inference_mode():
        loaded = loading.load(Path(model))
        coarse = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        image = torch.nn.functional.interpolate(coarse, size=(int(size), int(size)), mode="bilinear").movedim(1, -1)
        contenders = {
            "host's own nodes": lambda: core_edit(loaded, image, int(steps)),
            "our node": lambda: our_edit(loaded, image, int(steps), 1.5),
            "our node, s_I = 1 (two branches)": lambda: our_edit(loaded, image, int(steps), 1.0),
        }
        seconds = measure(contenders, int(num_rounds))
    sys.stdout.write(json.dumps(seconds) + "\n")


def our_edit(loaded: Any, image: torch.Tensor, steps: int, image_guidance_scale: float) -> object:
    """What the node InstructEdit does."""
    from ..nodes import edit_steps

    conditioned = edit_steps.condition(loaded.clip, loaded.vae, image, INSTRUCTION, "", image.shape[1])
    guidance = edit_steps.guidance_settings(loaded.model, 7.5, image_guidance_scale)
    plan = {"seed": SEED, "steps": steps, "sampler_name": "euler_ancestral", "scheduler": "normal"}
    sampled = edit_steps.sample(loaded.model, conditioned, guidance, **plan)
    return edit_steps.decode(loaded.vae, sampled.latent, image)


def core_edit(loaded: Any, image: torch.Tensor, steps: int) -> object:
    """The same by InstructPixToPixConditioning, DualCFGGuider and SamplerCustomAdvanced."""
    import comfy.samplers
    from comfy_extras import nodes_custom_sampler
    from comfy_extras.nodes_ip2p import InstructPixToPixConditioning

    def encode(text: str) -> Any:
        return loaded.clip.encode_from_tokens_scheduled(loaded.clip.tokenize(text))

    null = encode("")
    conditioned = InstructPixToPixConditioning.execute(encode(INSTRUCTION), null, image, loaded.vae).result
    guider = nodes_custom_sampler.Guider_DualCFG(loaded.model)
    guider.set_conds(conditioned[0], conditioned[1], null)
    guider.set_cfg(7.5, 1.5)
    sampler = comfy.samplers.sampler_object("euler_ancestral")
    sigmas = comfy.samplers.calculate_sigmas(loaded.model.get_model_object("model_sampling"), "normal", steps)
    noise = nodes_custom_sampler.Noise_RandomNoise(SEED)
    sampled = nodes_custom_sampler.SamplerCustomAdvanced.execute(noise, guider, sampler, sigmas, conditioned[2]).result
    return loaded.vae.decode(sampled[0]["samples"])


if __name__ == "__main__":
    main(*sys.argv[1:])
