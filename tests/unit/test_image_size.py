from __future__ import annotations

import pytest
import torch

from ip2p.ip2p_core.errors import BadImageSize, ConfigError
from ip2p.ip2p_core.image_size import Extent, extent_of, fit, fit_mask, latent_extent, undo, working_extent


@pytest.mark.parametrize(
    ("source", "resolution", "multiple", "wanted"),
    [
        ((512, 512), 512, 64, (512, 512)),
        ((1024, 768), 512, 64, (512, 384)),
        ((768, 1024), 512, 64, (384, 512)),
        ((640, 427), 512, 64, (512, 320)),
        ((1, 1), 512, 64, (512, 512)),
        ((8000, 30), 512, 64, (512, 64)),
        ((30, 8000), 128, 16, (16, 128)),
        ((3, 2), 128, 16, (128, 80)),
        ((100, 100), 100, 64, (128, 128)),
        ((100, 100), 10, 64, (64, 64)),
    ],
)
def test_working_sizes(source, resolution, multiple, wanted):
    assert working_extent(Extent(*source), resolution, multiple) == Extent(*wanted)


def test_every_working_size_is_a_multiple_and_close_to_the_aspect():
    for width in range(1, 400, 7):
        for height in range(1, 400, 11):
            extent = working_extent(Extent(width, height), 256, 16)
            assert extent.width % 16 == extent.height % 16 == 0
            assert max(extent) == 256
            exact = 256 * min(width, height) / max(width, height)
            assert abs(min(extent) - exact) <= 8 or min(extent) == 16


@pytest.mark.parametrize("source", [(1, 1), (8000, 30), (30, 8000), (7, 5), (640, 427), (128, 128)])
def test_the_edit_has_exactly_the_source_size(source):
    extent = Extent(*source)
    image = torch.rand(1, extent.height, extent.width, 3, generator=torch.Generator().manual_seed(0))
    working = fit(image, working_extent(extent, 128, 16))
    assert extent_of(undo(working, extent)) == extent
    assert 0 <= working.min() <= working.max() <= 1


def test_a_picture_of_the_right_size_is_not_touched():
    image = torch.rand(2, 16, 32, 3)
    assert fit(image, Extent(32, 16)) is image


def test_resizing_keeps_flat_colours_and_smooth_pictures():
    flat = torch.tensor([0.2, 0.5, 0.9]).expand(1, 50, 70, 3)
    torch.testing.assert_close(fit(flat, Extent(128, 96)), torch.tensor([0.2, 0.5, 0.9]).expand(1, 96, 128, 3))
    ramp = torch.linspace(0, 1, 64).reshape(1, 1, 64, 1).expand(1, 64, 64, 3)
    there_and_back = undo(fit(ramp, Extent(128, 128)), Extent(64, 64))
    torch.testing.assert_close(there_and_back, ramp, atol=0.01, rtol=0)


def test_shrinking_is_antialiased():
    stripes = (torch.arange(256) % 2).float().reshape(1, 1, 256, 1).expand(1, 256, 256, 3)
    small = fit(stripes, Extent(64, 64))[:, 8:-8, 8:-8]
    torch.testing.assert_close(small, torch.full_like(small, 0.5), atol=0.02, rtol=0)


def test_masks_follow_the_picture():
    mask = torch.zeros(1, 64, 64)
    mask[:, :, 32:] = 1.0
    small = fit_mask(mask, Extent(8, 8))
    torch.testing.assert_close(small[0, :, :3], torch.zeros(8, 3))
    torch.testing.assert_close(small[0, :, 5:], torch.ones(8, 3))
    assert fit_mask(mask, Extent(64, 64)) is mask


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(BadImageSize, match="The image is 0x5"):
        working_extent(Extent(0, 5), 512, 64)
    with pytest.raises(ConfigError, match="working_resolution is 0"):
        working_extent(Extent(5, 5), 0, 64)
    with pytest.raises(BadImageSize, match="100x96; the model needs both sides to be multiples of 8"):
        latent_extent(Extent(100, 96), 8)
    assert latent_extent(Extent(128, 96), 8) == Extent(16, 12)
