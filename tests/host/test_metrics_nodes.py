"""The nodes that measure edits and search for the best one, in a running ComfyUI."""

from __future__ import annotations

import json
import time

import numpy
import pytest
import torch
from PIL import Image

from ip2p.ip2p_core.checkpoint import embedded_model_path
from ip2p.ip2p_core.clip_scorer import CLIPScorer
from ip2p.ip2p_core.pair_metrics import EditContext, PairMetrics
from ip2p.tests.host.comfy_host import edit_prompt, error_of, node
from ip2p.tests.host.conftest import TINY_EDITOR, TINY_SCORER

EMBEDDED_CLIP = "embedded: clip"
TEXTS = {"caption": "a red square", "edited_caption": "a blue square"}
HOLE = (slice(20, 40), slice(30, 60))
"""Rows and columns where the two pictures differ."""


def pixels(name: str, comfy_server) -> torch.Tensor:
    with Image.open(comfy_server.base / "input" / name) as opened:
        return torch.from_numpy(numpy.array(opened.convert("RGB"))).float()[None] / 255


@pytest.fixture(scope="module")
def pictures(comfy_server) -> tuple[str, str]:
    """Before and after: they differ in a rectangle alone."""
    gradient = Image.linear_gradient("L").resize((90, 60))
    before = Image.merge("RGB", [gradient, gradient.rotate(180), gradient])
    after = numpy.array(before)
    after[HOLE] = (30, 60, 220)
    return comfy_server.put_input(before, "measured_before.png"), comfy_server.put_input(
        Image.fromarray(after), "measured_after.png"
    )


def metrics_prompt(pictures, *, scorer: str = "", mask: bool = False, target: bool = False, **texts):
    prompt = {
        "1": node("LoadImage", image=pictures[0]),
        "2": node("LoadImage", image=pictures[1]),
        "4": node("EditMetrics", before=["1", 0], after=["2", 0], **texts),
        **{str(5 + output): node("PreviewAny", source=["4", output]) for output in range(5)},
    }
    if scorer:
        prompt["3"] = node("LoadCLIPScorer", scorer_name=scorer, architecture="")
        prompt["4"]["inputs"]["scorer"] = ["3", 0]
    if mask:
        prompt["10"] = node("SolidMask", value=0.0, width=90, height=60)
        prompt["11"] = node("SolidMask", value=1.0, width=30, height=20)
        prompt["12"] = node("MaskComposite", destination=["10", 0], source=["11", 0], x=30, y=20, operation="add")
        prompt["4"]["inputs"]["mask"] = ["12", 0]
    if target:
        prompt["4"]["inputs"]["target"] = ["2", 0]
    return prompt


def shown(entry: dict, node_id: str) -> str:
    return "".join(entry["outputs"][node_id]["text"])


def test_what_the_node_measures_is_what_the_core_measures_of_the_same_pictures(comfy_server, pictures):
    entry = comfy_server.run(
        metrics_prompt(pictures, scorer=EMBEDDED_CLIP, mask=True, target=True, instruction="make it blue", **TEXTS)
    )
    header, row, mean = (line.split("\t") for line in shown(entry, "5").splitlines())
    found = dict(zip(header[1:], map(float, row[1:]), strict=True))
    assert mean[1:] == row[1:]
    before, after = (pixels(name, comfy_server) for name in pictures)
    mask = torch.zeros(60, 90)
    mask[HOLE] = 1
    context = EditContext("make it blue", *TEXTS.values(), mask, after[0])
    with torch.no_grad():
        (expected,) = PairMetrics(CLIPScorer.from_file(embedded_model_path("clip"))).measure(before, after, [context])
    assert set(found) == set(expected)
    assert found == pytest.approx(expected, abs=2e-3)
    assert found["l1_outside"] == 0
    assert found["l1_inside"] == pytest.approx(float((before - after)[0][HOLE].abs().mean()), abs=1e-4)
    assert (found["target_l1"], found["target_image"]) == (0, pytest.approx(1, abs=1e-3))
    for place, name in ((7, "directional"), (8, "image"), (9, "l1")):
        assert float(shown(entry, str(place))) == pytest.approx(found[name], abs=1e-4)
    report = json.loads(shown(entry, "6"))
    assert report["skipped"] == {}
    assert report["encoder"]["file"] == "clip.safetensors"
    assert "bicubic, no antialias" in report["encoder"]["preprocessing"]
    assert report["pictures"][0]["psnr_outside"] is None  # infinite


def test_what_cannot_be_measured_is_skipped_by_name_and_what_hangs_on_it_waits(comfy_server, pictures):
    entry = comfy_server.run(metrics_prompt(pictures))
    header = shown(entry, "5").splitlines()[0].split("\t")
    assert header == ["picture", "l1", "l2", "psnr", "ssim"]
    skipped = json.loads(shown(entry, "6"))["skipped"]
    assert skipped["directional"] == skipped["image"] == "no scorer is connected"
    assert skipped["l1_outside"] == "no mask is connected"
    assert skipped["target_l1"] == "no target is connected"
    assert "7" not in entry["outputs"]
    assert "8" not in entry["outputs"]
    assert float(shown(entry, "9")) > 0
    entry = comfy_server.run(metrics_prompt(pictures, scorer=TINY_SCORER, caption="a red square"))
    skipped = json.loads(shown(entry, "6"))["skipped"]
    assert "caption and edited_caption are needed" in skipped["directional"]
    assert skipped["instruction_match"] == "the instruction is empty"
    assert "image" not in skipped
    assert "7" not in entry["outputs"]


def test_a_batch_has_a_line_for_every_picture_and_one_of_means(comfy_server, pictures):
    prompt = metrics_prompt(pictures)
    prompt["20"] = node("ImageBatch", image1=["1", 0], image2=["2", 0])
    prompt["21"] = node("RepeatImageBatch", image=["1", 0], amount=2)
    prompt["4"]["inputs"] |= {"before": ["21", 0], "after": ["20", 0]}
    lines = [line.split("\t") for line in shown(comfy_server.run(prompt), "5").splitlines()]
    assert [line[0] for line in lines] == ["picture", "1", "2", "mean"]
    assert (lines[1][1], lines[1][3]) == ("0.0000", "inf")
    assert float(lines[3][1]) == pytest.approx(float(lines[2][1]) / 2, abs=1e-4)


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"21": node("RepeatImageBatch", image=["2", 0], amount=3)}, "3 of 90x60 on 'after'"),
        (
            {"21": node("ImageScale", image=["2", 0], upscale_method="area", width=64, height=60, crop="disabled")},
            "1 of 64x60 on 'after'",
        ),
    ],
)
def test_pictures_that_do_not_belong_together_are_refused_in_one_sentence(comfy_server, pictures, extra, words):
    prompt = {**metrics_prompt(pictures), **extra}
    prompt["4"]["inputs"]["after"] = ["21", 0]
    message = error_of(comfy_server.wait(comfy_server.queue(prompt)))
    assert words in message
    assert "1 of 90x60 on 'before'" in message


def auto_prompt(picture: str, *, model: str = TINY_EDITOR, scorer: str = TINY_SCORER, **changes):
    inputs = {
        "model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2], "image": ["2", 0], "scorer": ["3", 0],
        "instruction": "make it blue", "negative_instruction": "", "budget": 6, "text_scale_min": 1.0, "text_scale_max": 5.0,
        "image_scale_min": 1.0, "image_scale_max": 2.0, "num_seeds": 3, "keep": 0.5, "seed": 7, "steps": 2,
        "sampler_name": "euler", "scheduler": "normal", "working_resolution": 64, **TEXTS, **changes,
    }  # fmt: skip
    return {
        "1": node("LoadInstructPix2Pix", model_name=model),
        "2": node("LoadImage", image=picture),
        "3": node("LoadCLIPScorer", scorer_name=scorer, architecture=""),
        "4": node("AutoGuidance", **inputs),
        "5": node("PreviewImage", images=["4", 0]),
        "6": node("PreviewImage", images=["4", 5]),
        **{str(6 + output): node("PreviewAny", source=["4", output]) for output in (1, 2, 3, 4)},
    }


def trials(entry: dict) -> list[list[float]]:
    header, *rows = shown(entry, "10").splitlines()
    assert header.split("\t") == ["text_scale", "image_scale", "seed", "score", "follows", "keeps", "best"]
    return [[float(value) if value != "*" else 1 for value in row.split("\t") if value] for row in rows]


@pytest.mark.parametrize("texts", [TEXTS, {"caption": "", "edited_caption": ""}], ids=["captions", "instruction"])
def test_the_search_gives_back_its_best_edit_and_instruct_edit_makes_it_again(comfy_server, pictures, texts):
    entry = comfy_server.run(auto_prompt(pictures[0], **texts))
    rows = trials(entry)
    assert len(rows) == len({tuple(row[:3]) for row in rows}) == 6
    assert all(1 <= row[0] <= 5 and 1 <= row[1] <= 2 and row[2] in (7, 8, 9) for row in rows)
    assert len({row[0] for row in rows}) > 2
    (best,) = [row for row in rows if len(row) == 7]
    assert best[3] == max(row[3] for row in rows) or best[:2] == rows[0][:2]
    place = [float(shown(entry, node_id)) for node_id in ("7", "8", "9")]
    assert place == best[:3]
    edited, grid = comfy_server.images(entry)
    assert edited.size == (90, 60)
    assert grid.width > 4 * 192
    options = {"text_guidance_scale": place[0], "image_guidance_scale": place[1], "seed": int(place[2])}
    options |= {"steps": 2, "sampler_name": "euler", "scheduler": "normal", "working_resolution": 64}
    single = edit_prompt(pictures[0], "make it blue", TINY_EDITOR, **options)
    (expected,) = comfy_server.images(comfy_server.run(single))
    assert numpy.abs(numpy.array(edited, float) - numpy.array(expected, float)).max() <= 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"text_scale_min": 6.0}, "text scales go from 6 to 5"),
        ({"edited_caption": ""}, '"edited_caption" is empty'),
        ({"instruction": ""}, "The instruction is empty"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(comfy_server, pictures, changes, words):
    entry = comfy_server.wait(comfy_server.queue(auto_prompt(pictures[0], **changes)))
    assert words in error_of(entry)


def test_a_search_can_be_interrupted(comfy_server, pictures):
    prompt_id = comfy_server.queue(auto_prompt(pictures[0], budget=400, steps=20, num_seeds=64))
    time.sleep(3)
    assert prompt_id not in comfy_server.get("/history"), "the search was over before it could be interrupted"
    comfy_server.post("/interrupt")
    entry = comfy_server.wait(prompt_id, seconds=30)
    assert [kind for kind, _ in entry["status"]["messages"]][-1] == "execution_interrupted"
