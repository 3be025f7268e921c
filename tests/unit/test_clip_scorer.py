"""CLIP scorers from files: what opens, and what is refused with one sentence."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ip2p.ip2p_core.checkpoint_files import write_tensors
from ip2p.ip2p_core.clip_checkpoint import ScorerConfig, write_scorer
from ip2p.ip2p_core.clip_scorer import CLIPScorer
from ip2p.ip2p_core.errors import BadImage, CheckpointError, ConfigError, ModelMismatch
from ip2p.ip2p_core.model_config import ModelConfig
from ip2p.tests.tiny_clip import MODEL_CFG, tiny_clip, tiny_scorer

PICTURES = torch.rand(2, 40, 36, 3, generator=torch.Generator().manual_seed(0))
STATE = tiny_clip().state_dict()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    tiny_scorer(tmp_path / "clip.safetensors")
    return tmp_path / "clip.safetensors"


def write_described(path: Path, state: dict[str, torch.Tensor], **changes: object) -> Path:
    write_scorer(path, state, ScorerConfig(**{"model_cfg": MODEL_CFG, **changes}))
    return path


def write_header(path: Path, header: str) -> Path:
    write_tensors(path, {"a": torch.zeros(1)}, {"ip2p.config": header})
    return path


def features(scorer: CLIPScorer) -> torch.Tensor:
    return torch.cat([scorer.embed_images(PICTURES), scorer.embed_texts(["a cat", "a dog"])])


def test_features_have_length_1(path):
    torch.testing.assert_close(features(CLIPScorer.from_file(path)).norm(dim=1), torch.ones(4))


def test_equal_texts_get_equal_features_in_their_places(path):
    rows = CLIPScorer.from_file(path).embed_texts(["a cat", "a dog", "a cat"])
    assert (bool((rows[0] == rows[2]).all()), bool((rows[0] == rows[1]).all())) == (True, False)


def test_no_pictures_and_no_texts_give_no_features(path):
    scorer = CLIPScorer.from_file(path)
    assert (scorer.embed_images(PICTURES[:0]).shape, scorer.embed_texts([]).shape) == ((0, 24), (0, 24))


def test_opening_a_scorer_leaves_the_random_state_alone(path):
    before = torch.random.get_rng_state()
    CLIPScorer.from_file(path)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_mean_and_std_of_the_file_are_used(path, tmp_path):
    statistics = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
    other = CLIPScorer.from_file(write_described(tmp_path / "other.safetensors", STATE, preprocess_cfg=statistics))
    assert not torch.allclose(features(other)[:2], features(CLIPScorer.from_file(path))[:2], atol=1e-3)


def test_a_config_beside_the_weights_describes_them(path, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    save_file(STATE, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": MODEL_CFG, "preprocess_cfg": {}}))
    beside = CLIPScorer.from_file(folder / "open_clip_model.safetensors")
    assert torch.equal(features(beside), features(CLIPScorer.from_file(path)))


@pytest.mark.parametrize("prefix", ["", "module."])
def test_plain_pickles_of_weights_open(path, tmp_path, prefix):
    torch.save({"state_dict": {prefix + name: value for name, value in STATE.items()}}, tmp_path / "clip.pt")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": MODEL_CFG}))
    assert torch.equal(features(CLIPScorer.from_file(tmp_path / "clip.pt")), features(CLIPScorer.from_file(path)))


def test_weights_without_a_text_tower_of_their_own_fit_a_model_that_has_one(path, tmp_path):
    custom = write_described(tmp_path / "custom.safetensors", STATE, model_cfg={**MODEL_CFG, "custom_text": True})
    torch.testing.assert_close(features(CLIPScorer.from_file(custom)), features(CLIPScorer.from_file(path)))


def test_half_precision_weights_are_scored_in_single_precision(path, tmp_path):
    halves = write_described(tmp_path / "half.safetensors", {name: value.half() for name, value in STATE.items()})
    found = features(CLIPScorer.from_file(halves))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, features(CLIPScorer.from_file(path)), atol=0.02, rtol=0)


def test_a_text_that_fits_is_not_cut(path):
    assert CLIPScorer.from_file(path).cut_text("word " * 75) == ""


def test_the_part_of_a_text_that_is_cut_is_named(path):
    assert CLIPScorer.from_file(path).cut_text("word " * 75 + "Red Square") == "red square"


def test_what_is_cut_does_not_change_the_features(path):
    one, other = CLIPScorer.from_file(path).embed_texts(["word " * 75 + "red", "word " * 75 + "blue green"])
    assert torch.equal(one, other)


def test_different_numbers_of_pictures_and_captions_are_refused(path):
    with pytest.raises(ConfigError, match="2 original images, 1 edited images, 2 captions, 2 edited captions"):
        CLIPScorer.from_file(path).score(PICTURES, PICTURES[:1], ["a", "b"], ["a", "b"])


@pytest.mark.parametrize(
    "wrong", [PICTURES * 2 - 1, PICTURES * 255, PICTURES * torch.nan], ids=["-1..1", "bytes", "nan"]
)
def test_pictures_outside_0_to_1_are_refused(path, wrong):
    with pytest.raises(BadImage, match="CLIP scores need them within 0 and 1"):
        CLIPScorer.from_file(path).embed_images(wrong)


def test_a_file_that_is_missing_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="There is no model file"):
        CLIPScorer.from_file(tmp_path / "none.safetensors", "ViT-B-32")


def test_a_file_that_is_cut_off_is_refused(tmp_path):
    whole = write_described(tmp_path / "whole.safetensors", STATE, recipe="drawn at random")
    whole.write_bytes(whole.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"whole\.safetensors is cut off, damaged"):
        CLIPScorer.from_file(whole)


@pytest.mark.parametrize("start", ["visual.", "token"], ids=["no image tower", "no text tower"])
def test_a_file_with_one_tower_is_refused(tmp_path, start):
    is_visual = start == "visual."
    kept = {name: value for name, value in STATE.items() if name.startswith("visual.") != is_visual}
    with pytest.raises(ModelMismatch, match=f"has no {'image' if is_visual else 'text'} tower"):
        CLIPScorer.from_file(write_described(tmp_path / "half.safetensors", kept))


def test_a_description_without_a_text_tower_is_refused(tmp_path):
    described = {name: value for name, value in MODEL_CFG.items() if name != "text_cfg"}
    with pytest.raises(ModelMismatch, match="describes no text tower"):
        CLIPScorer.from_file(write_described(tmp_path / "clip.safetensors", STATE, model_cfg=described))


@pytest.mark.parametrize("change", [{"vocab_size": 1000}, {"hf_tokenizer_name": "bert-base-uncased"}])
def test_a_model_of_another_vocabulary_is_refused(tmp_path, change):
    described = MODEL_CFG | {"text_cfg": {**MODEL_CFG["text_cfg"], **change}}
    with pytest.raises(ModelMismatch, match="does not read CLIP's own 49408 tokens"):
        CLIPScorer.from_file(write_described(tmp_path / "clip.safetensors", STATE, model_cfg=described))


def test_an_editor_is_refused_by_its_kind(tmp_path):
    with pytest.raises(ModelMismatch, match="is of the kind 'editor'; scoring needs a CLIP model"):
        CLIPScorer.from_file(write_header(tmp_path / "editor.safetensors", ModelConfig().to_json()))


def test_a_newer_format_is_refused(tmp_path):
    header = json.dumps({"kind": "clip", "format_version": 2})
    with pytest.raises(
        CheckpointError, match=r"format version of new\.safetensors is 2; this version of the pack reads 1"
    ):
        CLIPScorer.from_file(write_header(tmp_path / "new.safetensors", header))


def test_a_header_that_is_no_json_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"The ip2p\.config of broken\.safetensors is not JSON"):
        CLIPScorer.from_file(write_header(tmp_path / "broken.safetensors", "{"))


def test_a_file_that_nothing_describes_asks_for_the_architecture(tmp_path):
    save_file(STATE, tmp_path / "clip.safetensors")
    with pytest.raises(ConfigError, match="does not say which architecture it has"):
        CLIPScorer.from_file(tmp_path / "clip.safetensors")


def test_an_unknown_architecture_is_refused(tmp_path):
    save_file(STATE, tmp_path / "clip.safetensors")
    with pytest.raises(ConfigError, match="open_clip has no architecture 'ViT-Tiny'"):
        CLIPScorer.from_file(tmp_path / "clip.safetensors", "ViT-Tiny")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"visual.conv1.weight": torch.zeros(32, 3, 4, 4)}, r"visual.conv1.weight has the shape \[32, 3, 4, 4\]"),
        ({"ln_final.bias": None}, "ln_final.bias is missing"),
        ({"visual.extra": torch.zeros(1)}, "there is no place for visual.extra"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path, change, reason):
    state = {name: value for name, value in {**STATE, **change}.items() if value is not None}
    with pytest.raises(CheckpointError, match=f"does not fit the architecture: {reason}"):
        CLIPScorer.from_file(write_described(tmp_path / "clip.safetensors", state))


@pytest.mark.parametrize("statistics", [{"mean": [0.5]}, {"std": [1.0, 0.0, 1.0]}])
def test_a_mean_or_std_without_three_usable_numbers_is_refused(tmp_path, statistics):
    with pytest.raises(CheckpointError, match="it needs three numbers"):
        CLIPScorer.from_file(write_described(tmp_path / "clip.safetensors", STATE, preprocess_cfg=statistics))


class Touch:
    """Unpickling this would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_code_in_a_pickle_is_not_run(tmp_path):
    torch.save({"a": Touch(tmp_path / "ran")}, tmp_path / "clip.pt")
    with pytest.raises(CheckpointError, match="is a pickle that contains code"):
        CLIPScorer.from_file(tmp_path / "clip.pt", "ViT-B-32")
    assert not (tmp_path / "ran").exists()


def test_a_torchscript_archive_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "ViT-L-14.pt", "w") as archive:
        archive.writestr("ViT-L-14/code/__torch__/model.py", "")
    with pytest.raises(CheckpointError, match="is a TorchScript archive, which holds code"):
        CLIPScorer.from_file(tmp_path / "ViT-L-14.pt", "ViT-L-14-quickgelu")
