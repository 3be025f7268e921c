from __future__ import annotations

import json
import random

import pytest

from ip2p.ip2p_core.errors import BadTriplet, ConfigError
from ip2p.ip2p_core.instruction_writer import (
    EDIT_TYPES,
    TEMPLATE,
    VISION_TEMPLATE,
    Edit,
    classify_edit,
    parse_reply,
    tags_of,
    write_edit,
)
from ip2p.ip2p_core.instruction_writer.grammar import RULES, SHAPE_EDITS
from ip2p.ip2p_core.instruction_writer.prompts import (
    base_completion,
    base_prompt,
    fill_template,
    is_identity,
    json_completion,
)
from ip2p.trainer.shape_world.scene import BACKGROUNDS, PALETTE, SHAPES, random_scene

EDIT = Edit("make it night", "a harbour at night")
CAPTIONS = (
    "A photo of a woman with a dog on a beach", "old lighthouse at sunset, oil on canvas", "Portrait of a man in a hat",
    "mountain landscape", "A bowl of fruit on a wooden table.", "The Girl with a Pearl Earring", "x", "street in the rain, Paris",
    "a red car in winter", "Kitten and a ball of wool",
)  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        json_completion(*EDIT[:2]),
        f"Sure! Here it is:\n```json\n{json_completion(*EDIT[:2])}\n```\nAnything else?",
        f'<think>{{"instruction": "not this"}}</think>{json_completion(*EDIT[:2])}',
        '{"note": 1} {"edit": " make it night ", "output": "a harbour at night"}',
        base_completion(*EDIT[:2]),
        "make it night\n%%\na harbour at night",
        "make it night\n%%\na harbour at night\nEND\nmake it day\n%%\nmore",
    ],
)
def test_an_answer_is_read_in_every_form(text):
    assert parse_reply(text) == EDIT


@pytest.mark.parametrize(
    "text",
    [
        "", "make it night", "a\n%%\nb\n%%\nc\nEND", '{"instruction": "make it night"}', '{"instruction": 3, "edited_caption": "b"}',
        '{"instruction": "make it night", "edited_caption": "a harb', "[1, 2]",
    ],
)  # fmt: skip
def test_an_answer_without_an_edit_is_refused(text):
    with pytest.raises(BadTriplet):
        parse_reply(text)


def test_the_published_format_is_that_of_the_published_code():
    assert base_prompt("a cat") == "a cat\n##\n"
    assert base_completion("make it a dog", "a dog") == "make it a dog\n%%\na dog\nEND"


def test_the_template_asks_for_json_with_the_caption_inside():
    question = fill_template(TEMPLATE, 'a "quoted" {caption} cat')
    assert question.endswith('Caption: a "quoted" {caption} cat')
    assert '"edited_caption"' in question
    assert '"caption"' in VISION_TEMPLATE
    with pytest.raises(ConfigError, match=r"has no \{caption\}"):
        fill_template("write something", "a cat")


@pytest.mark.parametrize("caption", CAPTIONS)
def test_the_grammar_edits_any_caption_and_the_same_seed_gives_the_same_edit(caption):
    for seed in range(200):
        written = write_edit(caption, seed)
        assert written == write_edit(caption, seed)
        assert written.edit_type in EDIT_TYPES
        assert written.instruction
        assert not is_identity(caption, written.edited_caption)
        assert "{" not in written.instruction + written.edited_caption
        assert "  " not in written.edited_caption


def test_every_rule_writes_edits_that_its_type_names():
    caption = "a red car and a woman with a hat on a beach at night"
    for kind in RULES:
        assert {write_edit(caption, seed, [kind]).edit_type for seed in range(5)} == {kind}


def test_an_edit_type_that_does_not_fit_the_caption_is_refused():
    with pytest.raises(ConfigError, match="fits the caption 'mountain landscape'"):
        write_edit("mountain landscape", 0, ["hair"])


def test_edits_of_shapes_stay_in_the_world_of_the_embedded_generator():
    known = {*PALETTE, *SHAPES, *BACKGROUNDS, "a", "an", "and", "on", "background", "empty"}
    kinds = set()
    for seed in range(400):
        scene = random_scene(random.Random(seed), 1 + seed % 2)
        written = write_edit(scene.caption(), seed)
        kinds.add(written.edit_type)
        assert set(written.edited_caption.split()) <= known, written
    assert kinds == set(SHAPE_EDITS)


def test_an_unknown_edit_type_is_named():
    with pytest.raises(ConfigError, match="knows no edit type 'sing'"):
        write_edit("a cat", 0, ["sing"])


def test_most_edits_of_the_grammar_are_classified_as_what_they_are():
    written = [write_edit(caption, seed) for caption in CAPTIONS for seed in range(60)]
    right = sum(classify_edit(one.instruction) == one.edit_type for one in written)
    assert right / len(written) > 0.75


@pytest.mark.parametrize(
    ("instruction", "tags"),
    [
        ("add two more dogs", ("count",)),
        ("move the cup to the left", ("spatial",)),
        ("zoom in on the face", ("camera",)),
        ("view it from above", ("camera",)),
        ("make it snow", ()),
        ("turn the rose into a tulip", ()),
    ],
)
def test_edits_that_prompt_to_prompt_cannot_make_are_tagged(instruction, tags):
    assert tags_of(instruction) == tags


def test_json_in_an_answer_may_hold_any_letters():
    text = json_completion("füge Schnee hinzu", "雪の町")
    assert "雪" in text
    assert parse_reply(json.dumps(json.loads(text))) == Edit("füge Schnee hinzu", "雪の町")
