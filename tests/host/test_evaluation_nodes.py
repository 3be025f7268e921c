"""The nodes that compare settings, in a running ComfyUI."""

from __future__ import annotations

import numpy
import pytest
from PIL import Image

from ip2p.tests.host.comfy_host import edit_prompt, error_of, node
from ip2p.tests.host.conftest import TINY_EDITOR, TINY_SCORER

TEXTS = {"caption": "a red square", "edited_caption": "a blue square"}
MODEL = {"model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2]}


@pytest.fixture(scope="module")
def picture(comfy_server) -> str:
    gradient = Image.linear_gradient("L").resize((90, 60))
    return comfy_server.put_input(Image.merge("RGB", [gradient, gradient.rotate(180), gradient]), "to_compare.png")


def grid_prompt(picture: str, *, is_scored: bool = False, **changes):
    inputs = {
        **MODEL, "image": ["2", 0], "instruction": "make it blue", "negative_instruction": "", "text_scales": "1, 3",
        "image_scales": "1 1.5 2", "num_seeds": 2, "seed": 5, "steps": 2, "sampler_name": "euler", "scheduler": "normal",
        "working_resolution": 64, **changes,
    }  # fmt: skip
    prompt = {
        "1": node("LoadInstructPix2Pix", model_name=TINY_EDITOR),
        "2": node("LoadImage", image=picture),
        "4": node("GuidanceGrid", **inputs),
        "5": node("PreviewImage", images=["4", 0]),
        "6": node("PreviewImage", images=["4", 1]),
        "7": node("PreviewAny", source=["4", 3]),
    }
    if is_scored:
        prompt["3"] = node("LoadCLIPScorer", scorer_name=TINY_SCORER, architecture="")
        prompt["4"]["inputs"] |= {"scorer": ["3", 0], **{name: changes.get(name, text) for name, text in TEXTS.items()}}
        prompt["8"] = node("PreviewImage", images=["4", 2])
    return prompt


def test_a_grid_holds_the_edits_of_instruct_edit_at_every_pair_of_scales_and_seed(comfy_server, picture):
    entry = comfy_server.run(grid_prompt(picture))
    grid, *edits = comfy_server.images(entry)
    assert len(edits) == 2 * 3 * 2
    assert grid.width > 2 * 90
    lines = "".join(entry["outputs"]["7"]["text"]).splitlines()
    assert lines[0].split("\t") == ["image_scale", "text_scale", "seed"]
    assert [tuple(map(float, line.split("\t"))) for line in lines[1:]] == [
        (row, column, seed) for row in (1, 1.5, 2) for seed in (5, 6) for column in (1, 3)
    ]
    options = {"text_guidance_scale": 3.0, "image_guidance_scale": 1.5, "seed": 6, "steps": 2, "sampler_name": "euler"}
    single = edit_prompt(picture, "make it blue", TINY_EDITOR, scheduler="normal", working_resolution=64, **options)
    (expected,) = comfy_server.images(comfy_server.run(single))
    place = lines[1:].index("1.5\t3\t6")
    difference = numpy.abs(numpy.array(edits[place], float) - numpy.array(expected, float)).max()
    assert difference <= 2


def test_with_a_scorer_there_are_scores_and_a_plot(comfy_server, picture):
    entry = comfy_server.run(grid_prompt(picture, is_scored=True, num_seeds=1))
    assert entry["outputs"]["8"]["images"]
    lines = "".join(entry["outputs"]["7"]["text"]).splitlines()
    assert lines[0].split("\t")[-2:] == ["directional", "image"]
    assert all(-1 <= float(value) <= 1 for line in lines[1:] for value in line.split("\t")[-2:])


@pytest.mark.parametrize(
    ("changes", "is_scored", "words"),
    [
        ({"text_scales": "one, two"}, False, "write numbers with commas"),
        ({"image_scales": " "}, False, "at least one number"),
        ({"text_scales": ",".join(map(str, range(30))), "num_seeds": 64}, False, "at most 400 fit"),
        ({"caption": ""}, True, "need caption and edited_caption"),
        ({"instruction": ""}, False, "instruction"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(comfy_server, picture, changes, is_scored, words):
    entry = comfy_server.wait(comfy_server.queue(grid_prompt(picture, is_scored=is_scored, **changes)))
    assert words in error_of(entry)


def mask_prompt(picture: str, text_scale: float, image_scale: float, threshold: float = 0.5):
    condition = {"clip": ["1", 1], "vae": ["1", 2], "image": ["2", 0], "instruction": "make it blue"}
    sampling = {
        "model": ["1", 0], "full": ["3", 0], "image": ["3", 1], "uncond": ["3", 2], "latent": ["3", 3],
        "text_guidance_scale": text_scale, "image_guidance_scale": image_scale, "seed": 1, "steps": 2,
        "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
    }  # fmt: skip
    return {
        "1": node("LoadInstructPix2Pix", model_name=TINY_EDITOR),
        "2": node("LoadImage", image=picture),
        "3": node("InstructConditioning", **condition, negative_instruction="", working_resolution=64),
        "4": node("DualCFGSampler", **sampling),
        "5": node("RelevanceMask", relevance_map=["4", 1], image=["2", 0], threshold=threshold, grow=2),
        "6": node("InstructDecode", vae=["1", 2], latent=["4", 0], image=["2", 0], mask=["5", 0], mask_feather=0),
        "7": node("SaveImage", images=["6", 0], filename_prefix="masked"),
        "8": node("MaskToImage", mask=["5", 0]),
        "9": node("PreviewImage", images=["8", 0]),
    }


def test_a_relevance_mask_has_the_size_of_the_picture_and_keeps_what_lies_outside(comfy_server, picture):
    edited, mask = comfy_server.images(comfy_server.run(mask_prompt(picture, 5.0, 1.5)))
    assert edited.size == mask.size == (90, 60)
    inside = numpy.array(mask)[..., 0] > 127
    assert 0 < inside.mean() < 1
    with Image.open(comfy_server.base / "input" / picture) as opened:
        original = numpy.array(opened.convert("RGB"))
    assert (numpy.array(edited)[~inside] == original[~inside]).all()
    assert (numpy.array(edited)[inside] != original[inside]).any()


def test_where_the_sampler_compared_nothing_the_mask_says_so(comfy_server, picture):
    entry = comfy_server.wait(comfy_server.queue(mask_prompt(picture, 1.0, 1.0)))
    assert "relevance map is empty" in error_of(entry)
