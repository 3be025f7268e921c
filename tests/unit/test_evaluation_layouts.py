"""MagicBrush's test set and PIE-Bench are read as their programs read them; what a set lacks is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest
from PIL import Image

from ip2p.ip2p_core.errors import ConfigError
from ip2p.trainer.evaluation.config import EvaluateConfig
from ip2p.trainer.evaluation.examples import mask_of, read_examples
from ip2p.trainer.evaluation.layouts import pie_bench_mask

SIDE = 24


def picture(path: Path, seed: int, size: tuple[int, int] = (SIDE, SIDE)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = numpy.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=numpy.uint8)
    Image.fromarray(values).save(path)


def read(path: Path, **changes):
    return read_examples(EvaluateConfig(examples=str(path), output="-", **changes))


def test_magicbrush_turns_start_from_the_true_picture_before(tmp_path):
    folder = tmp_path / "images" / "327"
    for number, name in enumerate(("input", "output1", "output2")):
        picture(folder / f"327-{name}.png", number)
    masked = Image.open(folder / "327-input.png").convert("RGBA")
    alpha = numpy.full((SIDE, SIDE), 255, numpy.uint8)
    alpha[5:9, 3:20] = 0
    masked.putalpha(Image.fromarray(alpha))
    masked.save(folder / "327-mask1.png")
    turns = [
        {"input": "327-input.png", "mask": "327-mask1.png", "output": "327-output1.png", "instruction": "add a dog"},
        {
            "input": "327-output1.png",
            "mask": "327-mask2.png",
            "output": "327-output2.png",
            "instruction": "make it wet",
        },
    ]
    (tmp_path / "edit_turns.json").write_text(json.dumps(turns))
    descriptions = {"327": {"327-input.png": "a sofa", "327-output1.png": "a dog", "327-output2.png": "a wet dog"}}
    (tmp_path / "global_descriptions.json").write_text(json.dumps(descriptions))
    first, second = read(tmp_path).examples
    assert (first.instruction, first.caption, first.edited_caption) == ("add a dog", "a sofa", "a dog")
    assert (second.caption, second.edited_caption) == ("a dog", "a wet dog")
    assert second.image.read() == (folder / "327-output1.png").read_bytes()
    assert second.target.read() == (folder / "327-output2.png").read_bytes()
    assert second.mask is None
    numpy.testing.assert_array_equal(mask_of(first).numpy(), (alpha == 0).astype(numpy.float32))


def test_pie_bench_masks_and_prompts(tmp_path):
    picture(tmp_path / "annotation_images" / "0_random" / "1.jpg", 0, (512, 512))
    item = {
        "image_path": "0_random/1.jpg",
        "original_prompt": "a [red] cat",
        "editing_prompt": "a [blue] cat",
        "editing_instruction": "make the cat blue",
        "editing_type_id": "6",
        "mask": [512 * 100 + 50, 20, 512 * 101 + 50, 20],
    }
    bare = {key: value for key, value in item.items() if key != "editing_instruction"}
    (tmp_path / "mapping_file.json").write_text(json.dumps({"000": item, "001": bare}))
    first, second = read(tmp_path).examples
    assert (first.caption, first.edited_caption) == ("a red cat", "a blue cat")
    assert (first.instruction, second.instruction) == ("make the cat blue", "a blue cat")
    assert first.edit_type == "type 6"
    mask = mask_of(first)
    assert mask[100:102, 50:70].min() == 1
    assert mask[[0, -1]].min() == mask[:, [0, -1]].min() == 1, "the rim counts as edited"
    assert mask[1:-1, 1:-1].sum() == 40


def test_runs_of_a_mask_may_reach_the_end_and_not_further():
    mask = pie_bench_mask([14, 20], side=4)
    assert mask.shape == (4, 4)
    assert mask[1:3, 1:3].sum() == 0


def test_keys_change_with_what_is_asked_and_stay_otherwise(tmp_path):
    picture(tmp_path / "a.png", 0)

    def key(instruction: str) -> str:
        record = {"id": "x", "image": "a.png", "instruction": instruction}
        (tmp_path / "e.jsonl").write_text(json.dumps(record))
        return read(tmp_path / "e.jsonl").examples[0].key

    one = key("make it red")
    assert key("make it red") == one
    assert key("make it blue") != one
    picture(tmp_path / "a.png", 1)
    assert key("make it red") != one


def test_a_damaged_list_is_one_sentence(tmp_path):
    (tmp_path / "edit_turns.json").write_text("[{")
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path)
