"""A full-size SD1.5 editor with random weights, as the original single file and as a diffusers folder (soak)."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from ip2p.ip2p_core.checkpoint_layout import ModelParts, join_parts
from ip2p.ip2p_core.model_config import family_config

MOST_BYTES = 8 * 2**30


def random_weights(module, generator):
    """Half-precision weights that keep activations finite: unit norms, and matrices scaled by their fan-in."""
    state = {}
    for name, value in module.state_dict().items():
        if value.ndim < 2:
            state[name] = (torch.ones if name.endswith("weight") else torch.zeros)(value.shape, dtype=torch.float16)
        else:
            scale = value[0].numel() ** -0.5
            state[name] = (torch.randn(value.shape, generator=generator) * scale).half()
    return state


@pytest.fixture(scope="module")
def full_size(tmp_path_factory):
    """The same weights twice: the original single-file layout without any description, and a diffusers folder."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    config = family_config("sd1", 8)
    with torch.device("meta"):
        modules = (
            UNet2DConditionModel(**config.unet),
            AutoencoderKL(**config.vae),
            CLIPTextModel(CLIPTextConfig(**config.text_encoder)),
        )
    generator = torch.Generator().manual_seed(0)
    states = [random_weights(module, generator) for module in modules]
    base = tmp_path_factory.mktemp("full_size")
    save_file(join_parts(ModelParts(*states), config, "sd1"), base / "instruct-pix2pix-00-22000.safetensors")
    folder, names = base / "folder", ("unet", "vae", "text_encoder")
    for name, module, state in zip(names, modules, states, strict=True):
        (folder / name).mkdir(parents=True)
        written = module.config.to_dict() if name == "text_encoder" else dict(module.config)
        (folder / name / "config.json").write_text(json.dumps(written, default=str))
        file = "model.safetensors" if name == "text_encoder" else "diffusion_pytorch_model.safetensors"
        save_file(state, folder / name / file)
    return base / "instruct-pix2pix-00-22000.safetensors", folder


@pytest.mark.soak
def test_a_full_size_model_of_either_layout_edits_in_less_than_8_gb(full_size, comfy_root, tmp_path):
    results = []
    for number, path in enumerate(full_size):
        result = tmp_path / f"{number}.pt"
        run = subprocess.run(
            [sys.executable, "-m", "ip2p.tests.host.full_size", str(comfy_root), str(path), str(result)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert run.returncode == 0, run.stderr[-3000:]
        report = json.loads(run.stdout.strip().splitlines()[-1])
        assert report["shape"] == [1, 256, 256, 3]
        assert report["peak_bytes"] < MOST_BYTES, f"{path.name} took {report['peak_bytes'] / 2**30:.1f} GB"
        results.append(torch.load(result, weights_only=True))  # noqa: TID251 - our own result
    torch.testing.assert_close(results[0]["latent"], results[1]["latent"])
    assert torch.isfinite(results[0]["latent"]).all()
