"""Pairs through diffusers' U-Nets equal the same loop with whole probability matrices, after every layer and step."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from ip2p.ip2p_core.attention_sharing import PublishedSharing, is_sharing, source_rows
from ip2p.ip2p_core.cross_attention_edit import make_attention_edit
from ip2p.ip2p_core.local_blend import LocalBlend, LocalBlendSettings, choose_words
from ip2p.ip2p_core.prompt_alignment import align_refined_tokens, map_replaced_words
from ip2p.ip2p_core.prompt_to_prompt import PromptToPrompt
from ip2p.tests.parity import prompt_to_prompt_reference as reference
from ip2p.tests.parity.pair_runs import (
    SIZE,
    STRUCTURES,
    Run,
    make_unet,
    run_reference,
    run_shared,
    sample,
    start,
    texts,
)
from ip2p.tests.parity.prompt_to_prompt_reference import Controller, split_caption, window_table
from ip2p.trainer.pair_attention import PairAttention, share_attention

SOURCE = split_caption("a black cat on mat")
REPLACED = split_caption("a red bicycle on mat")
REFINED = split_caption("a smiling black cat on the mat")


@pytest.fixture(scope="module", params=STRUCTURES)
def unet(request: pytest.FixtureRequest) -> UNet2DConditionModel:
    return make_unet(request.param, torch.float32, peak=3.0)


@pytest.fixture(
    scope="module", params=[(name, dtype) for name in STRUCTURES for dtype in ("float64", "float32")], ids="-".join
)
def compared_unet(request: pytest.FixtureRequest) -> UNet2DConditionModel:
    """Peaked attention in float64; as drawn in float32, where peaks alone amplify rounding to 1e-5 without any edit."""
    structure, dtype = request.param
    return make_unet(structure, torch.float64, 3.0) if dtype == "float64" else make_unet(structure, torch.float32, 1.0)


def assert_same_run(run: Run, wanted: Run) -> None:
    tolerance = 1e-12 if run.latents[0].dtype == torch.float64 else 1e-5
    for ours, theirs in zip([*run.layers, *run.latents], [*wanted.layers, *wanted.latents], strict=True):
        scale = max(1.0, float(theirs.abs().max()))
        torch.testing.assert_close(ours / scale, theirs / scale, rtol=0, atol=tolerance)


def published(num_pairs: int, *thresholds: float) -> PublishedSharing:
    return PublishedSharing(
        source_rows=source_rows(num_pairs), p2p_thresholds=tuple(p for p in thresholds for _ in range(2))
    )


@pytest.mark.parametrize("num_steps", [4, 5])
def test_the_published_sharing_equals_copied_probabilities_after_every_layer_and_step(compared_unet, num_steps):
    thresholds = (0.3, 0.9)
    now = {"step": 0}

    def copy(probabilities: Tensor, is_cross: bool, place: str) -> Tensor:
        rows = list(range(8))
        for pair, p in enumerate(thresholds):
            if not is_cross and is_sharing(p, now["step"], num_steps):
                rows[2 * pair + 1], rows[4 + 2 * pair + 1] = 2 * pair, 4 + 2 * pair
        return probabilities[rows]

    x, text = start(2), texts(compared_unet, 4)
    wanted = run_reference(compared_unet, x, text, num_steps, copy, lambda step: now.update(step=step))
    assert_same_run(run_shared(compared_unet, x, text, num_steps, published(2, *thresholds)), wanted)


def published_edit(kind: str, weights: dict[str, float]) -> reference.CrossEdit:
    edit = None
    if kind == "replace":
        edit = reference.replace_words(map_replaced_words(SOURCE, REPLACED)[None])
    elif kind == "refine":
        refined = align_refined_tokens(SOURCE, REFINED)
        edit = reference.refine_words(torch.tensor([refined.positions]), torch.tensor([refined.shares]))
    if not weights and edit is not None:
        return edit
    equalizer = torch.ones(1, 77)
    for word, weight in weights.items():
        equalizer[:, list((REFINED if kind == "refine" else REPLACED).find(word))] = weight
    return reference.reweight_words(equalizer, edit)


KINDS = [
    ("replace", {}, 5, None),
    ("refine", {}, 4, [["mat"], ["mat"]]),
    ("refine", {"smiling": 3.0}, 5, None),
    ("reweight", {"bicycle": 2.5, "on": -1.0}, 4, None),
    ("replace", {"bicycle": 2.5}, 25, None),
]


@pytest.mark.parametrize(("kind", "weights", "num_steps", "subtracted"), KINDS)
@pytest.mark.parametrize("is_blended", [False, True], ids=["whole", "blended"])
def test_prompt_to_prompt_equals_the_published_controllers_after_every_layer_and_step(
    compared_unet, kind, weights, num_steps, subtracted, is_blended
):
    edited = REFINED if kind == "refine" else REPLACED
    columns = choose_words([SOURCE, edited], [["cat"], ["smiling" if kind == "refine" else "bicycle"]], subtracted)
    settings = LocalBlendSettings(threshold=0.9, subtract_threshold=0.95, start=0.2)
    blend = LocalBlend(columns, (0, 0), (SIZE, SIZE), settings) if is_blended else None
    edit = make_attention_edit(
        kind, SOURCE, edited, word_weights=weights or {"on": 1.0}, cross_replace=0.8, self_replace=0.5
    )
    sharing = PromptToPrompt(source_rows=(0, 0), edits=(None, edit), max_self_tokens=16)
    subtracted_words = None if subtracted is None else columns[..., 1]
    controller = Controller(
        published_edit(kind, weights),
        window_table(num_steps, [{"default_": (0.0, 0.8)}], [edited]),
        (0, int(0.5 * num_steps)),
        max_self_tokens=16,
        blend=reference.Blend(columns[..., 0], subtracted_words, int(0.2 * num_steps), (0.9, 0.95))
        if is_blended
        else None,
        map_tokens=(SIZE // 4) ** 2,
    )
    x, text = start(1), texts(compared_unet, 2)
    wanted = run_reference(
        compared_unet, x, text, num_steps, controller, after_step=lambda x, step: controller.end_step(x)
    )
    assert_same_run(run_shared(compared_unet, x, text, num_steps, sharing, blend), wanted)


def test_local_blend_keeps_a_part_of_the_source_and_changes_another(unet):
    columns = choose_words([SOURCE, REPLACED], [["cat"], ["bicycle"]])
    blend = LocalBlend(columns, (0, 0), (SIZE, SIZE), LocalBlendSettings(threshold=0.9))
    edit = make_attention_edit("replace", SOURCE, REPLACED)
    sharing = PromptToPrompt(source_rows=(0, 0), edits=(None, edit))
    last = run_shared(unet, start(1), texts(unet, 2), 4, sharing, blend).latents[-1]
    is_source = (last[1] == last[0]).all(0)
    assert 0 < is_source.sum() < is_source.numel()


def test_p_zero_is_two_plain_samples(unet):
    x, text = start(2), texts(unet, 4)
    assert_same_run(run_shared(unet, x, text, 4, published(2, 0.0, 0.0)), sample(unet, x, text, 4))


def test_p_one_with_equal_captions_gives_equal_images(unet):
    text = texts(unet, 2).repeat_interleave(2, 0)
    last = run_shared(unet, start(2), text, 4, published(2, 1.0, 1.0)).latents[-1]
    torch.testing.assert_close(last[1::2], last[::2], rtol=0, atol=1e-6)


def test_sharing_brings_the_pair_closer_together(unet):
    x, text = start(1), texts(unet, 2)
    apart = sample(unet, x, text, 4).latents[-1]
    shared = run_shared(unet, x, text, 4, published(1, 1.0)).latents[-1]
    assert (shared[1] - shared[0]).norm() < (apart[1] - apart[0]).norm()


def test_a_batch_of_pairs_equals_each_pair_alone(unet):
    x, text = start(3), texts(unet, 6)
    thresholds = (0.2, 0.5, 0.9)
    together = run_shared(unet, x, text, 4, published(3, *thresholds)).latents[-1]
    for pair, p in enumerate(thresholds):
        rows = slice(2 * pair, 2 * pair + 2)
        alone = run_shared(unet, x[rows], text[rows], 4, published(1, p)).latents[-1]
        torch.testing.assert_close(together[rows], alone, rtol=0, atol=1e-5)


def test_another_source_changes_no_other_pair_bit_for_bit(unet):
    x, text = start(3), texts(unet, 6)
    sharing = published(3, 0.9, 0.9, 0.9)
    before = run_shared(unet, x, text, 4, sharing).latents[-1]
    x[0] += 1.0
    after = run_shared(unet, x, text, 4, sharing).latents[-1]
    assert torch.equal(before[2:], after[2:])


def test_the_own_source_changes_the_edited_image(unet):
    x, text = start(1), texts(unet, 2)
    before = run_shared(unet, x, text, 4, published(1, 0.9)).latents[-1]
    x[0] += 1.0
    after = run_shared(unet, x, text, 4, published(1, 0.9)).latents[-1]
    assert (before[1] - after[1]).abs().max() > 1e-3


def test_masked_text_is_attended_as_diffusers_does(unet):
    mask = torch.ones(2, 77, dtype=torch.bool)
    mask[1, 10:] = False
    pair = PairAttention(published(1, 0.0))
    pair.start_call(0, 4, (True,))
    extra = {"text_embeds": torch.zeros(2, 24), "time_ids": torch.ones(2, 6)}
    outs = []
    for context in (nullcontext(), share_attention(unet, pair)):
        with context, torch.no_grad():
            outs.append(
                unet(start(1), 500, texts(unet, 2), encoder_attention_mask=mask, added_cond_kwargs=extra).sample
            )
    torch.testing.assert_close(outs[1], outs[0], rtol=0, atol=1e-5)


def test_the_unet_has_its_own_processors_back_after_an_error(unet):
    before = dict(unet.attn_processors)
    with (
        pytest.raises(ValueError, match="said which step and branches"),
        share_attention(unet, PairAttention(published(1, 0.5))),
    ):
        sample(unet, start(1), texts(unet, 2), 1)
    assert unet.attn_processors == before
