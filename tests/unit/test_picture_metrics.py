"""Distances of pictures: parts count alone or as PIE-Bench counts them, and crops are those of torchvision."""

import math

import pytest
import torch
from torchvision.transforms import functional as transforms

from ip2p.ip2p_core.image_tensor import to_pil
from ip2p.ip2p_core.picture_metrics import centre_crop, fit_shorter_side, l1, l2, psnr_of


def noise(*shape: int, seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


A, B = noise(2, 5, 7, 3), noise(2, 5, 7, 3, seed=1)


def test_the_region_counts_alone_and_multiplying_counts_its_share():
    mask = torch.zeros(1, 5, 7, dtype=torch.float64)
    mask[:, 1:3, 2:6] = 1
    region = (A - B)[:, 1:3, 2:6]
    torch.testing.assert_close(l1(A, B, mask), region.abs().flatten(1).mean(1))
    torch.testing.assert_close(l2(A, B, mask), region.square().flatten(1).mean(1))
    share = 8 / 35
    torch.testing.assert_close(l1(A, B, mask, "multiply"), l1(A, B, mask) * share)
    torch.testing.assert_close(l2(A, B, mask, "multiply"), l2(A, B, mask) * share)


def test_soft_masks_multiply_both_pictures():
    mask = noise(2, 5, 7, seed=2)
    expected = (A * mask[..., None] - B * mask[..., None]).square().flatten(1).mean(1)
    torch.testing.assert_close(l2(A, B, mask, "multiply"), expected)


@pytest.mark.parametrize("masking", ["region", "multiply"])
def test_an_empty_part_has_no_distance(masking):
    empty = torch.zeros(1, 5, 7)
    assert l1(A, B, empty, masking).isnan().all()
    assert l2(A, B, empty, masking).isnan().all()


def test_everything_is_the_part_of_a_full_mask_and_equal_pictures_are_infinitely_near():
    full = torch.ones(1, 5, 7)
    torch.testing.assert_close(l1(A, B, full), l1(A, B))
    assert math.isinf(float(psnr_of(l2(A, A))[0]))
    assert float(psnr_of(torch.tensor(0.01))) == pytest.approx(20)


@pytest.mark.parametrize(("height", "width"), [(40, 40), (40, 61), (75, 32), (33, 32)])
def test_the_middle_is_the_one_of_clips_own_program(height, width):
    images = noise(2, height, width, 3, dtype=torch.float32)
    found = centre_crop(images, 32, 36)
    for image, middle in zip(images, found, strict=True):
        resized = transforms.resize(to_pil(image), 36, transforms.InterpolationMode.BICUBIC)
        expected = transforms.to_tensor(transforms.center_crop(resized, [32, 32])).movedim(0, -1)
        torch.testing.assert_close(middle, expected)


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (100, 900), (64, 64)])
def test_the_longer_side_has_a_limit(size):
    width, height = size
    resized = transforms.resize(torch.zeros(3, height, width), 64, max_size=160)
    assert fit_shorter_side(width, height, 64, 160) == (resized.shape[2], resized.shape[1])
