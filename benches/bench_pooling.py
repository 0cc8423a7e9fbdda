"""SAM-based pooling through the adjoint, against upsampling the features. `make bench`."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from zspl.labeling._pooling import pool
from zspl.labeling.sepl import merge

SIZE, GRID, CHANNELS, MASKS = (375, 500), (28, 28), 512, 100
MUST = 15


def ellipses(seed):
    """Return masks of 100 pixels to 40 % of the photo, as many small as large ones."""
    random = np.random.default_rng(seed)
    y, x = np.arange(SIZE[0])[:, None], np.arange(SIZE[1])
    masks = np.zeros((MASKS, *SIZE), np.bool_)
    for mask in masks:
        area = np.exp(random.uniform(np.log(100), np.log(0.4 * mask.size)))
        stretch = np.exp(random.uniform(-0.7, 0.7))
        cy, cx = random.uniform(0, SIZE[0]), random.uniform(0, SIZE[1])
        ry, rx = np.sqrt(area * stretch / np.pi), np.sqrt(area / stretch / np.pi)
        mask[:] = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1
    return torch.from_numpy(masks)


def noise(seed):
    """Return the worst case: every mask is spread over the whole photo."""
    random = torch.Generator().manual_seed(seed)
    return torch.rand(MASKS, *SIZE, generator=random).round().bool()


def full_resolution(features, masks):
    """Equation 1 as written, with one matrix product for all masked means."""
    dense = F.interpolate(features[None], SIZE, mode="bilinear", align_corners=False)[0]
    flat = masks.flatten(1).float()
    return flat @ dense.flatten(1).T / flat.sum(dim=1, keepdim=True)


@pytest.mark.parametrize("masks", [ellipses, noise])
def bench_pooling(compare, masks):
    features = torch.randn(CHANNELS, *GRID, generator=torch.Generator().manual_seed(0))
    given = masks(0)
    compare(
        f"pooling of {MASKS} masks, {masks.__name__}",
        lambda: full_resolution(features, given),
        lambda: pool(features, given),
        bound=MUST if masks is ellipses else None,
    )


def plain_merge(pseudo, segments):
    """SEPL's max_iou_imp2 with one pass over all masks per class."""
    flat = segments.flatten(1)
    free = torch.ones(len(flat), dtype=torch.bool)
    out = torch.zeros(pseudo.numel(), dtype=torch.uint8)
    for class_id in range(1, 21):
        own = (pseudo == class_id).flatten()
        if not own.any():
            continue
        shared = (flat & own).sum(dim=1)
        claimed = (2 * shared > flat.sum(dim=1)) | (shared >= 0.85 * own.sum())
        claimed &= free
        out[own & ~flat[free].any(dim=0)] = class_id
        out[flat[claimed].any(dim=0)] = class_id
        free &= ~claimed
    return out.view(pseudo.shape)


def bench_sepl(compare):
    random = np.random.default_rng(0)
    blocks = np.kron(random.integers(0, 6, (15, 20)), np.ones((25, 25)))
    pseudo = torch.from_numpy(blocks.astype(np.uint8))
    segments = ellipses(1)
    compare(
        f"SEPL max_iou_imp2 with {MASKS} masks",
        lambda: plain_merge(pseudo, segments),
        lambda: merge(pseudo, segments, rule="max_iou_imp2", num_classes=21),
        parity=lambda a, b: f"{int((a != b).sum())} pixels differ",
    )
