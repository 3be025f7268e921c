from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ip2p.ip2p_core.attention_sharing import PublishedSharing, StepPlan, attend, is_sharing, source_rows
from ip2p.ip2p_core.errors import ConfigError
from ip2p.tests.parity.prompt_to_prompt_reference import attend as attend_with_matrix
from ip2p.tests.parity.prompt_to_prompt_reference import attend_with_copied_logits

BOTH = (False, True)


def random_layer(rows: int, tokens: int = 64, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Queries, keys and values [3, rows, 2 heads, tokens, 8], with peaked attention."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, rows, 2, tokens, 8, generator=generator, dtype=torch.float64).mul(1.7).to(dtype)


def sharing_of(num_pairs: int, *thresholds: float, num_edits: int = 1) -> PublishedSharing:
    rows = source_rows(num_pairs, num_edits)
    return PublishedSharing(source_rows=rows, p2p_thresholds=tuple(thresholds) * (len(rows) // len(thresholds)))


@pytest.mark.parametrize(
    ("num_steps", "counts"),
    [
        (100, (10, 50, 90)),
        (50, (5, 25, 45)),
        (25, (3, 12, 22)),
        (20, (2, 10, 18)),
        (10, (1, 5, 9)),
        (4, (1, 2, 3)),
        (1, (1, 1, 1)),
    ],
)
def test_as_many_steps_share_as_in_the_published_code(num_steps, counts):
    seen = [sum(is_sharing(p, step, num_steps) for step in range(num_steps)) for p in (0.1, 0.5, 0.9)]
    assert tuple(seen) == counts


def test_shared_steps_come_first():
    assert [is_sharing(0.5, step, 6) for step in range(6)] == [True, True, True, False, False, False]


@pytest.mark.parametrize("num_steps", [1, 2, 4, 25])
def test_no_step_shares_at_p_zero(num_steps):
    assert not any(is_sharing(0.0, step, num_steps) for step in range(num_steps))


@pytest.mark.parametrize("num_pairs", [1, 3, 8])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_sharing_equals_attention_with_copied_logits(num_pairs, dtype, tolerance):
    q, k, v = random_layer(4 * num_pairs, dtype=dtype)
    # the reference wants [uncond, uncond edited, cond, cond edited] of each pair, a call [uncond half | cond half]
    calls = torch.arange(4 * num_pairs).view(num_pairs, 2, 2).transpose(0, 1).flatten()
    plan = sharing_of(num_pairs, 0.5).plan(0, 4, BOTH)
    out = attend(q[calls], k[calls], v[calls], plan, is_cross=False)
    wanted = attend_with_copied_logits(q, k, v, [True] * num_pairs)[calls]
    torch.testing.assert_close(out, wanted, rtol=0, atol=tolerance)


def test_pairs_of_one_batch_stop_sharing_at_their_own_threshold():
    q, k, v = random_layer(12)
    calls = torch.arange(12).view(3, 2, 2).transpose(0, 1).flatten()
    sharing = PublishedSharing(source_rows=source_rows(3), p2p_thresholds=(0.1, 0.1, 0.9, 0.9, 0.5, 0.5))
    out = attend(q[calls], k[calls], v[calls], sharing.plan(3, 5, BOTH), is_cross=False)
    wanted = attend_with_copied_logits(q, k, v, [False, True, False])[calls]
    torch.testing.assert_close(out, wanted, rtol=0, atol=1e-5)


def test_several_edits_of_one_source_equal_as_many_pairs():
    q, k, v = random_layer(4)
    plan = sharing_of(1, 1.0, num_edits=3).plan(0, 4, (True,))
    out = attend(q, k, v, plan, is_cross=False)
    for row in range(1, 4):
        pair = [0, row]
        alone = attend(q[pair], k[pair], v[pair], sharing_of(1, 1.0).plan(0, 4, (True,)), is_cross=False)
        torch.testing.assert_close(out[row], alone[1], rtol=0, atol=1e-5)


def test_rows_may_be_grouped_instead_of_interleaved():
    q, k, v = random_layer(4)
    order = [0, 2, 1, 3]  # source, source, edited, edited
    grouped = PublishedSharing(source_rows=(0, 1, 0, 1), p2p_thresholds=(1.0,) * 4).plan(0, 4, (True,))
    interleaved = sharing_of(2, 1.0).plan(0, 4, (True,))
    out = attend(q[order], k[order], v[order], grouped, is_cross=False)
    torch.testing.assert_close(out, attend(q, k, v, interleaved, is_cross=False)[order], rtol=0, atol=0)


def test_branches_in_separate_calls_equal_one_call():
    q, k, v = random_layer(8)
    sharing = sharing_of(2, 0.5)
    together = attend(q, k, v, sharing.plan(0, 4, BOTH), is_cross=False)
    for branch, rows in enumerate((slice(0, 4), slice(4, 8))):
        alone = attend(q[rows], k[rows], v[rows], sharing.plan(0, 4, (BOTH[branch],)), is_cross=False)
        torch.testing.assert_close(together[rows], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("tokens", [4, 1024])
def test_every_resolution_shares(tokens):
    q, k, v = random_layer(2, tokens=tokens, dtype=torch.float64)
    out = attend(q, k, v, sharing_of(1, 1.0).plan(0, 4, (True,)), is_cross=False)
    torch.testing.assert_close(out[1:], attend_with_matrix(q[:1], k[:1], v[1:]), rtol=0, atol=1e-12)


def test_source_rows_are_as_without_sharing_bit_for_bit():
    q, k, v = random_layer(8)
    out = attend(q, k, v, sharing_of(2, 1.0).plan(0, 4, BOTH), is_cross=False)
    plain = attend(q, k, v, StepPlan(branches=BOTH, num_rows=8), is_cross=False)
    assert torch.equal(out[::2], plain[::2])


def test_cross_attention_is_left_alone_bit_for_bit():
    q, k, v = random_layer(8)
    out = attend(q, k, v, sharing_of(2, 1.0).plan(0, 4, BOTH), is_cross=True)
    assert torch.equal(out, attend(q, k, v, StepPlan(branches=BOTH, num_rows=8), is_cross=True))


@pytest.mark.parametrize("num_pairs", range(2, 9))
def test_another_source_changes_nothing_bit_for_bit(num_pairs):
    layer = random_layer(4 * num_pairs)
    plan = sharing_of(num_pairs, 1.0).plan(0, 4, BOTH)
    before = attend(*layer, plan, is_cross=False)
    layer[:, [0, 2 * num_pairs]] += 1.0
    after = attend(*layer, plan, is_cross=False)
    others = [row for row in range(4 * num_pairs) if row % (2 * num_pairs) >= 2]
    assert torch.equal(before[others], after[others])


def test_the_own_source_changes_the_edited_row():
    layer = random_layer(4)
    plan = sharing_of(2, 1.0).plan(0, 4, (True,))
    before = attend(*layer, plan, is_cross=False)
    layer[0, 2] *= -1.0
    assert not torch.allclose(before[3], attend(*layer, plan, is_cross=False)[3], atol=1e-2)


def test_a_mask_travels_with_the_queries_and_keys():
    q, k, v = random_layer(2, tokens=16)
    mask = torch.zeros(2, 1, 1, 16)
    mask[0, ..., 8:] = -torch.inf
    out = attend(q, k, v, sharing_of(1, 1.0).plan(0, 4, (True,)), is_cross=False, mask=mask)
    wanted = attend_with_matrix(q[:1], k[:1, :, :8], v[1:, :, :8])
    torch.testing.assert_close(out[1:], wanted, rtol=0, atol=1e-5)


def test_a_call_with_other_rows_than_described_is_refused():
    q, k, v = random_layer(6)
    with pytest.raises(ValueError, match=r"call has 6 rows; 2 branches of the plan make 4"):
        attend(q, k, v, sharing_of(1, 1.0).plan(0, 4, BOTH), is_cross=False)


@pytest.mark.parametrize("rows", [(0, 2, 1), (0, 0, 1), (0, -1), (0, 0, 0)])
def test_rows_that_are_no_pairs_are_refused(rows):
    with pytest.raises(ValueError, match=r"not a source row|describe the same branch"):
        PublishedSharing(source_rows=rows, p2p_thresholds=(0.5,) * (2 if rows == (0, 0, 0) else len(rows)))


@pytest.mark.parametrize("p", [-0.1, 1.5, float("nan")])
def test_a_threshold_out_of_range_is_refused(p):
    with pytest.raises(ConfigError, match=f"p2p_threshold is {p:g}"):
        sharing_of(1, p)
