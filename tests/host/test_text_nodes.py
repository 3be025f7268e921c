"""The nodes of the text stage in a running ComfyUI: the grammar, a language-model server, answers of other nodes, refusals."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from ip2p.ip2p_core.instruction_writer import TEMPLATE, write_edit
from ip2p.tests.host.comfy_host import error_of, node
from ip2p.tests.host.conftest import LANGUAGE_KEY

CAPTION = "a red circle on a white background"
ANSWER = {"instruction": "make it night", "edited_caption": "a harbour at night"}
GRAMMAR, SERVER = "grammar (offline)", "language-model server"


def prompt_of(image: str = "", **inputs):
    edit = {
        "caption": CAPTION, "backend": GRAMMAR, "model": "", "edit_type": "any", "seed": 7, "temperature": 0.7,
        "template": TEMPLATE, **inputs,
    }  # fmt: skip
    prompt = {"1": node("CaptionEdit", **edit)}
    prompt |= {str(2 + place): node("PreviewAny", source=["1", place]) for place in range(4)}
    if image:
        prompt["9"] = node("LoadImage", image=image)
        prompt["1"]["inputs"]["image"] = ["9", 0]
    return prompt


def shown(server, prompt) -> list[str]:
    outputs = server.run(prompt)["outputs"]
    return ["".join(outputs[name]["text"]) for name in sorted(outputs)]


@pytest.fixture
def model(language_server):
    """The server's model: says what a test tells it, and remembers what it was asked."""
    language_server.fail_with([""])
    language_server.bodies.clear()
    language_server.headers.clear()
    return language_server


def test_the_grammar_gives_the_edit_of_the_command_line(comfy_server):
    instruction, edited, caption, question = shown(comfy_server, prompt_of(seed=11))
    written = write_edit(CAPTION, 11)
    assert (instruction, edited, caption) == (written.instruction, written.edited_caption, CAPTION)
    assert question.endswith(f"Caption: {CAPTION}")


def test_the_kind_of_edit_may_be_chosen(comfy_server):
    for seed in range(3):
        assert "background" in shown(comfy_server, prompt_of(edit_type="background", seed=seed))[0]


def test_a_server_is_asked_by_the_template_until_its_answer_is_of_use(comfy_server, model):
    model.answer = json.dumps(ANSWER)
    model.fail_with(["500", "429", "garbage", ""])
    texts = shown(
        comfy_server, prompt_of(backend=SERVER, model="m", caption="a harbour", template="Edit this: {caption}")
    )
    assert texts == [ANSWER["instruction"], ANSWER["edited_caption"], "a harbour", "Edit this: a harbour"]
    assert model.bodies[-1]["messages"] == [{"role": "user", "content": "Edit this: a harbour"}]
    assert model.bodies[-1]["model"] == "m"
    assert model.headers[-1]["Authorization"] == f"Bearer {LANGUAGE_KEY}"
    assert LANGUAGE_KEY not in comfy_server.log


def test_a_model_that_sees_gets_the_picture_and_may_write_the_caption(comfy_server, model):
    model.answer = json.dumps({"caption": "a red square", **ANSWER})
    name = comfy_server.put_input(Image.new("RGB", (16, 16), "red"), "seen.png")
    texts = shown(comfy_server, prompt_of(image=name, backend=SERVER, model="m", caption=""))
    assert texts[2] == "a red square"
    assert model.bodies[-1]["messages"][0]["content"][1]["image_url"]["url"].startswith("data:image/png;base64,")


@pytest.mark.parametrize(
    "answer",
    [json.dumps(ANSWER), f"Sure:\n```json\n{json.dumps(ANSWER)}\n```", "make it night\n%%\na harbour at night\nEND"],
)
def test_the_answer_of_another_node_is_read(comfy_server, answer):
    prompt = {"1": node("ParseTriplet", answer=answer, caption="a harbour")}
    prompt |= {str(2 + place): node("PreviewAny", source=["1", place]) for place in range(2)}
    assert shown(comfy_server, prompt) == list(ANSWER.values())


@pytest.mark.parametrize(
    ("inputs", "answer", "words"),
    [
        ({"caption": " "}, "", "The caption is empty"),
        ({"template": "Edit it"}, "", "has no {caption}"),
        ({"edit_type": "hair"}, "", "None of the edits hair fits"),
        ({"backend": SERVER, "model": "m"}, "I cannot do that.", "holds no edit"),
        ({"backend": SERVER, "model": "m"}, json.dumps({**ANSWER, "edited_caption": CAPTION}), "is the caption"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(comfy_server, model, inputs, answer, words):
    model.answer = answer or "nothing"
    entry = comfy_server.wait(comfy_server.queue(prompt_of(**inputs)))
    assert words in error_of(entry)


def test_a_server_that_refuses_is_named_with_its_reason_but_not_the_key(comfy_server, model):
    model.fail_with(["refused"])
    entry = comfy_server.wait(comfy_server.queue(prompt_of(backend=SERVER, model="m")))
    assert "no such model" in error_of(entry)
    assert LANGUAGE_KEY not in json.dumps(entry)
