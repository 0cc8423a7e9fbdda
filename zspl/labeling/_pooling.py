"""Averaging dense features inside segments, without ever upsampling the features."""

from functools import lru_cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from zspl.labeling._masks import areas, as_float, windows


@lru_cache(maxsize=256)
def upsampling_matrix(cells: int, pixels: int) -> Float[Tensor, "pixels cells"]:
    """Return the matrix of bilinear interpolation along one axis, without aligned corners."""
    unit = torch.eye(cells, dtype=torch.float64)[None]
    return F.interpolate(unit, pixels, mode="linear", align_corners=False)[0].T.float()


def upsample(
    maps: Float[Tensor, "K h w"], size: tuple[int, int], *, rows: slice = slice(None)
) -> Float[Tensor, "K R W"]:
    """Interpolate maps bilinearly to `size` (height, width) and return R of the rows."""
    tall = upsampling_matrix(maps.shape[1], size[0])[rows]
    columns = upsampling_matrix(maps.shape[2], size[1])
    return tall @ maps @ columns.T


def grid_weights(masks: Bool[Tensor, "N H W"], grid: tuple[int, int]) -> Float[Tensor, "N h w"]:
    """Move each mask to the feature grid by the adjoint of bilinear upsampling.

    Since upsampling U is linear, the sum over pixels of (U f) S equals the sum over grid cells of
    f (U^T S); U is separable, so U^T S = U_h^T S U_w, and zeros around a mask's box add nothing.
    The weights of a mask sum to its area.
    """
    rows = upsampling_matrix(grid[0], masks.shape[1])
    columns = upsampling_matrix(grid[1], masks.shape[2])
    weights = torch.zeros(len(masks), *grid)
    for mask, weight, (top, bottom, left, right) in zip(
        masks, weights, windows(masks), strict=True
    ):
        if bottom:
            inside = as_float(mask[top:bottom, left:right])
            weight[:] = rows[top:bottom].T @ (inside @ columns[left:right])
    return weights


def pool(
    features: Float[Tensor, "D h w"], masks: Bool[Tensor, "N H W"], *, normalise: bool = False
) -> Float[Tensor, "N D"]:
    """Average the upsampled features inside each mask (the paper's eq. 1), exactly.

    Args:
        features: One embedding per grid cell.
        masks: Segments at the image's size; an empty one gets the zero vector.
        normalise: Make each cell's embedding a unit vector first.
    """
    if normalise:
        features = F.normalize(features, dim=0)
    weights = grid_weights(masks, (features.shape[1], features.shape[2]))
    area = torch.tensor(areas(masks), dtype=torch.float32).clamp(min=1)
    return weights.flatten(1) @ features.flatten(1).T / area[:, None]
