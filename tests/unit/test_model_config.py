from __future__ import annotations

import dataclasses
import json

import pytest

from ip2p.ip2p_core.checkpoint import require_editor
from ip2p.ip2p_core.errors import CheckpointError, ModelMismatch
from ip2p.ip2p_core.model_config import ModelConfig, family_config


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl", "cosxl"])
def test_the_record_survives_json(family):
    config = family_config(family, 8)
    assert ModelConfig.from_json(config.to_json()) == config


def test_unknown_keys_newer_formats_and_other_text_are_refused():
    record = json.loads(family_config("sd1", 8).to_json())
    cases = {
        "unknown key 'colour'": record | {"colour": 1},
        "format version is 2; this version of the pack reads 1": record | {"format_version": 2},
        "format version is None": {},
        "not a JSON object": [1],
    }
    for words, wrong in cases.items():
        with pytest.raises(CheckpointError, match=words):
            ModelConfig.from_json(json.dumps(wrong))
    with pytest.raises(CheckpointError, match="is not JSON"):
        ModelConfig.from_json("{")


def test_sizes_follow_from_the_autoencoder():
    config = family_config("sd1", 8)
    assert (config.vae_factor, config.scaling_factor) == (8, 0.18215)
    assert family_config("sdxl", 8).scaling_factor == 0.13025


def test_only_cosxl_scales_its_image_latents():
    scales = {family: family_config(family, 8).image_latent_scale for family in ("sd1", "sd2", "sdxl", "cosxl")}
    assert scales == {"sd1": "none", "sd2": "none", "sdxl": "none", "cosxl": "scaled"}


@pytest.mark.parametrize("in_channels", [4, 9])
def test_a_model_that_cannot_edit_is_refused(in_channels):
    config = dataclasses.replace(family_config("sd1", 8), in_channels=in_channels)
    with pytest.raises(ModelMismatch, match=f"has {in_channels} input channels; InstructPix2Pix needs 8"):
        require_editor(config)
    require_editor(family_config("sd1", 8))
