from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ip2p.ip2p_core.attention_sharing import StepPlan, attend, read_word_maps, source_rows
from ip2p.ip2p_core.cross_attention_edit import AttentionEdit, make_attention_edit
from ip2p.ip2p_core.errors import ConfigError
from ip2p.ip2p_core.prompt_alignment import Caption, align_refined_tokens, map_replaced_words
from ip2p.ip2p_core.prompt_to_prompt import PromptToPrompt
from ip2p.tests.parity import prompt_to_prompt_reference as reference
from ip2p.tests.parity.prompt_to_prompt_reference import Controller, CrossEdit, split_caption, window_table

BOTH = (False, True)
SOURCE = split_caption("a black cat on mat")
REPLACED = split_caption("a red bicycle on mat")
REFINED = split_caption("a smiling black cat on the mat")
WEIGHTS = {"bicycle": 2.5, "on": -1.0}
WINDOWS: dict[str, Any] = {"default_": (0.0, 0.8), "on": (0.2, 0.6)}
CASES: dict[str, dict[str, Any]] = {
    "replace": {"kind": "replace", "cross_replace": 0.8},
    "refine": {"kind": "refine", "cross_replace": 0.5},
    "reweight": {"kind": "reweight", "word_weights": WEIGHTS, "cross_replace": 0.9},
    "replace and reweight": {"kind": "replace", "word_weights": WEIGHTS, "cross_replace": WINDOWS},
    "refine and reweight": {"kind": "refine", "word_weights": {"smiling": 3.0}, "cross_replace": WINDOWS},
    "words without a default": {"kind": "replace", "cross_replace": {"bicycle": 0.4}},
}


def edited_caption(case: str) -> Caption:
    return REFINED if "refine" in case else REPLACED


def edit_of(case: str, mapper: Any = "reference") -> AttentionEdit:
    return make_attention_edit(
        source=SOURCE, edited=edited_caption(case), mapper=mapper, self_replace=0.5, **CASES[case]
    )


def published_edit(case: str, mapper: Any) -> CrossEdit | None:
    kind, edited = CASES[case]["kind"], edited_caption(case)
    edit = None
    if kind == "replace":
        edit = reference.replace_words(map_replaced_words(SOURCE, edited, mapper)[None])
    elif kind == "refine":
        refined = align_refined_tokens(SOURCE, edited, mapper)
        edit = reference.refine_words(torch.tensor([refined.positions]), torch.tensor([refined.shares]))
    weights = CASES[case].get("word_weights")
    if weights:
        equalizer = torch.ones(1, 77)
        for word, weight in weights.items():
            equalizer[:, list(edited.find(word))] = weight
        edit = reference.reweight_words(equalizer, edit)
    return edit


def controller_of(case: str, num_steps: int, mapper: Any = "reference", **options: Any) -> Controller:
    spans = CASES[case]["cross_replace"]
    spans = spans if isinstance(spans, dict) else {"default_": spans}
    spans = {word: span if isinstance(span, tuple) else (0.0, span) for word, span in spans.items()}
    windows = window_table(num_steps, [spans], [edited_caption(case)])
    return Controller(published_edit(case, mapper), windows, (0, int(0.5 * num_steps)), **options)


def random_layer(rows: int, num_queries: int, is_cross: bool, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    num_keys = 77 if is_cross else num_queries
    q = torch.randn(rows, 2, num_queries, 8, generator=generator) * 1.5
    k, v = torch.randn(2, rows, 2, num_keys, 8, generator=generator) * 1.5
    return q, k, v


@pytest.mark.parametrize("num_steps", [4, 5, 25])
@pytest.mark.parametrize("mapper", ["aligned", "reference"])
@pytest.mark.parametrize("case", CASES)
def test_every_layer_and_step_equals_the_published_controller(case, mapper, num_steps):
    sharing = PromptToPrompt(source_rows=(0, 0), edits=(None, edit_of(case, mapper)), max_self_tokens=36)
    controller = controller_of(case, num_steps, mapper, max_self_tokens=36)
    for step in range(num_steps):
        plan = sharing.plan(step, num_steps, BOTH)
        for layer, (num_queries, is_cross) in enumerate([(16, True), (36, False), (64, True), (49, False)]):
            qkv = random_layer(4, num_queries, is_cross, seed=10 * step + layer)
            wanted = reference.attend(*qkv, lambda p, is_cross=is_cross: controller(p, is_cross, "up"))
            torch.testing.assert_close(attend(*qkv, plan, is_cross=is_cross), wanted, rtol=0, atol=1e-5)
        controller.end_step(torch.zeros(2))


@pytest.mark.parametrize("limit", [16**2, 32**2, None])
@pytest.mark.parametrize("num_queries", [16**2, 17**2, 32**2, 33**2])
def test_self_attention_is_shared_up_to_the_limit(limit, num_queries):
    sharing = PromptToPrompt(source_rows=(0, 0), edits=(None, edit_of("replace")), max_self_tokens=limit)
    qkv = random_layer(2, num_queries, is_cross=False, seed=0)
    out = attend(*qkv, sharing.plan(0, 4, (True,)), is_cross=False)
    is_shared = torch.allclose(out[1:], reference.attend(qkv[0][:1], qkv[1][:1], qkv[2][1:]), atol=1e-5)
    assert is_shared == (limit is None or num_queries <= limit)


@pytest.mark.parametrize(
    ("num_steps", "fraction", "num_cross", "num_self"),
    [(4, 0.2, 1, 0), (4, 0.8, 4, 3), (5, 0.5, 3, 2), (25, 0.5, 13, 12), (25, 0.9, 23, 22), (50, 0.4, 20, 20)],
)
def test_windows_of_cross_and_self_attention_round_as_published(num_steps, fraction, num_cross, num_self):
    edit = make_attention_edit("replace", SOURCE, REPLACED, cross_replace=fraction, self_replace=fraction)
    cross = [bool(edit.value_weights(step, num_steps).from_source.any()) for step in range(num_steps + 1)]
    assert sum(cross) == num_cross
    assert sum(edit.shares_self_attention(step, num_steps) for step in range(num_steps)) == num_self


@pytest.mark.parametrize("is_cross", [True, False])
def test_the_unconditional_branch_and_the_source_are_left_alone_bit_for_bit(is_cross):
    sharing = PromptToPrompt(source_rows=(0, 0), edits=(None, edit_of("refine and reweight")))
    qkv = random_layer(4, 64, is_cross, seed=0)
    out = attend(*qkv, sharing.plan(0, 4, BOTH), is_cross=is_cross)
    plain = attend(*qkv, StepPlan(branches=BOTH, num_rows=4), is_cross=is_cross)
    assert torch.equal(out[:3], plain[:3])


@pytest.mark.parametrize("is_cross", [True, False])
def test_the_order_of_the_branches_and_separate_calls_make_no_difference(is_cross):
    sharing = PromptToPrompt(source_rows=(0, 0), edits=(None, edit_of("refine")))
    qkv = random_layer(4, 64, is_cross, seed=0)
    swapped = [one[[2, 3, 0, 1]] for one in qkv]
    together = attend(*qkv, sharing.plan(0, 4, BOTH), is_cross=is_cross)
    out = attend(*swapped, sharing.plan(0, 4, (True, False)), is_cross=is_cross)
    torch.testing.assert_close(out[[2, 3, 0, 1]], together, rtol=0, atol=1e-6)
    alone = attend(*(one[2:] for one in qkv), sharing.plan(0, 4, (True,)), is_cross=is_cross)
    torch.testing.assert_close(alone, together[2:], rtol=0, atol=1e-6)


def test_several_pairs_and_edits_in_one_batch_equal_each_pair_alone():
    cases = ["replace", "refine", "reweight", "refine and reweight"]
    edits = [edit_of(case) for case in cases]
    sharing = PromptToPrompt(source_rows=source_rows(2, 2), edits=(None, *edits[:2], None, *edits[2:]))
    qkv = random_layer(6, 64, is_cross=True, seed=0)
    out = attend(*qkv, sharing.plan(1, 4, (True,)), is_cross=True)
    for row, source, edit in [(1, 0, edits[0]), (2, 0, edits[1]), (4, 3, edits[2]), (5, 3, edits[3])]:
        plan = PromptToPrompt(source_rows=(0, 0), edits=(None, edit)).plan(1, 4, (True,))
        alone = attend(*(one[[source, row]] for one in qkv), plan, is_cross=True)
        torch.testing.assert_close(out[[source, row]], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_another_source_changes_nothing_bit_for_bit(case):
    sharing = PromptToPrompt(source_rows=source_rows(3), edits=(None, edit_of(case)) * 3)
    q, k, v = random_layer(12, 64, is_cross=True, seed=0)
    plan = sharing.plan(0, 4, BOTH)
    before = attend(q, k, v, plan, is_cross=True)
    for one in (q, k, v):
        one[[0, 6]] += 1.0
    after = attend(q, k, v, plan, is_cross=True)
    others = [2, 3, 4, 5, 8, 9, 10, 11]
    assert torch.equal(before[others], after[others])


def test_weights_of_one_change_nothing():
    edit = make_attention_edit("reweight", SOURCE, REPLACED, word_weights={"bicycle": 1.0}, cross_replace=1.0)
    plain = make_attention_edit("reweight", SOURCE, REPLACED, cross_replace=1.0)
    torch.testing.assert_close(edit.value_weights(0, 4), plain.value_weights(0, 4), rtol=0, atol=0)


def test_a_text_that_the_host_repeats_is_edited_as_one():
    sharing = PromptToPrompt(source_rows=(0, 0), edits=(None, edit_of("refine and reweight")))
    q, k, v = random_layer(2, 64, is_cross=True, seed=0)
    plan = sharing.plan(0, 4, (True,))
    repeated = attend(q, k.repeat(1, 1, 3, 1), v.repeat(1, 1, 3, 1), plan, is_cross=True)
    torch.testing.assert_close(repeated, attend(q, k, v, plan, is_cross=True), rtol=0, atol=1e-5)


def test_a_text_of_another_length_is_refused():
    sharing = PromptToPrompt(source_rows=(0, 0), edits=(None, edit_of("refine")))
    q, k, v = random_layer(2, 64, is_cross=False, seed=0)
    with pytest.raises(ValueError, match="text has 64 tokens; the edit was made for 77"):
        attend(q, k, v, sharing.plan(0, 4, (True,)), is_cross=True)


@pytest.mark.parametrize("case", CASES)
def test_word_maps_are_the_edited_probabilities_of_the_words(case):
    sharing = PromptToPrompt(source_rows=(0, 0), edits=(None, edit_of(case)))
    controller = controller_of(case, 4)
    q, k, v = random_layer(4, 64, is_cross=True, seed=0)
    seen: list[Tensor] = []
    reference.attend(q, k, v, lambda p: seen.append(controller(p, True, "up")) or p)
    columns = torch.zeros(2, 77, 2)
    columns[0, 2:4, 0] = columns[1, 3:6, 0] = columns[1, 1, 1] = 1.0
    wanted = torch.einsum("rhqk,rkc->rqc", seen[0][2:], columns)
    maps = read_word_maps(q, k, sharing.plan(0, 4, BOTH), columns)
    torch.testing.assert_close(maps, wanted, rtol=0, atol=1e-5)


def test_a_call_without_the_conditional_branch_has_empty_word_maps():
    sharing = PromptToPrompt(source_rows=(0, 0), edits=(None, edit_of("replace")))
    q, k, _ = random_layer(2, 64, is_cross=True, seed=0)
    assert not read_word_maps(q, k, sharing.plan(0, 4, (False,)), torch.ones(2, 77, 1)).any()


def test_a_word_to_weight_that_does_not_occur_is_refused():
    with pytest.raises(ConfigError, match="'cat' does not occur in 'a red bicycle on mat'"):
        make_attention_edit("replace", SOURCE, REPLACED, word_weights={"cat": 2.0})


def test_all_numbers_out_of_range_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        make_attention_edit(
            "replace",
            SOURCE,
            REPLACED,
            word_weights={"red": float("inf")},
            cross_replace={"on": (0.6, 0.2)},
            self_replace=1.2,
        )
    assert len(caught.value.mistakes) == 3
    assert all(
        part in str(caught.value)
        for part in ("'red' is inf", "cross_replace['on'] is 0.6 to 0.2", "self_replace is 0 to 1.2")
    )


@pytest.mark.parametrize("kind", ["replace", "refine", "reweight"])
def test_equal_captions_are_refused_unless_words_are_weighted(kind):
    with pytest.raises(ConfigError, match="they must differ"):
        make_attention_edit(kind, SOURCE, SOURCE)
    assert make_attention_edit("reweight", SOURCE, SOURCE, word_weights={"cat": 2.0}).word_weights.max() == 2.0


def test_rows_and_edits_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="Row 1 takes attention from row 0"):
        PromptToPrompt(source_rows=(0, 0), edits=(None, None))
