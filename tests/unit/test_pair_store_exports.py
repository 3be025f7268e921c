"""The layouts that other trainers document."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace

import numpy
import pytest
from PIL import Image
from pyarrow import parquet

from ip2p.ip2p_core.errors import OutputExists, PairStoreError
from ip2p.ip2p_core.pair_record import split_of
from ip2p.ip2p_core.pair_store import PairStore, PairWriter
from ip2p.ip2p_core.pair_store.hub_export import export_hub
from ip2p.ip2p_core.pair_store.paired_export import export_paired
from ip2p.ip2p_core.pair_store.published_layout import export_published
from ip2p.tests.unit.pair_store_samples import CONFIG, NO_LIMITS, add_all, record, triplet

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@pytest.fixture
def store(tmp_path):
    add_all(tmp_path / "pairs", NO_LIMITS)
    return PairStore(tmp_path / "pairs")


def test_the_export_for_diffusers_has_the_columns_in_their_positions(store, tmp_path):
    # train_instruct_pix2pix.py: column_names[0] is the original, column_names[2] the edited picture
    assert export_hub(store, tmp_path / "hub") == 10
    seen = 0
    for path in (tmp_path / "hub" / "data").iterdir():
        split, number, of, total = path.stem.split("-")
        assert (number, of, total) == ("00000", "of", "00001")
        table = parquet.read_table(path)
        features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
        columns = list(features)
        assert columns[1] == "edit_prompt"
        assert features[columns[0]] == features[columns[2]] == {"_type": "Image"}
        for row in table.to_pylist():
            assert {"train": "train", "val": "validation", "test": "test"}[split_of(row["prompt_id"])] == split
            assert Image.open(io.BytesIO(row[columns[0]]["bytes"])).size == (12, 12)
            seen += 1
    assert seen == 10


FOLDERS = {
    "ai-toolkit": ("target", "control"),
    "musubi": ("images", "control"),
    "simpletuner": ("edited-images", "reference-images"),
}


@pytest.mark.parametrize("trainer", FOLDERS)
def test_paired_folders_have_equal_names_and_texts_beside_the_edited_pictures_alone(store, tmp_path, trainer):
    assert export_paired(store, tmp_path / "out", trainer) == 10
    edited, original = (tmp_path / "out" / name for name in FOLDERS[trainer])
    assert sorted(path.name for path in edited.glob("*.png")) == sorted(path.name for path in original.iterdir())
    assert sorted(path.stem for path in edited.glob("*.txt")) == sorted(path.stem for path in edited.glob("*.png"))
    for one in store.records():
        name = f"{one.prompt_id}_{one.sample_index:04d}"
        assert (edited / f"{name}.txt").read_text() == one.triplet.instruction
        for folder, handle in ((edited, one.edited), (original, one.original)):
            with Image.open(folder / f"{name}.png") as picture:
                assert numpy.array_equal(numpy.asarray(picture), numpy.asarray(handle.picture()))


def test_the_configuration_for_ai_toolkit_names_the_folders(store, tmp_path):
    export_paired(store, tmp_path / "out", "ai-toolkit")
    lines = (tmp_path / "out" / "datasets.yaml").read_text().splitlines()
    assert lines[1] == "datasets:"
    assert lines[2] == f'  - folder_path: "{tmp_path}/out/target"'
    assert lines[3] == f'    control_path: "{tmp_path}/out/control"'
    assert lines[4] == '    caption_ext: "txt"'


def test_the_configuration_for_musubi_names_the_folders(store, tmp_path):
    export_paired(store, tmp_path / "out", "musubi")
    config = tomllib.loads((tmp_path / "out" / "dataset.toml").read_text())
    assert config["general"]["resolution"] == [12, 12]
    assert config["general"]["caption_extension"] == ".txt"
    (dataset,) = config["datasets"]
    assert dataset["image_directory"] == f"{tmp_path}/out/images"
    assert dataset["control_directory"] == f"{tmp_path}/out/control"
    assert dataset["cache_directory"] not in (dataset["image_directory"], dataset["control_directory"])


def test_the_configuration_for_simpletuner_pairs_the_backends(store, tmp_path):
    export_paired(store, tmp_path / "out", "simpletuner")
    edited, reference, texts = json.loads((tmp_path / "out" / "multidatabackend.json").read_text())
    assert edited["conditioning_data"] == [reference["id"]]
    assert (edited["caption_strategy"], reference["caption_strategy"]) == ("textfile", None)
    assert (reference["dataset_type"], reference["conditioning_type"]) == ("conditioning", "reference_strict")
    assert edited["instance_data_dir"] == f"{tmp_path}/out/edited-images"
    assert reference["instance_data_dir"] == f"{tmp_path}/out/reference-images"
    assert edited["cache_dir_vae"] != reference["cache_dir_vae"]
    assert (texts["dataset_type"], texts["default"]) == ("text_embeds", True)


def test_an_instruction_of_several_lines_becomes_one_line(tmp_path):
    texts = replace(triplet(0), instruction="make it\n a dog")
    with PairWriter(tmp_path / "pairs", CONFIG) as writer:
        writer.add_record(replace(record(0, 0), triplet=texts))
    export_paired(PairStore(tmp_path / "pairs"), tmp_path / "out", "musubi")
    assert next((tmp_path / "out" / "images").glob("*.txt")).read_text() == "make it a dog"


def test_an_export_does_not_touch_a_folder_with_content(store, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    with pytest.raises(OutputExists, match="exists and is not empty"):
        export_published(store, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_an_export_that_fails_leaves_nothing(store, tmp_path):
    next((tmp_path / "pairs" / "shards").iterdir()).unlink()
    with pytest.raises(PairStoreError, match="is missing from"):
        export_paired(store, tmp_path / "out", "musubi")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))
