from __future__ import annotations

import pytest

from ip2p.ip2p_core.errors import BadInstruction
from ip2p.ip2p_core.instruction import clean_instruction, describe_truncation, split_lines


def count_tokens(text: str) -> int:
    """Two tokens per word, a start and an end token."""
    return 2 * len(text.split()) + 2


@pytest.mark.parametrize("text", ["", "   ", "\n\t \n"])
def test_an_empty_instruction_is_refused_with_an_example(text):
    for function in (clean_instruction, lambda text: split_lines(text, 2)):
        with pytest.raises(BadInstruction, match='is empty; write what shall change, for example "make it'):
            function(text)


def test_white_space_is_cleaned_and_emoji_stay():
    assert clean_instruction("  make   it\tsnow ❄️\n") == "make it snow ❄️"


def test_one_line_serves_all_images():
    assert split_lines("make it red\n", 3) == ["make it red"] * 3


def test_as_many_lines_as_images_serve_one_each():
    assert split_lines("make it red\n\n  make it blue ", 2) == ["make it red", "make it blue"]


@pytest.mark.parametrize(("num_images", "words"), [(1, "2 lines of instruction for 1 image;"), (3, "for 3 images;")])
def test_counts_that_differ_are_refused_with_both(num_images, words):
    with pytest.raises(BadInstruction, match=words):
        split_lines("make it red\nmake it blue", num_images)


def test_what_fits_is_not_mentioned():
    assert describe_truncation(" ".join(["word"] * 37), count_tokens) is None


def test_what_is_cut_is_named():
    words = [f"w{i}" for i in range(40)]
    sentence = describe_truncation(" ".join(words), count_tokens)
    assert "has 82 tokens and the text encoder reads 77" in sentence
    assert 'the last 3 of 40 words are cut, from "w37 w38 w39"' in sentence


def test_a_long_cut_is_shortened():
    sentence = describe_truncation(" ".join(f"w{i}" for i in range(500)), count_tokens)
    assert 'the last 463 of 500 words are cut, from "w37 w38 w39 w40 w41 ... w498 w499"' in sentence


def test_one_endless_word_is_named_too():
    assert "the last 1 of 1 words are cut" in describe_truncation("x" * 900, lambda text: len(text) + 2)
