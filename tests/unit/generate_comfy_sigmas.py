"""Print ComfyUI's own noise levels for data/comfy_sigmas.json.

Run with ComfyUI's folder as the working directory and on the path (numbers: ComfyUI 0.33.0, 783545f):
    cd ~/comfy/ComfyUI && PYTHONPATH=. python <pack>/tests/unit/generate_comfy_sigmas.py > comfy_sigmas.json
"""

from __future__ import annotations

import json
import sys

from comfy.cli_args import args

args.cpu = True

import comfy.model_sampling  # noqa: E402
import comfy.samplers  # noqa: E402
import torch  # noqa: E402

SCHEDULERS = ("normal", "karras", "simple", "sgm_uniform")
PROBES = (0.03, 0.1, 0.7, 1.0, 2.5, 9.99, 14.6)

model_sampling = comfy.model_sampling.ModelSamplingDiscrete()
table = {
    name: {
        str(steps): comfy.samplers.calculate_sigmas(model_sampling, name, steps).tolist()
        for steps in (1, 2, 7, 20, 100)
    }
    for name in SCHEDULERS
}
table["timestep"] = {str(sigma): int(model_sampling.timestep(torch.tensor(sigma))) for sigma in PROBES}
json.dump(table, sys.stdout)
