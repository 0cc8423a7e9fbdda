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
