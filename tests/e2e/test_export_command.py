"""`ip2p export`: both layouts, number formats, and the difference of an editor added to another model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionInstructPix2PixPipeline, StableDiffusionPipeline

from ip2p.ip2p_core.checkpoint import read_checkpoint
from ip2p.tests import tiny
from ip2p.trainer.__main__ import main


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("export_models")
    tiny.tiny_editor(folder / "editor_a.safetensors", dtype=torch.float32)
    tiny.tiny_editor(folder / "base.safetensors", in_channels=4, dtype=torch.float32, seed=1)
    tiny.tiny_editor(folder / "other.safetensors", in_channels=4, dtype=torch.float32, seed=2)
    return folder


def export(bases: Path, output: Path, *arguments: str, model: str = "editor_a") -> int:
    return main(["export", model, "-o", str(output), "--models", str(bases), *arguments])


def parts(path: Path):
    return read_checkpoint(path).parts()


def same_weights(one, other, **tolerance) -> None:
    for ours, theirs in zip(one[:3], other[:3], strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours:
            torch.testing.assert_close(ours[name].float(), theirs[name].float(), **tolerance)


def test_a_model_goes_into_a_diffusers_folder_and_back_without_a_change(bases, tmp_path):
    assert export(bases, tmp_path / "folder", "--precision", "fp32") == 0
    same_weights(parts(tmp_path / "folder"), parts(bases / "editor_a.safetensors"), atol=0, rtol=0)
    assert (
        main(
            [
                "export",
                "folder",
                "-o",
                str(tmp_path / "back.safetensors"),
                "--models",
                str(tmp_path),
                "--precision",
                "fp32",
            ]
        )
        == 0
    )
    same_weights(parts(tmp_path / "back.safetensors"), parts(bases / "editor_a.safetensors"), atol=0, rtol=0)


@pytest.mark.filterwarnings("ignore:__array__")  # diffusers' scheduler
@pytest.mark.parametrize(
    ("model", "pipeline"), [("editor_a", StableDiffusionInstructPix2PixPipeline), ("base", StableDiffusionPipeline)]
)
def test_the_pipelines_of_diffusers_open_the_folder(bases, tmp_path, model, pipeline):
    export(bases, tmp_path / "folder", "--precision", "fp32", model=model)
    opened = pipeline.from_pretrained(tmp_path / "folder")
    ids = opened.tokenizer("a photo of a Cat's hat", padding="max_length", truncation=True).input_ids
    from ip2p.ip2p_core.open_clip_adapter import tokenize

    assert ids == tokenize("a photo of a Cat's hat")
    stored = parts(bases / f"{model}.safetensors")
    for name, value in opened.unet.state_dict().items():
        assert torch.equal(value, stored.unet[name])
    embeds = opened.text_encoder(torch.tensor([ids])).last_hidden_state
    from ip2p.trainer.diffusers_adapter import load_editor, load_generator

    ours = (load_editor if model == "editor_a" else load_generator)(bases / f"{model}.safetensors", device="cpu")
    torch.testing.assert_close(ours.text.encode(["a photo of a Cat's hat"]).embeds, embeds)


@pytest.mark.parametrize(("precision", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_weights_are_stored_in_the_format_asked_for(bases, tmp_path, precision, dtype):
    export(bases, tmp_path / "small.safetensors", "--precision", precision)
    stored = read_checkpoint(tmp_path / "small.safetensors").state
    assert {value.dtype for value in stored.values() if value.is_floating_point()} == {dtype}


def test_the_difference_of_an_editor_makes_another_model_one(bases, tmp_path):
    assert export(bases, tmp_path / "sum.safetensors", "--precision", "fp32", "--onto", "other", "--minus", "base") == 0
    made, editor, base, other = (
        parts(path)
        for path in (tmp_path / "sum.safetensors", *(bases / f"{n}.safetensors" for n in ("editor_a", "base", "other")))
    )
    name = "mid_block.attentions.0.proj_in.weight"
    torch.testing.assert_close(made.unet[name], other.unet[name] + (editor.unet[name] - base.unet[name]))
    first = "conv_in.weight"
    torch.testing.assert_close(made.unet[first][:, 4:], editor.unet[first][:, 4:])
    torch.testing.assert_close(
        made.unet[first][:, :4], other.unet[first] + (editor.unet[first][:, :4] - base.unet[first])
    )
    assert torch.equal(made.vae["post_quant_conv.weight"], other.vae["post_quant_conv.weight"])


def test_models_that_do_not_belong_together_are_refused(bases, tmp_path, capsys):
    tiny.tiny_editor(bases / "v.safetensors", in_channels=4, prediction_type="v")
    assert export(bases, tmp_path / "a.safetensors", "--onto", "v", "--minus", "base") == 2
    assert "predicts v, the editor eps" in capsys.readouterr().err
    assert export(bases, tmp_path / "a.safetensors", "--onto", "other") == 2
    assert "belong together" in capsys.readouterr().err
    (tmp_path / "a.safetensors").write_bytes(b"")
    assert export(bases, tmp_path / "a.safetensors") == 2
    assert "is there already" in capsys.readouterr().err
