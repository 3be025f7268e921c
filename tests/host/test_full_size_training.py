"""A full-size SD1.5 editor trained for one step, and its file in the host's own checkpoint loader (soak)."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from PIL import Image

from ip2p.tests.e2e import train_cases
from ip2p.tests.e2e.conftest import command
from ip2p.tests.forked import ENVIRONMENT
from ip2p.tests.host.comfy_host import node
from ip2p.tests.host.test_full_size import full_size  # noqa: F401 - the fixture


@pytest.mark.soak
def test_the_file_of_a_full_size_training_opens_in_the_hosts_own_loader(full_size, comfy_server, tmp_path):  # noqa: F811
    models = full_size[0].parent
    dataset = train_cases.make_dataset(tmp_path / "data", 2, num_val=0, side=64)
    changes = {"base": full_size[0].name, "name": "trained", "resolution": 64, "steps": 1, "batch_size": 1}
    config = train_cases.write_config(
        tmp_path,
        models,
        dataset,
        **changes,
        micro_batch_size=1,
        lora_rank=4,
        cache_views=1,
        gradient_checkpointing=True,
    )
    done = subprocess.run(command("train", config), env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    checkpoint = comfy_server.base / "models" / "checkpoints" / "trained_full_size.safetensors"
    shutil.move(models / "ip2p" / "trained.safetensors", checkpoint)
    picture = comfy_server.put_input(Image.linear_gradient("L").resize((64, 64)).convert("RGB"), "full_size.png")
    prompt = {
        "1": node("CheckpointLoaderSimple", ckpt_name=checkpoint.name),
        "2": node("LoadImage", image=picture),
        "3": node("CLIPTextEncode", clip=["1", 1], text="make it blue"),
        "4": node("CLIPTextEncode", clip=["1", 1], text=""),
        "5": node("InstructPixToPixConditioning", positive=["3", 0], negative=["4", 0], vae=["1", 2], pixels=["2", 0]),
        "6": node(
            "KSampler", model=["1", 0], positive=["5", 0], negative=["5", 1], latent_image=["5", 2], seed=1, steps=2,
            cfg=5.0, sampler_name="euler", scheduler="normal", denoise=1.0,
        ),
        "7": node("VAEDecode", samples=["6", 0], vae=["1", 2]),
        "8": node("SaveImage", images=["7", 0], filename_prefix="full_size"),
    }  # fmt: skip
    (edited,) = comfy_server.images(comfy_server.run(prompt, seconds=900))
    assert edited.size == (64, 64)
