from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import torch

from ip2p.ip2p_core.conditioning import Conditioning, drop_conditioning
from ip2p.ip2p_core.sample_order import SampleOrder, Visit, draw_crop, draw_view, draw_visit, group_by_shape


def order(*sizes: int, micro_batch_size: int = 3, seed: int = 5) -> SampleOrder:
    rows = np.arange(sum(sizes))
    return SampleOrder(seed, tuple(np.split(rows, np.cumsum(sizes)[:-1])), micro_batch_size)


def test_an_epoch_holds_every_pair_once_and_the_next_one_has_another_order():
    visits = [visit for batch in order(10, micro_batch_size=5).micro_batches(0, 6) for visit in batch]
    epochs = [[visit.row for visit in visits if visit.epoch == epoch] for epoch in range(3)]
    assert all(sorted(rows) == list(range(10)) for rows in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_micro_batch_goes_on_over_the_end_of_an_epoch():
    visits = [visit for batch in order(10).micro_batches(0, 10) for visit in batch]
    assert Counter(visits) == Counter(Visit(epoch, row) for epoch in range(3) for row in range(10))


def test_what_a_micro_batch_holds_depends_on_its_number_alone():
    whole = order(7, 20, 4).micro_batches(0, 50)
    assert [order(7, 20, 4).micro_batches(number, 1)[0] for number in range(50)] == whole
    assert order(7, 20, 4, seed=6).micro_batches(0, 50) != whole


def test_micro_batches_are_of_one_bucket_and_every_bucket_is_seen_in_epochs():
    sizes = (7, 20, 4)
    batches = order(*sizes).micro_batches(0, 900)
    bounds = np.cumsum((0, *sizes))
    buckets = [np.searchsorted(bounds, [visit.row for visit in batch], side="right") for batch in batches]
    assert all(len(set(bucket.tolist())) == 1 for bucket in buckets)
    times = Counter(visit.row for batch in batches for visit in batch)
    for low, high in itertools.pairwise(bounds):
        seen = [times[row] for row in range(low, high)]
        assert max(seen) - min(seen) <= 1
    mean = 2700 / sum(sizes)
    assert all(abs(count - mean) < 0.25 * mean for count in times.values())


def test_rows_are_grouped_by_shape_the_most_frequent_first():
    grouped = group_by_shape([(8, 16), (8, 8), (8, 8), (8, 16), (8, 8)])
    assert [rows.tolist() for rows in grouped] == [[1, 2, 4], [0, 3]]


def test_draws_of_a_visit_are_the_same_every_time_and_those_of_others_differ():
    draws = draw_visit(1, Visit(0, 4), (4, 2, 2))
    assert all(torch.equal(a, b) for a, b in zip(draws, draw_visit(1, Visit(0, 4), (4, 2, 2)), strict=True))
    others = [
        draw_visit(1, Visit(1, 4), (4, 2, 2)),
        draw_visit(1, Visit(0, 5), (4, 2, 2)),
        draw_visit(2, Visit(0, 4), (4, 2, 2)),
    ]
    assert all(not torch.equal(draws.noise, other.noise) for other in others)
    assert not torch.equal(draws.noise, draws.posterior)


def test_training_steps_are_uniform_and_starts_have_the_last_one():
    draws = [draw_visit(0, Visit(0, row), (1, 1, 1), start_share=0.2) for row in range(4000)]
    starts = torch.stack([one.is_start for one in draws])
    t = torch.stack([one.t for one in draws])
    assert abs(float(starts.double().mean()) - 0.2) < 0.02
    assert bool((t[starts] == 999).all())
    assert abs(float(t[~starts].double().mean()) - 499.5) < 20
    assert {int(one) for one in t.unique()} <= set(range(1000))


def test_the_dropout_of_a_million_draws_is_five_five_and_five_percent():
    count = 1_000_000
    u = torch.rand(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    full = Conditioning(torch.ones(count, 1, 1, 1), torch.ones(count, 1, 1))
    image, text = (part.flatten() == 0 for part in drop_conditioning(full, torch.zeros(1, 1, 1), u))
    shares = [(image & ~text), (text & ~image), (image & text), ~(image | text)]
    for share, wanted in zip(shares, (0.05, 0.05, 0.05, 0.85), strict=True):
        error = (wanted * (1 - wanted) / count) ** 0.5
        assert abs(float(share.double().mean()) - wanted) < 4 * error


def test_the_uniform_draw_of_visits_is_uniform():
    u = torch.stack([draw_visit(3, Visit(0, row), (1, 1, 1)).u for row in range(5000)])
    counts = torch.histc(u.float(), 20, 0, 1)
    assert bool(((counts - 250).abs() < 5 * 250**0.5).all())


@pytest.mark.parametrize("view", [None, 2])
def test_crops_stay_in_their_bounds_and_a_cached_view_is_the_same_in_every_epoch(view):
    crops = [draw_crop(0, view, Visit(epoch, 1), (32, 36), 0.5) for epoch in range(200)]
    assert all(32 <= crop.side <= 36 and 0 <= crop.x < 1 and 0 <= crop.y < 1 for crop in crops)
    assert (len(set(crops)) == 1) == (view is not None)
    if view is None:
        assert {crop.side for crop in crops} == {32, 33, 34, 35, 36}
        assert 70 < sum(crop.is_flipped for crop in crops) < 130


def test_all_views_of_a_pair_are_used():
    assert {draw_view(0, Visit(epoch, 7), 4) for epoch in range(64)} == {0, 1, 2, 3}
