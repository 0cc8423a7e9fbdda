"""Equation 1 through the adjoint of the upsampling, against upsampling the features."""

import pytest
import torch
from torch.nn import functional as F

from zspl.labeling._pooling import grid_weights, pool, upsample

SIZES = [((4, 4), (32, 32)), ((7, 5), (50, 33)), ((6, 9), (4, 5)), ((3, 3), (3, 3))]


def plain_pool(features, masks, *, normalise=False):
    """Upsample all channels to the image, then average inside each mask, one by one."""
    if normalise:
        features = features / features.norm(dim=0, keepdim=True)
    size = masks.shape[1:]
    dense = F.interpolate(features[None], size, mode="bilinear", align_corners=False)[0]
    return torch.stack([dense[:, mask].mean(dim=1) for mask in masks])


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize(("grid", "size"), SIZES)
def test_pooling_equals_upsampling_then_averaging(grid, size, normalise):
    random = torch.Generator().manual_seed(0)
    features = torch.randn(12, *grid, generator=random)
    masks = torch.rand(9, *size, generator=random) > 0.7
    masks[:, 0, 0] = True
    masks[0] = False
    masks[0, -1, -1] = True
    torch.testing.assert_close(
        pool(features, masks, normalise=normalise),
        plain_pool(features, masks, normalise=normalise),
        atol=1e-5,
        rtol=1e-4,
    )


@pytest.mark.parametrize(("grid", "size"), SIZES)
def test_the_weights_of_a_mask_sum_to_its_area(grid, size):
    masks = torch.rand(5, *size, generator=torch.Generator().manual_seed(1)) > 0.5
    weights = grid_weights(masks, grid)
    torch.testing.assert_close(weights.sum(dim=(1, 2)), masks.sum(dim=(1, 2)).float())


@pytest.mark.parametrize(("grid", "size"), SIZES)
def test_maps_are_upsampled_as_torch_does(grid, size):
    maps = torch.randn(3, *grid, generator=torch.Generator().manual_seed(2))
    expected = F.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(upsample(maps, size), expected, atol=1e-5, rtol=1e-5)


def test_an_empty_mask_pools_to_zero():
    masks = torch.zeros(1, 8, 8, dtype=torch.bool)
    assert pool(torch.ones(3, 2, 2), masks).abs().sum() == 0


def test_small_masks_anywhere_are_pooled_as_exactly_as_large_ones():
    random = torch.Generator().manual_seed(3)
    features = torch.randn(16, 7, 9, generator=random)
    masks = torch.zeros(40, 60, 83, dtype=torch.bool)
    for k, mask in enumerate(masks):
        y, x = (int(torch.randint(0, n, (), generator=random)) for n in (60, 83))
        mask[y : y + 1 + k, x : x + 1 + k // 2] = True
    torch.testing.assert_close(
        pool(features, masks), plain_pool(features, masks), atol=1e-5, rtol=1e-5
    )


def test_masks_that_are_a_view_are_pooled_like_a_copy():
    random = torch.Generator().manual_seed(4)
    features = torch.randn(5, 4, 4, generator=random)
    masks = (torch.rand(6, 20, 30, generator=random) > 0.5)[::2].transpose(1, 2)
    torch.testing.assert_close(pool(features, masks), pool(features, masks.contiguous()))
