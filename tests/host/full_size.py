"""Run one edit with a full-size model in a process of its own, and print its peak memory: see test_full_size.py."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import torch


def main(comfy_root: str, model_path: str, result_path: str) -> None:
    """Load, edit a picture of 256 pixels in 2 steps on the CPU, save the result."""
    sys.path.insert(0, comfy_root)
    from comfy.cli_args import args

    args.cpu, args.use_pytorch_cross_attention = True, True
    from ip2p.nodes import edit_steps
    from ip2p.nodes.comfy_adapter import loading

    with torch.inference_mode():
        loaded = loading.load(Path(model_path))
        image = torch.linspace(0, 1, 256).expand(256, 256)[None, ..., None].repeat(1, 1, 1, 3)
        conditioned = edit_steps.condition(loaded.clip, loaded.vae, image, "make it black and white", "", 256)
        guidance = edit_steps.guidance_settings(loaded.model, 7.5, 1.5)
        plan = {"seed": 1, "steps": 2, "sampler_name": "euler", "scheduler": "normal"}
        sampled = edit_steps.sample(loaded.model, conditioned, guidance, **plan)
        edited = edit_steps.decode(loaded.vae, sampled.latent, image)
    torch.save({"latent": sampled.latent["samples"], "image": edited}, result_path)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    sys.stdout.write(json.dumps({"peak_bytes": peak, "shape": list(edited.shape)}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
