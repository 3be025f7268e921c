"""The nodes of pairs in a running ComfyUI: from a file of triplets to a dataset, cancelled runs, refusals."""

from __future__ import annotations

import json
import time

import pytest
from PIL import Image

from ip2p.ip2p_core.pair_store import PairStore
from ip2p.ip2p_core.triplet import read_triplets
from ip2p.tests.host.comfy_host import Refused, error_of, node
from ip2p.tests.host.conftest import TINY_EDITOR, TINY_GENERATOR, TINY_SCORER

TRIPLETS = [
    {"caption": "a red circle", "instruction": "make it blue", "edited_caption": "a blue circle"},
    {"input": "a star on a beige background", "edit": "add snow", "output": "a star in the snow"},
]
NUM_SAMPLES = 3


@pytest.fixture(scope="module")
def triplets_file(comfy_server):
    lines = [json.dumps(one) for one in [*TRIPLETS, TRIPLETS[0]]]
    (comfy_server.base / "input" / "triplets.jsonl").write_text("\n".join([*lines, "{broken"]), encoding="utf-8")
    return "triplets.jsonl"


def pair_node(**options):
    inputs = {
        "model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2],
        "caption": "a red circle", "instruction": "make it blue", "edited_caption": "a blue circle",
        "num_samples": NUM_SAMPLES, "p_min": 0.1, "p_max": 0.9, "guidance_min": 7.5, "guidance_max": 15.0,
        "seed": 1, "steps": 2, "sampler_name": "model default", "scheduler": "model default",
        "width": 64, "height": 64, "batch_size": 2, "num_shown": 16, "mode": "published_code",
    }  # fmt: skip
    return node("Prompt2PromptPair", **{**inputs, **options})


def filter_node(**options):
    inputs = {
        "scorer": ["3", 0], "preset": "percentile", "keep": 4, "num_shown": 16,
        "image_threshold": 0.75, "caption_threshold": 0.2, "directional_threshold": 0.2,
        "image_percentile": 0.0, "caption_percentile": 0.0, "directional_percentile": 0.0,
        "pairs": ["2", 2],
    }  # fmt: skip
    return node("CLIPDirectionalFilter", **{**inputs, **options})


def pairs_prompt(pair=None, filtering=None, dataset_name="made", model_name=TINY_GENERATOR):
    return {
        "1": node("LoadInstructPix2Pix", model_name=model_name),
        "2": pair or pair_node(),
        "3": node("LoadCLIPScorer", scorer_name=TINY_SCORER, architecture=""),
        "4": filtering or filter_node(),
        "5": node("SavePairs", pairs=["4", 2], dataset_name=dataset_name),
        "6": node("PreviewImage", images=["4", 1]),
    }


def test_a_file_of_triplets_becomes_a_filtered_dataset(comfy_server, triplets_file):
    texts = {name: ["7", place] for place, name in enumerate(("caption", "instruction", "edited_caption"))}
    prompt = pairs_prompt(pair_node(**texts), filter_node(keep=2), "from_file")
    prompt["7"] = node("LoadTriplets", file=triplets_file, first=0, count=0, malformed_lines="skip")
    entry = comfy_server.run(prompt)
    store = PairStore(comfy_server.base / "output" / "ip2p_datasets" / "from_file")
    records = list(store.records())
    wanted = read_triplets(comfy_server.base / "input" / triplets_file).triplets
    assert {record.triplet.caption for record in records} == {triplet.caption for triplet in wanted}
    assert len(records) == 4
    assert all(record.scores is not None for record in records)
    assert len({record.seed for record in records}) == 4
    assert all(record.original.picture().size == (64, 64) for record in records)
    report = entry["outputs"]["4"]["text"][0]
    assert "6 of 6 pairs pass every threshold; 4 kept, from 2 of 2 prompts." in report
    grid, plot = [picture for picture in comfy_server.images(entry) if picture.size != (64, 64)]
    assert grid.width > 400
    assert plot.width > 400


def test_saving_again_adds_nothing_and_loading_gives_the_pairs_back(comfy_server):
    comfy_server.run(pairs_prompt(dataset_name="twice"))
    prompt = {
        "8": node("LoadPairs", dataset_name="twice", split="all", count=0, num_shown=2),
        "5": node("SavePairs", pairs=["8", 0], dataset_name="twice"),
        "6": node("PreviewImage", images=["8", 3]),
    }
    entry = comfy_server.run(prompt)
    assert entry["outputs"]["5"]["text"] == [f"0 of {NUM_SAMPLES} pairs added to twice; it holds {NUM_SAMPLES}."]
    assert len(comfy_server.images(entry)) == 2


def test_where_nothing_passes_the_report_says_so_and_what_follows_waits(comfy_server):
    strict = filter_node(preset="custom", directional_threshold=1.0)
    entry = comfy_server.run(pairs_prompt(filtering=strict, dataset_name="nothing"))
    assert "0 of 3 pairs pass every threshold" in entry["outputs"]["4"]["text"][0]
    assert "The nearest is pair" in entry["outputs"]["4"]["text"][0]
    assert "6" not in entry["outputs"]


def test_two_batches_of_images_are_filtered_by_their_captions(comfy_server):
    for name, colour in (("before.png", "red"), ("after.png", "blue")):
        comfy_server.put_input(Image.new("RGB", (48, 32), colour), name)
    prompt = {
        "1": node("LoadImage", image="before.png"),
        "2": node("LoadImage", image="after.png"),
        "3": node("LoadCLIPScorer", scorer_name=TINY_SCORER, architecture=""),
        "4": filter_node(pairs=None, original=["1", 0], edited=["2", 0], caption="red", edited_caption="blue"),
    }
    del prompt["4"]["inputs"]["pairs"]
    entry = comfy_server.run(prompt)
    assert "1 of 1 pairs pass every threshold" in entry["outputs"]["4"]["text"][0]


def test_a_cancelled_run_goes_on_with_its_finished_pairs(comfy_server):
    slow = pair_node(num_samples=12, batch_size=1, steps=40, seed=5)
    prompt_id = comfy_server.queue(pairs_prompt(slow, dataset_name="cancelled"))
    end = time.monotonic() + 60
    before = comfy_server.log.count("40/40 [")  # the bar of a batch is written up to twice
    while comfy_server.log.count("40/40 [") < before + 8 and time.monotonic() < end:
        time.sleep(0.05)
    comfy_server.post("/interrupt")
    entry = comfy_server.wait(prompt_id)
    assert [kind for kind, _ in entry["status"]["messages"]][-1] == "execution_interrupted"
    before = comfy_server.log.count("40/40 [")
    comfy_server.run(pairs_prompt(slow, dataset_name="cancelled"))
    assert comfy_server.log.count("40/40 [") - before <= 2 * (12 - 8 // 2) + 2
    store = PairStore(comfy_server.base / "output" / "ip2p_datasets" / "cancelled")
    assert {record.sample_index for record in store.records()} <= set(range(12))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"edited_caption": "A red circle."}, "caption and edited_caption are equal"),
        ({"caption": " "}, "caption is empty"),
        ({"caption": "word " * 90}, "are cut"),
        ({"p_min": 0.9, "p_max": 0.2}, "range of p is 0.9 to 0.2"),
        ({"mode": "paper_text", "edit_kind": "replace", "edited_caption": "a circle"}, "words"),
        ({"mode": "paper_text", "word_weights": "dragon: 2"}, "dragon"),
        ({"mode": "paper_text", "word_weights": "dragon"}, "a word, a colon and a number"),
        ({"width": 70}, "not a multiple"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(comfy_server, options, words):
    entry = comfy_server.wait(comfy_server.queue(pairs_prompt(pair_node(**options))))
    assert words in error_of(entry)
    assert "\n" not in error_of(entry)


def test_an_editor_makes_no_pairs(comfy_server):
    entry = comfy_server.wait(comfy_server.queue(pairs_prompt(model_name=TINY_EDITOR)))
    assert "8 input channels; that is an editor" in error_of(entry)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"3": node("LoadCLIPScorer", scorer_name="../x.safetensors", architecture="")}, "There is no CLIP model"),
        (
            {
                "2": node("LoadPairs", dataset_name="../x", split="all", count=0, num_shown=1),
                "4": filter_node(pairs=["2", 0]),
            },
            "does not lie inside",
        ),
    ],
)
def test_names_that_lead_outside_are_refused_before_the_run(comfy_server, changed, words):
    with pytest.raises(Refused) as refusal:
        comfy_server.queue({**pairs_prompt(), **changed})
    assert words in json.dumps(refusal.value.answer)
