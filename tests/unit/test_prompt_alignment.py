from __future__ import annotations

import random

import pytest
import torch

from ip2p.ip2p_core.errors import ConfigError
from ip2p.ip2p_core.prompt_alignment import (
    Caption,
    align_refined_tokens,
    check_captions,
    map_replaced_words,
    map_tokens,
)
from ip2p.tests.parity.prompt_to_prompt_reference import split_caption

WORDS = ["a", "cat", "black", "mat", "on", "smiling", "bicycle", "the", "mountain", "hat", "watercolour", "now", "at"]


def random_pairs(num_pairs: int, seed: int, same_count: bool) -> list[tuple[Caption, Caption]]:
    draw = random.Random(seed)
    pairs = []
    while len(pairs) < num_pairs:
        words = [draw.choice(WORDS) for _ in range(draw.randint(1, 9))]
        edited = [draw.choice(WORDS) if draw.random() < 0.3 else word for word in words]
        if not same_count:
            edited.insert(draw.randint(0, len(edited)), draw.choice(WORDS))
        if edited != words:
            pairs.append((split_caption(" ".join(words)), split_caption(" ".join(edited))))
    return pairs


def test_refining_gives_the_published_positions_and_shares():
    refined = align_refined_tokens(
        split_caption("a cat on mat", 12), split_caption("a black cat on mat now", 12), "reference"
    )
    assert refined.positions == (0, 1, -1, -1, 2, 3, 4, -1, 5, 9, 10, 11)
    assert refined.shares == (1, 1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 1)


def test_aligned_refining_maps_padding_to_padding():
    refined = align_refined_tokens(split_caption("a cat on mat", 12), split_caption("a black cat on mat now", 12))
    assert refined.positions == (0, 1, -1, -1, 2, 3, 4, -1, 5, 6, 7, 8)


def test_a_shorter_caption_takes_padding_from_words_only_in_the_published_mapper():
    pair = split_caption("a red cat on mat", 10), split_caption("cat on mat", 10)
    assert align_refined_tokens(*pair, "reference").positions[4:] == (6, 5, 6, 7, 8, 9)
    assert align_refined_tokens(*pair, "aligned").positions[4:] == (6, 7, 8, 9, 9, 9)


def test_two_tokens_to_one_sum_to_two_in_the_published_mapper():
    source_map = map_replaced_words(split_caption("a black hat"), split_caption("a red hat"), "reference")
    assert source_map[:, 2].sum() == 2.0


def test_two_tokens_to_one_sum_to_one_in_the_aligned_mapper():
    source_map = map_replaced_words(split_caption("a black hat"), split_caption("a red hat"))
    assert source_map[:, 2].nonzero().flatten().tolist() == [2, 3]
    assert source_map[:, 2].sum() == 1.0


def test_one_token_to_two_gives_each_half_in_the_published_mapper_and_all_in_the_aligned_one():
    pair = split_caption("a red hat"), split_caption("a black hat")
    assert map_replaced_words(*pair, "reference")[2, 2:4].tolist() == [0.5, 0.5]
    assert map_replaced_words(*pair, "aligned")[2, 2:4].tolist() == [1.0, 1.0]


def test_after_a_swap_of_unequal_length_the_aligned_mapper_finds_the_same_word_and_the_published_one_does_not():
    pair = split_caption("a black hat"), split_caption("a red hat")  # "hat" is token 4, then token 3
    assert map_replaced_words(*pair, "aligned")[:, 3].nonzero().flatten().tolist() == [4]
    assert map_replaced_words(*pair, "reference")[:, 3].nonzero().flatten().tolist() == [3]


def test_several_swaps_of_unequal_length_are_mapped_as_published():
    source_map = map_replaced_words(
        split_caption("the black cat on mountain", 12), split_caption("the red bicycle on mat", 12), "reference"
    )
    wanted = torch.zeros(12, 12)
    for source, edited, weight in [
        (0, 0, 1), (1, 1, 1), (2, 2, 1), (3, 2, 1), (4, 3, 0.5), (4, 4, 0.5), (5, 5, 1), (6, 6, 1), (7, 6, 1),
        (7, 7, 1), (8, 8, 1), (9, 9, 1), (10, 10, 1),
    ]:  # fmt: skip
        wanted[source, edited] = weight
    torch.testing.assert_close(source_map, wanted, rtol=0, atol=0)


def test_words_of_equal_length_are_mapped_one_by_one_in_both_mappers():
    pair = split_caption("a black cat"), split_caption("a white cat")
    for mapper in ("aligned", "reference"):
        torch.testing.assert_close(map_replaced_words(*pair, mapper), torch.eye(77), rtol=0, atol=0)


def test_every_edited_token_of_the_aligned_replacement_takes_weights_that_sum_to_one():
    for source, edited in random_pairs(200, seed=0, same_count=True):
        torch.testing.assert_close(map_replaced_words(source, edited).sum(0), torch.ones(77))


def test_every_edited_token_of_a_refinement_takes_one_source_token_or_none():
    for source, edited in random_pairs(50, seed=1, same_count=False):
        source_map, shares = map_tokens("refine", source, edited)
        torch.testing.assert_close(source_map.sum(0), shares, rtol=0, atol=0)


def test_a_refinement_never_crosses_over():
    for source, edited in random_pairs(50, seed=2, same_count=False):
        kept = [position for position in align_refined_tokens(source, edited).positions if position >= 0]
        assert kept == sorted(kept)


def test_words_are_read_from_byte_pair_tokens():
    caption = Caption(("a</w>", "caf", "Ã©</w>", ",</w>", "t</w>", "-</w>", "shirt</w>"))
    assert [word.text for word in caption.words] == ["a", "café", ",", "t", "-", "shirt"]


@pytest.mark.parametrize(
    ("phrase", "positions"),
    [("cat", (2, 3, 9, 10)), ("CAT", (2, 3, 9, 10)), ("on t-shirt", (5, 6, 7, 8)), ("cat,", (2, 3, 4))],
)
def test_a_word_or_words_in_a_row_are_found_at_every_occurrence(phrase, positions):
    caption = Caption(
        ("a</w>", "ca", "t</w>", ",</w>", "on</w>", "t</w>", "-</w>", "shirt</w>", "ca", "t</w>", "catalogue</w>")
    )
    assert caption.find(phrase) == positions


def test_a_word_that_does_not_occur_is_named_with_the_caption():
    with pytest.raises(ConfigError, match="'dog' does not occur in 'a black cat'"):
        split_caption("a black cat").find("dog")


def test_an_empty_caption_is_refused():
    with pytest.raises(ConfigError, match="caption is empty"):
        split_caption("  ")


def test_a_caption_that_is_too_long_says_what_would_be_cut():
    split_caption("one " * 75)
    with pytest.raises(ConfigError, match="79 tokens with start and end, 77 fit: 'two six' would be cut"):
        split_caption("one " * 75 + "two six")


def test_equal_captions_are_refused():
    with pytest.raises(ConfigError, match="both 'a cat'"):
        check_captions(split_caption("a cat"), split_caption("a cat"))


def test_replacing_refuses_another_number_of_words():
    with pytest.raises(ConfigError, match="has 2 words and the edited caption 3"):
        map_replaced_words(split_caption("a cat"), split_caption("a black cat"))
