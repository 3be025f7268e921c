from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from ip2p.ip2p_core.errors import BadTriplet
from ip2p.ip2p_core.triplet import Triplet, deduplicate, normalise, prompt_id, read_triplets, to_json

CAT = Triplet("A cat on a mat", "make it a dog", "A dog on a mat", "test")


def write(path, *lines):
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines))
    return path


def test_the_prompt_id_never_changes():
    # written down once: datasets depend on it
    assert prompt_id(CAT) == "b1ee55b84a0198c5"


def test_the_prompt_id_is_the_same_in_another_process():
    code = f"from ip2p.ip2p_core.triplet import Triplet, prompt_id; print(prompt_id({CAT!r}))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == prompt_id(CAT)


@pytest.mark.parametrize(
    "change",
    [
        {"caption": "  a CAT  on a mat. "},
        {"instruction": "Make it a dog!"},
        {"edited_caption": "a dog\non a mat"},
        {"source": "elsewhere"},
    ],
)
def test_case_white_space_final_marks_and_source_do_not_change_the_prompt_id(change):
    assert prompt_id(replace(CAT, **change)) == prompt_id(CAT)


@pytest.mark.parametrize(
    "other",
    [
        replace(CAT, caption="A cat on the mat"),
        replace(CAT, instruction="make it a wolf"),
        replace(CAT, edited_caption="A wolf on a mat"),
        Triplet(CAT.instruction, CAT.caption, CAT.edited_caption),
        Triplet(CAT.caption + " make", "it a dog", CAT.edited_caption),
    ],
)
def test_texts_order_and_boundaries_change_the_prompt_id(other):
    assert prompt_id(other) != prompt_id(CAT)


def test_different_spellings_of_one_letter_are_equal():
    assert normalise("cafe\u0301") == normalise("caf\u00e9")


@pytest.mark.parametrize(
    "names",
    [("caption", "instruction", "edited_caption"), ("input", "edit", "output"), ("caption", "edit", "output")],
)
def test_our_field_names_and_the_published_ones_are_read(tmp_path, names):
    texts = (CAT.caption, CAT.instruction, CAT.edited_caption)
    path = write(tmp_path / "a.jsonl", dict(zip(names, texts, strict=True)))
    assert read_triplets(path).triplets == (replace(CAT, source="a.jsonl"),)


def test_what_is_written_is_read_again(tmp_path):
    path = tmp_path / "a.jsonl"
    other = replace(CAT, caption="Zoë", edit_type="replace")
    path.write_text(to_json(CAT) + "\n\n" + to_json(other), encoding="utf-8")
    assert read_triplets(path).triplets == (CAT, other)


GOOD = {"caption": "a", "edit": "b", "output": "c"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b'{"caption": "\xff"}', "not JSON"),
        ({"caption": "a", "edit": "b"}, "neither 'edited_caption' nor 'output' is there"),
        ({**GOOD, "edit": 3}, "'edit' is int, not a text"),
        ({**GOOD, "caption": " . "}, "caption is empty"),
        ({**GOOD, "output": "A."}, "caption and edited_caption are equal"),
        ({**GOOD, "input": "z"}, "'caption' and 'input' are both there and differ"),
    ],
)
def test_a_malformed_line_is_listed_with_its_number_and_reason(tmp_path, line, reason):
    content = read_triplets(write(tmp_path / "a.jsonl", GOOD, b"", line, GOOD))
    assert len(content.triplets) == 2
    assert [one.line for one in content.malformed] == [3]
    assert reason in content.malformed[0].reason
    assert "2 triplets; 1 malformed line (line 3: " in content.report()


def test_a_malformed_line_is_fatal_by_choice(tmp_path):
    path = write(tmp_path / "a.jsonl", GOOD, b"{")
    with pytest.raises(BadTriplet, match=r"a.jsonl has 1 malformed line \(line 2: not JSON"):
        read_triplets(path, on_malformed="raise")


def test_a_file_without_any_triplet_is_refused(tmp_path):
    with pytest.raises(BadTriplet, match=r"holds no usable triplet \(1 malformed line"):
        read_triplets(write(tmp_path / "a.jsonl", b"{"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadTriplet, match=r"none.jsonl cannot be read"):
        read_triplets(tmp_path / "none.jsonl")


def test_a_byte_order_mark_is_no_fault(tmp_path):
    path = write(tmp_path / "a.jsonl", b"\xef\xbb\xbf" + json.dumps(GOOD).encode())
    assert read_triplets(path, on_malformed="raise").triplets[0].caption == "a"


def test_the_first_of_equal_triplets_is_kept():
    again, other = replace(CAT, caption="a cat on a mat!"), replace(CAT, caption="A bird")
    assert deduplicate([CAT, other, again]) == [CAT, other]
