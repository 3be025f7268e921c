"""Loading the pack changes nothing in ComfyUI's own modules."""

from __future__ import annotations

import os
import subprocess
import sys

from ip2p.tests.host.comfy_host import PACK_FOLDER, make_base_directory

PROGRAM = """
import asyncio, sys
sys.path.insert(0, {root!r})
from comfy.cli_args import args
args.cpu, args.base_directory = True, {base!r}
import nodes, folder_paths, latent_preview, execution
import comfy.samplers, comfy.sample, comfy.sd, comfy.model_base, comfy.model_patcher, comfy.k_diffusion.sampling
import comfy_extras.nodes_custom_sampler, comfy_extras.nodes_ip2p

def attributes():
    found = {{}}
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] not in ("comfy", "comfy_api", "comfy_extras", "nodes", "latent_preview", "execution"):
            continue
        for key, value in list(vars(module).items()):
            found[name, key] = id(value)
            if isinstance(value, type) and value.__module__.split(".")[0] in ("comfy", "comfy_extras", "comfy_api"):
                found.update({{(name, key, inner): id(one) for inner, one in vars(value).items() if callable(one)}})
    return found

before = attributes()
samplers = list(comfy.samplers.KSampler.SAMPLERS)
assert asyncio.run(nodes.load_custom_node({pack!r})), "the pack did not load"
assert "InstructEdit" in nodes.NODE_CLASS_MAPPINGS
after = attributes()
changed = [key for key, value in before.items() if after.get(key) != value]
changed = [key for key in changed if not (key[0].startswith("nodes") and key[1].isupper())]
assert not changed, changed
assert samplers == list(comfy.samplers.KSampler.SAMPLERS)
heavy = [name for name in ("diffusers", "open_clip", "pyarrow", "ip2p") if name in sys.modules]
assert not heavy, heavy
print("unchanged", len(before))
"""


def test_loading_the_pack_replaces_nothing_in_comfy(comfy_root, tmp_path):
    base = make_base_directory(tmp_path)
    program = PROGRAM.format(root=str(comfy_root), base=str(base), pack=str(base / "custom_nodes" / PACK_FOLDER))
    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert "unchanged" in run.stdout
