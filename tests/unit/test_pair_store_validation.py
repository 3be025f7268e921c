"""Checking, dropping, counting, duplicates, and rejecting by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy
import pytest
from PIL import Image

from ip2p.ip2p_core.errors import PairStoreError
from ip2p.ip2p_core.pair_record import ImageBytes, encode_png
from ip2p.ip2p_core.pair_store import PairStore, PairWriter
from ip2p.ip2p_core.pair_store.duplicates import find_duplicates
from ip2p.ip2p_core.pair_store.fingerprint import dhash, similar_groups
from ip2p.ip2p_core.pair_store.review import copy_without, read_rejections, reject, restore
from ip2p.ip2p_core.pair_store.statistics import compute_statistics
from ip2p.ip2p_core.pair_store.validation import drop_shards, validate
from ip2p.tests.unit.pair_store_samples import CONFIG, NO_LIMITS, add_all, content, record, unit


@pytest.fixture
def written(tmp_path):
    add_all(tmp_path / "pairs")
    return tmp_path / "pairs"


def second(folder):
    return PairStore(folder).manifest.shards[1]


def test_a_whole_dataset_has_no_fault(written):
    report = validate(written)
    assert (report.num_pairs, report.faults, report.left_overs) == (10, [], [])


@pytest.mark.parametrize("kind", ["shard_file", "ledger_file"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_file_is_named_and_only_its_pairs_are_made_again(written, kind, damage):
    wanted, entry = content(written), second(written)
    path = written / getattr(entry, kind)
    data = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    else:
        data[len(data) // 2] ^= 255
        path.write_bytes(data if damage == "flip" else data[: len(data) // 2])
    assert validate(written).bad_shards == [entry.name]
    untouched = {
        one.name: (written / one.shard_file).stat().st_mtime_ns for one in PairStore(written).manifest.shards[::2]
    }
    assert drop_shards(written, [entry.name]) == 4
    with PairWriter(written, CONFIG, NO_LIMITS) as writer:
        assert [writer.is_done(unit(number)) for number in range(6)] == [True, True, False, False, True, True]
    add_all(written)
    assert content(written) == wanted
    kept = PairStore(written).manifest.shards[:2]
    assert {one.name: (written / one.shard_file).stat().st_mtime_ns for one in kept} == untouched


def test_dropping_moves_the_files_and_deletes_nothing(written):
    entry = second(written)
    drop_shards(written, [entry.name])
    assert sorted(path.name for path in (written / "dropped").iterdir()) == [
        f"ledger-{entry.name}.parquet",
        f"shards-{entry.name}.parquet",
    ]


def test_a_damaged_picture_is_one_sentence_when_it_is_read(written):
    path = written / second(written).shard_file
    data = bytearray(path.read_bytes())
    data[200:600] = bytes(400)
    path.write_bytes(data)
    with pytest.raises(PairStoreError, match=r"is damaged .*validate --drop"):
        [one.original.picture() for one in PairStore(written).records()]


def test_a_record_whose_id_does_not_fit_its_texts_is_a_fault(tmp_path):
    with PairWriter(tmp_path / "pairs", CONFIG) as writer:
        writer.add_record(replace(record(0, 0), prompt_id="0" * 16))
    assert "has texts whose prompt_id is" in validate(tmp_path / "pairs").faults[0].reason


def test_an_unknown_shard_cannot_be_dropped(written):
    with pytest.raises(PairStoreError, match="has no shard none"):
        drop_shards(written, ["none"])


def test_the_statistics_count_what_was_added(written):
    figures = compute_statistics(PairStore(written)).to_dict()
    assert (figures["pairs"], figures["candidates"], figures["prompts"], figures["prompts_without_pair"]) == (
        10,
        24,
        6,
        1,
    )
    assert figures["not_accepted_because"] == {"directional": 6, "not_made": 8}
    assert sum(figures["splits"].values()) == 10
    assert figures["accepted_span"]["score_directional"] == pytest.approx({"mean": 0.21, "min": 0.2, "max": 0.22})
    assert figures["candidates_span"]["score_directional"]["min"] == 0.0
    assert figures["bytes"] == sum(path.stat().st_size for path in written.glob("*/*.parquet"))


def test_exact_duplicates_and_pairs_without_change_are_found(tmp_path):
    one = record(0, 0)
    with PairWriter(tmp_path / "pairs", CONFIG) as writer:
        writer.add_record(one)
        writer.add_record(replace(record(1, 0), original=one.original, edited=one.edited))
        writer.add_record(replace(record(2, 0), edited=record(2, 0).original))
    found = find_duplicates(PairStore(tmp_path / "pairs"))
    assert found.exact == [[(unit(0).prompt_id, 0), (unit(1).prompt_id, 0)]]
    assert found.unchanged == [(unit(2).prompt_id, 0)]
    assert found.similar == []


def with_one_other_pixel(handle):
    picture = handle.picture()
    red, green, blue = picture.getpixel((16, 16))
    picture.putpixel((16, 16), (red ^ 1, green, blue))
    return ImageBytes(encode_png(picture))


def test_pairs_that_look_alike_are_found(tmp_path):
    one = record(0, 0, size=32)
    alike = replace(record(1, 0), original=with_one_other_pixel(one.original), edited=with_one_other_pixel(one.edited))
    with PairWriter(tmp_path / "pairs", CONFIG) as writer:
        for pair in (one, alike, record(2, 0, size=32)):
            writer.add_record(pair)
    found = find_duplicates(PairStore(tmp_path / "pairs"))
    assert found.similar == [[(unit(0).prompt_id, 0), (unit(1).prompt_id, 0)]]
    assert found.exact == []


def test_the_difference_hash_marks_cells_brighter_than_their_right_neighbour():
    falling = numpy.tile(numpy.linspace(255, 0, 9).astype(numpy.uint8), (8, 1))
    assert dhash(Image.fromarray(falling)) == 2**64 - 1
    assert dhash(Image.fromarray(falling[:, ::-1].copy())) == 0


def test_similar_hashes_are_grouped_as_a_comparison_of_all_with_all_groups_them():
    draw = numpy.random.default_rng(0)
    bases = draw.integers(0, 2**63, (40, 2), dtype=numpy.uint64)
    rows = bases[draw.integers(0, 40, 200)].copy()
    for row in rows:
        for bit in draw.choice(128, draw.integers(0, 3), replace=False):
            row[bit // 64] ^= numpy.uint64(1) << numpy.uint64(bit % 64)
    labels = list(range(200))
    for i in range(200):
        for j in range(i):
            if sum(bin(int(a) ^ int(b)).count("1") for a, b in zip(rows[i], rows[j], strict=True)) <= 3:
                old, new = labels[i], labels[j]
                labels = [new if label == old else label for label in labels]
    wanted = {frozenset(i for i in range(200) if labels[i] == label) for label in labels}
    found = similar_groups(rows[:, 0], rows[:, 1])
    assert {frozenset(group) for group in found} == {group for group in wanted if len(group) > 1}


def write_list(path, keys, **changes):
    rejected = [{"prompt_id": prompt, "sample_index": index} for prompt, index in keys]
    path.write_text(json.dumps({"format": "ip2p.rejected_pairs", "rejected": rejected, **changes}))
    return path


def test_rejected_pairs_are_left_out_and_come_back(written):
    keys = [one.key for one in PairStore(written).records()][:3]
    assert reject(written, keys) == 3
    assert reject(written, keys) == 0
    store = PairStore(written)
    assert len(store) == 7
    assert not {one.key for one in store.records()} & set(keys)
    assert len(list(store.records(is_with_rejected=True))) == 10
    assert restore(written, keys[:1]) == 1
    assert len(PairStore(written)) == 8


def test_rejected_pairs_are_not_made_again(written):
    reject(written, [next(PairStore(written).records()).key])
    add_all(written)
    assert len(PairStore(written)) == 9


def test_a_copy_leaves_out_pairs_and_keeps_every_candidate(written, tmp_path):
    keys = [one.key for one in PairStore(written).records()][:3]
    reject(written, keys[:1])
    assert copy_without(written, keys[1:], tmp_path / "copy") == 7
    pairs, ledger = content(tmp_path / "copy")
    old_pairs, old_ledger = content(written)
    assert pairs == {key: value for key, value in old_pairs.items() if key not in keys}
    assert len(ledger) == len(old_ledger)
    assert sum(row["reason"] == "rejected_by_hand" for row in ledger) == 3
    assert validate(tmp_path / "copy").faults == []


def test_a_list_with_unknown_pairs_is_refused(written):
    with pytest.raises(PairStoreError, match=r"has no pair none/3 \(1 of 1 in the list\)"):
        reject(written, [("none", 3)])


def test_a_list_names_each_pair_once(tmp_path):
    assert read_rejections(write_list(tmp_path / "a.json", [("a", 1), ("b", 2), ("a", 1)])) == [("a", 1), ("b", 2)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"format": "else"}, "is no list of rejected pairs"), ({"rejected": [{"prompt_id": "a"}]}, "an entry without")],
)
def test_another_json_file_is_no_list(tmp_path, changes, message):
    with pytest.raises(PairStoreError, match=message):
        read_rejections(write_list(tmp_path / "a.json", [], **changes))
