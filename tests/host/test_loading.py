"""The loader: every layout and family, complete weights, reload factories, and clear refusals."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import replace

import numpy
import pytest
import torch
from safetensors.torch import load_file, save_file

from ip2p.ip2p_core.errors import CheckpointError, ModelMismatch
from ip2p.tests import tiny
from ip2p.tests.host.test_edit import edit


def load(path, vae_path=None):
    from ip2p.nodes.comfy_adapter import loading

    return loading.load(path, vae_path)


def write_folder(models: tiny.TinyModels, folder):
    """Save a tiny model as diffusers and transformers do."""
    models.unet.save_pretrained(folder / "unet")
    models.vae.save_pretrained(folder / "vae")
    models.text.save_pretrained(folder / "text_encoder")
    (folder / "scheduler").mkdir()
    prediction = {"eps": "epsilon", "v": "v_prediction"}[models.config.prediction_type]
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({"prediction_type": prediction}))
    (folder / "model_index.json").write_text("{}")
    return folder


@pytest.mark.parametrize("prediction_type", ["eps", "v"])
@pytest.mark.parametrize("factor", [4, 8])
def test_a_file_and_a_diffusers_folder_of_the_same_weights_edit_alike(comfy, tmp_path, photo, prediction_type, factor):
    path = tmp_path / "editor.safetensors"
    models = tiny.tiny_editor(path, prediction_type=prediction_type, factor=factor)
    folder = write_folder(models, tmp_path / "folder")
    options = {"seed": 1, "working_resolution": 64, "text_guidance_scale": 4.0, "sampler_name": "euler"}
    from_file, latent = edit(load(path), photo[:1, :48, :64], **options)
    from_folder, other = edit(load(folder), photo[:1, :48, :64], **options)
    assert latent["samples"].shape[-2:] == (48 // factor, 64 // factor)
    torch.testing.assert_close(from_file, from_folder, rtol=0, atol=2 / 255)
    torch.testing.assert_close(latent["samples"], other["samples"], rtol=1e-2, atol=1e-2)


def test_v_prediction_is_not_read_as_eps(comfy, tmp_path):
    from comfy.model_base import ModelType

    for prediction_type, model_type in (("eps", ModelType.EPS), ("v", ModelType.V_PREDICTION)):
        path = tmp_path / f"{prediction_type}.safetensors"
        tiny.tiny_editor(path, prediction_type=prediction_type)
        assert load(path).model.model.model_type == model_type


def test_the_network_predicts_what_diffusers_predicts(comfy, tmp_path):
    path = tmp_path / "editor.safetensors"
    models = tiny.tiny_editor(path, dtype=torch.float32)
    network = load(path).model.model.diffusion_model
    x, t, context = torch.randn(2, 8, 16, 12), torch.tensor([1.0, 700.0]), torch.randn(2, 77, tiny.TEXT_WIDTH)
    reference = models.unet(x, t, context).sample
    ours = network.float()(x, t, context=context)
    torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-5)


def test_the_text_encoder_gives_what_transformers_gives(comfy, tmp_path):
    from ip2p.nodes.comfy_adapter import text

    path = tmp_path / "editor.safetensors"
    models = tiny.tiny_editor(path)
    clip = load(path).clip
    (row,) = text._tokens(clip, "make it black and white")["l"]
    ids = torch.tensor([[token for token, _ in row]])
    reference = models.text(ids).last_hidden_state
    conditioning = text.encode_texts(clip, ["make it black and white"], {})
    torch.testing.assert_close(conditioning[0][0], reference, rtol=1e-3, atol=1e-3)


def test_image_latents_are_the_raw_mode_of_the_autoencoder(editor, comfy, tmp_path, photo):
    from ip2p.nodes.comfy_adapter import codec

    path = tmp_path / "editor.safetensors"
    models = tiny.tiny_editor(path)
    image = photo[:1, :48, :64]
    reference = models.vae.encode(image.movedim(-1, 1) * 2 - 1).latent_dist.mode()
    torch.testing.assert_close(codec.encode(load(path).vae, image), reference, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("scale", "factor"), [("none", 1.0), ("scaled", 0.6)])
def test_the_image_latents_reach_the_network_as_the_model_wants_them(comfy, tmp_path, scale, factor):
    from ip2p.ip2p_core.checkpoint import read_checkpoint
    from ip2p.nodes.comfy_adapter import loading

    tiny.tiny_editor(tmp_path / "editor.safetensors")
    raw = read_checkpoint(tmp_path / "editor.safetensors")
    model = loading._build_model(replace(raw, config=replace(raw.config, image_latent_scale=scale))).model
    latents = torch.randn(1, 4, 8, 8)
    seen = model.concat_cond(concat_latent_image=latents, noise=latents, device=torch.device("cpu"))
    torch.testing.assert_close(seen, latents * factor)


def test_a_deep_copy_through_the_reload_factories_edits_alike(editor, photo):
    """The host makes such copies for hooks, compiled models and several devices."""
    model = editor.model.clone(force_deepcopy=True)
    clip, vae = editor.clip.clone(), editor.vae
    clip_patcher, vae_patcher = (patcher.clone(force_deepcopy=True) for patcher in (clip.patcher, vae.patcher))
    assert model.model is not editor.model.model
    for copy, original in (
        (model, editor.model),
        (clip_patcher, editor.clip.patcher),
        (vae_patcher, editor.vae.patcher),
    ):
        assert copy.model is not original.model
        theirs = original.model.state_dict()
        assert all(torch.equal(value, theirs[name]) for name, value in copy.model.state_dict().items())
    copied, _ = edit(editor._replace(model=model), photo[:1])
    plain, _ = edit(editor, photo[:1])
    assert torch.equal(copied, plain)


def test_another_autoencoder_takes_the_place_of_the_models_own(comfy, tmp_path, photo):
    tiny.tiny_editor(tmp_path / "editor.safetensors")
    other = tiny.tiny_models(seed=5).vae
    other.save_pretrained(tmp_path / "vae")
    own, replaced = load(tmp_path / "editor.safetensors"), load(tmp_path / "editor.safetensors", tmp_path / "vae")
    image = photo[:1, :48, :64]
    reference = other.encode(image.movedim(-1, 1) * 2 - 1).latent_dist.mode()
    torch.testing.assert_close(replaced.vae.encode(image), reference, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(own.vae.encode(image), reference, rtol=1e-3, atol=1e-3)


def test_a_generator_loads_but_does_not_edit(comfy, tmp_path, photo):
    from ip2p.nodes.edit import DualCFGModel

    path = tmp_path / "generator.safetensors"
    tiny.tiny_editor(path, in_channels=4)
    loaded = load(path)
    with pytest.raises(ModelMismatch, match="The model has 4 input channels; InstructPix2Pix needs 8"):
        edit(loaded, photo[:1])
    with pytest.raises(ModelMismatch, match="The model has 4 input channels"):
        DualCFGModel.execute(loaded.model, 1.5)


def test_an_inpainting_model_is_refused_by_the_loader(comfy, tmp_path):
    path = tmp_path / "inpainting.safetensors"
    tiny.tiny_editor(path, in_channels=9)
    with pytest.raises(ModelMismatch, match="9 input channels"):
        load(path)


def test_a_link_to_a_model_takes_the_place_of_the_list(comfy, tmp_path):
    from ip2p.nodes.load import LoadInstructPix2Pix

    tiny.tiny_editor(comfy.models / "ip2p" / "trained" / "mine.safetensors")
    model, clip, vae = LoadInstructPix2Pix.execute("no such name", model_path="trained/mine.safetensors").args
    assert model.model.model_config.unet_config["in_channels"] == 8
    assert clip.patcher.cached_patcher_init[1] == vae.patcher.cached_patcher_init[1]


@pytest.mark.parametrize(
    "name", ["/etc/hostname", "../editor.safetensors", "a/../../b.safetensors", "C:/x.safetensors", ""]
)
def test_a_linked_name_outside_the_model_folders_is_refused(comfy, name):
    from ip2p.nodes.comfy_adapter import folders

    with pytest.raises(CheckpointError, match="does not lie inside the model folders"):
        folders.resolve_model(name)


def test_a_name_that_is_not_there_is_named(comfy):
    from ip2p.nodes.load import LoadInstructPix2Pix

    assert LoadInstructPix2Pix.validate_inputs() is True  # a linked name is not known yet
    assert LoadInstructPix2Pix.validate_inputs("gone.safetensors") == (
        'There is no model "gone.safetensors" in models/ip2p, models/checkpoints or models/diffusers. '
        "Put the file there, or choose another name in model_name."
    )


class _Harmful:
    def __reduce__(self):
        return (open, ("/tmp/ip2p_pickle_ran", "w"))  # noqa: S108


def test_files_that_cannot_be_opened_get_one_sentence(comfy, tmp_path, editor):
    whole = (comfy.models / "ip2p" / "tiny_editor.safetensors").read_bytes()
    cut, renamed, harmful, text = (
        tmp_path / n for n in ("cut.safetensors", "re.safetensors", "x.ckpt", "t.safetensors")
    )
    cut.write_bytes(whole[: len(whole) // 2])
    torch.save({"state_dict": {}}, tmp_path / "plain.pt")
    renamed.write_bytes((tmp_path / "plain.pt").read_bytes())
    harmful.write_bytes(pickle.dumps(_Harmful()))
    text.write_text("not a model")
    (tmp_path / "folder").mkdir()
    expected = {
        cut: "cut off",
        renamed: "renamed",
        harmful: "contains code",
        text: "not a model",
        tmp_path / "folder": "no unet",
    }
    for path, words in expected.items():
        with pytest.raises(CheckpointError, match=words) as refusal:
            load(path)
        assert "\n" not in str(refusal.value)


def test_a_missing_weight_is_named_and_nothing_stays_random(comfy, tmp_path):
    path = tmp_path / "editor.safetensors"
    tiny.tiny_editor(path)
    from safetensors import safe_open

    with safe_open(path, "pt") as opened:
        metadata = opened.metadata()
    for prefix in ("model.diffusion_model.", "first_stage_model.", "cond_stage_model."):
        state = load_file(path)
        gone = next(name for name in sorted(state) if name.startswith(prefix) and name.endswith("bias"))
        del state[gone]
        save_file(state, tmp_path / "lacking.safetensors", metadata)
        with pytest.raises(CheckpointError, match="lacks the weight") as refusal:
            load(tmp_path / "lacking.safetensors")
        assert re.search(r"'[a-z_0-9.]+bias'", str(refusal.value))


def test_diffusers_folders_are_listed(comfy, tmp_path):
    from ip2p.nodes.comfy_adapter import folders

    write_folder(tiny.tiny_models(), comfy.models / "diffusers" / "tiny-folder")
    assert "tiny-folder" in folders.model_names()
    assert folders.resolve_model("tiny-folder").is_dir()
    assert folders.model_names()[0] == folders.EMBEDDED_EDITOR


def test_a_tiny_model_has_previews_in_its_own_colours(comfy, editor, photo):
    import latent_preview
    from comfy.cli_args import LatentPreviewMethod, args

    latents = editor.model.model.latent_format.process_in(editor.vae.encode(photo[:1, :48, :64]))
    before, args.preview_method = args.preview_method, LatentPreviewMethod.Latent2RGB
    try:
        previewer = latent_preview.get_previewer(editor.model.load_device, editor.model.model.latent_format)
    finally:
        args.preview_method = before
    shown = torch.from_numpy(numpy.array(previewer.decode_latent_to_preview(latents))).float() / 255
    decoded = editor.vae.decode(editor.vae.encode(photo[:1, :48, :64])).movedim(-1, 1)
    small = torch.nn.functional.adaptive_avg_pool2d(decoded, shown.shape[:2])[0].movedim(0, -1)
    assert (shown - small).abs().mean() < 0.1
