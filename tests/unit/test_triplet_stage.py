"""Captions in, filters, the journal, and the triplets that come with the program."""

from __future__ import annotations

import json
import random
from collections import Counter

import pyarrow as pa
import pytest
from pyarrow import parquet

from ip2p.ip2p_core.errors import BadTriplet, ConfigError, PairStoreError
from ip2p.ip2p_core.instruction_writer import EDIT_TYPES, classify_edit
from ip2p.ip2p_core.triplet import read_triplets
from ip2p.trainer.triplets.captions import read_captions
from ip2p.trainer.triplets.check import STARTER, find_faults
from ip2p.trainer.triplets.config import TripletsConfig
from ip2p.trainer.triplets.filters import Limits, RunFilter, changed_share, find_own_fault
from ip2p.trainer.triplets.journal import NAME, Entry, Journal
from ip2p.trainer.triplets.moderation import load_moderator
from ip2p.trainer.triplets.near_duplicates import NearDuplicates, shingles, similarity
from ip2p.trainer.triplets.questions import ask_of

TEXTS = ["a cat on a sofa", "Ein Mädchen im Café", "a dog in the snow"]


def texts_of(path, **options):
    return [one.text for one in read_captions(path, **options).captions]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
@pytest.mark.parametrize("suffix", [".txt", ".csv", ".tsv", ".jsonl"])
def test_captions_are_read_in_every_encoding_and_kind(tmp_path, suffix, encoding):
    path = tmp_path / f"captions{suffix}"
    rows = {
        ".txt": TEXTS,
        ".csv": ["url,TEXT", *(f'u{i},"{text}"' for i, text in enumerate(TEXTS))],
        ".tsv": ["url\tcaption", *(f"u{i}\t{text}" for i, text in enumerate(TEXTS))],
        ".jsonl": [json.dumps({"input": text}, ensure_ascii=False) for text in TEXTS],
    }[suffix]
    path.write_bytes("\n".join(rows).encode(encoding))
    assert texts_of(path) == TEXTS


def test_captions_are_read_from_parquet_files_and_folders_of_them(tmp_path):
    table = pa.table({"URL": ["a", "b", "c"], "my_column": TEXTS, "pixels": [b"x", b"y", b"z"]})
    parquet.write_table(table, tmp_path / "part-0.parquet")
    assert texts_of(tmp_path / "part-0.parquet", column="my_column") == TEXTS
    assert texts_of(tmp_path, column="my_column") == TEXTS
    with pytest.raises(BadTriplet, match="no column caption or TEXT"):
        read_captions(tmp_path)


def test_a_folder_of_pictures_gives_a_caption_for_each_with_the_text_beside_it(tmp_path):
    for name in ("a.png", "b.jpg"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "a.txt").write_text("a cat")
    found = read_captions(tmp_path).captions
    assert [(one.text, one.image) for one in found] == [
        ("a cat", str(tmp_path / "a.png")),
        ("", str(tmp_path / "b.jpg")),
    ]
    assert len({one.id for one in found}) == 2


def test_equal_captions_addresses_and_near_ones_are_left_out_and_counted(tmp_path):
    path = tmp_path / "captions.jsonl"
    rows = [
        {"caption": "a cat on a red sofa in the living room of a house", "url": "1"},
        {"caption": "A cat on a red sofa in the living room of a house. ", "url": "2"},
        {"caption": "a dog", "url": "1"},
        {"caption": "a cat on a red sofa in the living room of a big house", "url": "3"},
        {"caption": "a dog", "url": "4"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    found = read_captions(path, near_duplicate=0.7)
    assert [one.text for one in found.captions] == [rows[0]["caption"], "a dog"]
    assert (found.num_equal, found.num_same_url, found.num_near) == (1, 1, 1)


def test_malformed_lines_are_listed_with_their_numbers(tmp_path):
    path = tmp_path / "captions.jsonl"
    path.write_text('{"caption": "a cat"}\n{broken\n[1]\n{"caption": ""}\n{"caption": 3}\n\n"a dog"\n')
    found = read_captions(path)
    assert [one.text for one in found.captions] == ["a cat", "a dog"]
    assert sorted(one.line for one in found.malformed) == [2, 3, 4, 5]
    table = tmp_path / "captions.csv"
    table.write_text("caption,url\na cat,1\na,b,c,d\na dog,2\n")
    assert [one.line for one in read_captions(table).malformed] == [3]


@pytest.mark.parametrize(("name", "content", "words"), [("a.txt", "", "it is empty"), ("a.xyz", "x", "no known kind")])
def test_an_input_without_captions_is_one_sentence(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    with pytest.raises(BadTriplet, match=words):
        read_captions(tmp_path / name)


def test_near_duplicates_are_found_as_the_exact_similarity_says():
    rng = random.Random(0)
    words = [f"w{i}" for i in range(300)]
    near, kept = NearDuplicates(0.8), []
    for _ in range(400):
        text = " ".join(rng.choices(words, k=12)) if not kept or rng.random() < 0.6 else rng.choice(kept)
        if rng.random() < 0.5:
            text = f"{text} {rng.choice(words)}"
        exact = max((similarity(shingles(text), shingles(one)) for one in kept), default=0.0)
        found = near.find_or_add(text)
        assert (found is not None) == (exact >= 0.8)
        if found is None:
            kept.append(text)
        else:
            assert similarity(shingles(text), shingles(kept[found])) >= 0.8


def test_the_share_of_changed_words():
    assert changed_share("a red cat", "a red cat") == 0
    assert changed_share("a red cat", "a blue cat") == pytest.approx(1 / 3)
    assert changed_share("a cat", "a cat with a hat and boots") == pytest.approx(5 / 7)
    assert changed_share("one", "two") == 1


@pytest.mark.parametrize(
    ("instruction", "edited", "fault"),
    [
        ("make it night", "a harbour at night", ""),
        ("make it night", " . ", "empty"),
        ("make it night", "A harbour by day!", "identity"),
        ("A harbour at night", "a harbour at night", "instruction_is_caption"),
        ("make it night", "word " * 61, "too_many_words"),
        ("make it night", "an antidisestablishmentarianist " * 40, "too_many_tokens"),
        ("replace everything", "two cats on sofas", "changed_share"),
    ],
)
def test_each_fault_of_a_triplet_has_its_name(instruction, edited, fault):
    limits = Limits(max_words=60 if fault == "too_many_words" else 100, max_changed=1.0 if "too" in fault else 0.9)
    assert find_own_fault("a harbour by day", instruction, edited, limits) == fault


def entry(place, instruction="make it night", **more):
    thing = f"thing{place} colour{place} place{place}"
    return Entry(f"{place:016x}", 0, thing, instruction, f"{thing} at night", **more)


def test_duplicates_caps_and_quotas_are_found_in_order():
    caps = RunFilter(Limits(max_per_instruction=2))
    assert [caps.find_fault(entry(i)) for i in range(3)] == ["", "", "instruction_cap"]
    plain = RunFilter(Limits())
    assert [plain.find_fault(entry(1)), plain.find_fault(entry(1))] == ["", "equal"]
    near = RunFilter(Limits(near_duplicate=0.5))
    assert near.find_fault(entry(1)) == ""
    assert near.find_fault(entry(1)._replace(edited_caption="thing1 colour1 place1 by night")) == "near_duplicate"
    drop = RunFilter(Limits(keep_impossible=False))
    assert drop.find_fault(entry(1, "zoom in")) == "impossible_edit"
    quotas = RunFilter(Limits(quotas={"time": 0.25, "colour": 3.0}))
    kinds = [("time", "colour")[i % 2] for i in range(40)] + ["add"] * 40
    faults = Counter(kind for i, kind in enumerate(kinds) if not quotas.find_fault(entry(i, f"do {i}", edit_type=kind)))
    assert faults == {"time": 5, "colour": 3, "add": 40}


def test_a_journal_survives_a_half_line_and_names_a_damaged_one(tmp_path):
    with Journal(tmp_path) as journal:
        for place in range(3):
            journal.add(entry(place))
    path = tmp_path / NAME
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines(keepends=True)[0][:40])
    with Journal(tmp_path) as journal:
        assert list(journal.entries()) == [entry(place) for place in range(3)]
        journal.add(entry(3))
        assert len(list(journal.entries())) == 4
    path.write_bytes(b"{broken\n" + whole)
    with Journal(tmp_path) as journal, pytest.raises(PairStoreError, match="Line 1"):
        list(journal.entries())


def test_two_processes_cannot_write_one_journal(tmp_path):
    with Journal(tmp_path), pytest.raises(PairStoreError, match="Another process"):
        Journal(tmp_path)


def test_questions_have_seeds_of_their_own():
    from ip2p.trainer.triplets.captions import Caption, caption_id

    captions = [Caption(caption_id(f"caption {i}"), f"caption {i}") for i in range(2000)]
    seeds = {ask_of(one, index, 7).seed for one in captions for index in range(5)}
    assert len(seeds) == 10_000
    assert ask_of(captions[3], 1, 7).seed == ask_of(captions[3], 1, 7).seed


def test_moderation_is_pluggable_and_off_only_where_asked_for():
    words = load_moderator("words")
    assert words(["a naked man", "a cat", "grape harvest"]) == [True, False, False]
    assert load_moderator("off") is None
    assert load_moderator("json:dumps") is json.dumps
    for wrong in ("word", "no_such_module:f", "json:nothing"):
        with pytest.raises(ConfigError, match="module:function"):
            load_moderator(wrong)
    with pytest.raises(ConfigError, match="Give base_url"):
        load_moderator("server")


def test_all_mistakes_of_the_settings_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        TripletsConfig(
            captions="a", output="b", backend="server", template="x", max_changed=2.0, num_tries=0, quotas={"sing": 1.0}
        )
    assert len(caught.value.mistakes) == 5


def test_the_starter_set_has_700_sound_and_diverse_triplets():
    content = read_triplets(STARTER, "raise")
    assert len(content.triplets) == 700
    assert [one.text for one in find_faults(content.triplets)] == []
    lines = [json.loads(line) for line in STARTER.read_text(encoding="utf-8").splitlines()]
    kinds = Counter(line["edit_type"] for line in lines)
    assert set(kinds) == set(EDIT_TYPES)
    assert min(kinds.values()) >= 30
    assert len({one.instruction for one in content.triplets}) > 600
    right = sum(classify_edit(line["instruction"]) == line["edit_type"] for line in lines)
    assert right / len(lines) > 0.55
