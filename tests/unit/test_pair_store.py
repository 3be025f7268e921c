from __future__ import annotations

import io
import json
import pickle
import tracemalloc
from collections import Counter
from dataclasses import replace

import pyarrow
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from ip2p.ip2p_core.errors import PairStoreError
from ip2p.ip2p_core.pair_record import SPLITS, ImageBytes, ImageFile, encode_png, pair_seed, split_of
from ip2p.ip2p_core.pair_store import PairStore, PairWriter, SaveLimits, Unit
from ip2p.ip2p_core.randomness import hash64
from ip2p.tests.unit.pair_store_samples import (
    CONFIG,
    NO_LIMITS,
    NUM_PROMPTS,
    add_all,
    add_prompt,
    content,
    record,
    rejected,
    unit,
)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "pairs"


@pytest.fixture
def written(folder):
    add_all(folder)
    return folder


def test_a_record_comes_back_as_it_was(folder):
    wanted = record(0, 2, has_mask=True)
    with PairWriter(folder, CONFIG) as writer:
        writer.add_record(wanted)
    (found,) = PairStore(folder).records()
    for name in ("original", "edited", "mask"):
        assert getattr(found, name).read() == getattr(wanted, name).read()
    assert replace(found, original=wanted.original, edited=wanted.edited, mask=wanted.mask) == wanted


def test_a_record_without_scores_mask_and_threshold_comes_back_so(folder):
    wanted = replace(record(0, 0), scores=None, p2p_threshold=None, text_guidance_scale=None)
    with PairWriter(folder, CONFIG) as writer:
        writer.add_record(wanted)
    (found,) = PairStore(folder).records()
    assert (found.scores, found.p2p_threshold, found.text_guidance_scale, found.mask) == (None, None, None, None)


@pytest.mark.parametrize("seed", [0, 2**63, 2**64 - 1])
def test_the_whole_range_of_seeds_is_kept(folder, seed):
    with PairWriter(folder, CONFIG) as writer:
        writer.add_record(replace(record(0, 0), seed=seed))
    assert [one.seed for one in PairStore(folder).records()] == [seed]


def test_the_columns_begin_as_the_training_script_of_diffusers_needs_them(written):
    schema = parquet.read_schema(next(written.glob("shards/*.parquet")))
    assert schema.names[:3] == ["input_image", "edit_prompt", "edited_image"]
    assert schema.field(0).type == pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert list(features) == schema.names
    assert features["input_image"] == {"_type": "Image"}


def test_the_manifest_names_every_shard_with_rows_hash_and_prompts(written):
    manifest = json.loads((written / "manifest.json").read_text())
    assert manifest["format_version"] == 1
    assert len(manifest["config_hash"]) == 16
    assert [entry["rows"] for entry in manifest["shards"]] == [4, 4, 2]
    assert all(
        len(entry["sha256"]) == 64 and entry["first_prompt"] <= entry["last_prompt"] for entry in manifest["shards"]
    )


def test_the_ledger_has_every_candidate_accepted_or_not(written):
    rows = [row for batch in PairStore(written).ledger() for row in batch.to_pylist()]
    assert len(rows) == NUM_PROMPTS * 4
    assert Counter(row["reason"] for row in rows) == {"": 10, "directional": 6, "not_made": 8}
    assert {row["score_image"] for row in rows if row["reason"] == "directional"} == {0.5}


def test_a_unit_without_pairs_is_done_too(written):
    with PairWriter(written, CONFIG) as writer:
        assert writer.is_done(unit(4))


def test_a_second_run_adds_nothing(written):
    before = content(written), (written / "manifest.json").read_bytes()
    with PairWriter(written, CONFIG) as writer:
        assert [add_prompt(writer, number) for number in range(NUM_PROMPTS)] == [False] * NUM_PROMPTS
    assert (content(written), (written / "manifest.json").read_bytes()) == before


def test_further_samples_of_a_prompt_can_be_added(written):
    with PairWriter(written, CONFIG) as writer:
        assert not writer.is_done(unit(0, 4, 6))
        assert writer.add(unit(0, 4, 6), [record(0, 5)])
    assert sum(one.prompt_id == unit(0).prompt_id for one in PairStore(written).records()) == 3


def test_a_unit_that_overlaps_is_refused(written):
    with (
        PairWriter(written, CONFIG) as writer,
        pytest.raises(PairStoreError, match=r"Of the samples 2 to 7 .* 2 are in"),
    ):
        writer.add(unit(0, 2, 8), [record(0, 5)])


def test_a_pair_outside_its_unit_is_refused(folder):
    with PairWriter(folder, CONFIG) as writer, pytest.raises(PairStoreError, match="does not belong to the unit"):
        writer.add(unit(0), [record(1, 0)])


def test_a_pair_that_comes_twice_in_its_unit_is_refused(folder):
    with PairWriter(folder, CONFIG) as writer, pytest.raises(PairStoreError, match="comes twice"):
        writer.add(unit(0), [record(0, 1)], [rejected(0, 1)])


def test_a_refused_unit_leaves_nothing_behind(folder):
    with PairWriter(folder, CONFIG, NO_LIMITS) as writer:
        with pytest.raises(PairStoreError):
            writer.add(unit(0), [record(0, 0), record(1, 0)])
        assert not writer.is_done(unit(0))
    assert len(PairStore(folder)) == 0


def test_pictures_of_different_sizes_are_refused(folder):
    bad = replace(record(0, 0), edited=record(0, 0, size=9).edited)
    with PairWriter(folder, CONFIG) as writer, pytest.raises(PairStoreError, match="both need the same size"):
        writer.add_record(bad)


def test_another_configuration_is_refused_and_named(written):
    with pytest.raises(PairStoreError, match=r"made with other settings \(mode\)"):
        PairWriter(written, {**CONFIG, "mode": "paper_text"})


def test_a_second_writer_is_refused(written):
    with PairWriter(written, CONFIG), pytest.raises(PairStoreError, match="Another process is writing"):
        PairWriter(written, CONFIG)


def test_a_folder_with_other_things_is_not_taken(tmp_path):
    (tmp_path / "holiday.jpg").write_text("x")
    with pytest.raises(PairStoreError, match="not empty and not a dataset of pairs"):
        PairWriter(tmp_path, CONFIG)


def test_another_format_version_is_refused_on_opening(written):
    path = written / "manifest.json"
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 2'))
    with pytest.raises(PairStoreError, match="has the dataset format 2; this program reads format 1"):
        PairStore(written)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"kind": "else"}'])
def test_a_damaged_manifest_is_one_sentence(written, text):
    (written / "manifest.json").write_text(text)
    with pytest.raises(PairStoreError, match=r"manifest.json"):
        PairStore(written)


def test_a_folder_without_manifest_is_no_dataset(tmp_path):
    with pytest.raises(PairStoreError, match="is not a dataset of pairs"):
        PairStore(tmp_path)


def test_the_splits_share_out_all_pairs(written):
    store = PairStore(written)
    keys = [[one.key for one in store.records(split)] for split in ("train", "val", "test")]
    assert sorted(key for some in keys for key in some) == sorted(one.key for one in store.records())


def test_the_splits_have_their_sizes_and_never_change():
    counts = Counter(split_of(f"{hash64(i):016x}") for i in range(20_000))
    assert abs(counts["train"] / 20_000 - 0.90) < 0.01
    assert abs(counts["val"] / 20_000 - 0.05) < 0.005
    # written down once: trainings depend on it
    assert [split_of(f"{hash64(i):016x}") for i in (0, 13, 21)] == ["train", "test", "val"]


def test_growth_moves_no_pair_to_another_split(written):
    def splits():
        return {one.key: name for name in SPLITS for one in PairStore(written).records(name)}

    before = splits()
    with PairWriter(written, CONFIG) as writer:
        for number in range(NUM_PROMPTS, NUM_PROMPTS + 10):
            add_prompt(writer, number)
    after = splits()
    assert len(after) == len(before) + 20
    assert {key: after[key] for key in before} == before


def test_a_million_draws_repeat_no_seed():
    prompts = [f"{hash64('prompt', i):016x}" for i in range(10_000)]
    assert len({pair_seed(7, prompt, index) for prompt in prompts for index in range(100)}) == 10**6


def test_a_hundred_pairs_at_512_pixels_hold_no_pictures(folder):
    noise = [record(0, i, size=512) for i in range(3)]
    with PairWriter(folder, CONFIG, SaveLimits(num_bytes=10 * 2**20, seconds=1e9)) as writer:
        for i in range(100):
            one = replace(noise[i % 3], sample_index=i)
            writer.add_record(one)
    tracemalloc.start()
    before = pyarrow.total_allocated_bytes()
    pairs = tuple(PairStore(folder).records())
    for pair in pairs[::10]:
        assert pair.original.tensor().shape == (512, 512, 3)
    held = tracemalloc.get_traced_memory()[0] + pyarrow.total_allocated_bytes() - before
    tracemalloc.stop()
    assert len(pairs) == 100
    assert held < 40 * 2**20  # as tensors they would be 630 MB, as PNG 150 MB


def test_handles_can_be_sent_to_another_process(written):
    pair = next(PairStore(written).records())
    assert pickle.loads(pickle.dumps(pair)).original.read() == pair.original.read()  # noqa: S301


def test_every_row_of_a_shard_with_many_groups_is_the_right_one(folder):
    with PairWriter(folder, CONFIG, NO_LIMITS) as writer:
        writer.add(Unit(unit(0).prompt_id, 0, 600), [record(0, i, size=4) for i in range(600)])
    store = PairStore(folder)
    assert parquet.read_metadata(next(folder.glob("shards/*"))).num_row_groups > 2
    for pair in list(store.records())[::37]:
        assert pair.edited.read() == record(0, pair.sample_index, size=4).edited.read()


def encoded(picture: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, **options)
    return buffer.getvalue()


@pytest.fixture
def rgb():
    return ImageBytes.from_tensor(torch.linspace(0, 1, 8 * 8 * 3).reshape(8, 8, 3)).picture()


@pytest.mark.parametrize("options", [{"format": "PNG"}, {"format": "WEBP", "lossless": True}])
def test_lossless_bytes_are_stored_as_they_are(rgb, options):
    data = encoded(rgb, **options)
    assert ImageBytes(data).lossless() == data


@pytest.mark.parametrize("options", [{"format": "JPEG"}, {"format": "WEBP", "quality": 80}, {"format": "BMP"}])
def test_other_formats_become_png_of_the_same_pixels(rgb, options):
    handle = ImageBytes(encoded(rgb, **options))
    assert handle.lossless().startswith(b"\x89PNG")
    assert torch.equal(ImageBytes(handle.lossless()).tensor(), handle.tensor())


def test_a_picture_on_its_side_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.jpg"
    Image.new("RGB", (8, 4)).save(path, exif=exif)
    assert ImageFile(path).picture().size == (4, 8)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (Image.new("RGBA", (2, 2), (0, 0, 0, 9)), "is transparent"),
        (Image.new("I;16", (2, 2)), "more than 8 bit"),
    ],
)
def test_a_transparent_or_deep_picture_is_refused(picture, message):
    with pytest.raises(PairStoreError, match=message):
        ImageBytes(encode_png(picture)).picture()


def test_an_opaque_picture_with_alpha_is_accepted():
    assert ImageBytes(encode_png(Image.new("RGBA", (2, 2), (9, 9, 9, 255)))).picture().mode == "RGB"


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n123"])
def test_bytes_that_are_no_picture_are_refused(data):
    with pytest.raises(PairStoreError, match="A picture in memory is"):
        ImageBytes(data).picture()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(PairStoreError, match=r"none.png cannot be read"):
        ImageFile(tmp_path / "none.png").read()
