from __future__ import annotations

import pytest
import torch
from torch import nn

from ip2p.ip2p_core.shared_rows import first_equal_parts, modules_before_text, shared_rows


class Counting(nn.Conv2d):
    """A convolution that remembers how many rows it saw."""

    num_rows = 0

    def forward(self, x):
        self.num_rows = len(x)
        return super().forward(x)


@pytest.fixture
def layers():
    torch.manual_seed(0)
    return nn.Sequential(Counting(4, 8, 3), nn.SiLU(), Counting(8, 4, 3))


def test_equal_parts_are_found():
    a, b = torch.randn(2, 2, 4, 8, 8)
    assert first_equal_parts(torch.cat([a, b, a]), 3) == [0, 1, 0]
    assert first_equal_parts(torch.cat([a, a, a]), 3) == [0, 0, 0]
    assert first_equal_parts(torch.cat([a, b]), 2) == [0, 1]


@pytest.mark.parametrize("order", [[0, 0, 1], [0, 1, 1], [1, 0, 1], [0, 0, 0]])
def test_equal_parts_are_computed_once_and_the_output_is_the_same(layers, order):
    parts = torch.randn(2, 2, 4, 12, 12)
    batch = torch.cat([parts[number] for number in order])
    expected = layers(batch)
    assert layers[0].num_rows == 6
    with shared_rows(layers, first_equal_parts(batch, 3)):
        shared = layers(batch)
    torch.testing.assert_close(shared, expected, rtol=0, atol=1e-6)
    assert layers[0].num_rows == layers[2].num_rows == 2 * len(set(order))


def test_modules_are_themselves_again_even_after_an_error(layers):
    batch = torch.randn(1, 4, 12, 12).repeat(3, 1, 1, 1)
    with pytest.raises(RuntimeError, match="stop"), shared_rows(layers, [0, 0, 0]):
        raise RuntimeError("stop")
    layers(batch)
    assert layers[0].num_rows == 3


def test_modules_from_the_first_cross_attention_on_do_not_count(layers):
    attention = nn.Identity()
    attention.transformer_blocks = nn.ModuleList()
    assert modules_before_text([layers[0], attention, layers[2]]) == [layers[0]]
