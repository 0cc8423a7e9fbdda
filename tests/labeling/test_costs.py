"""What pooling and painting cost, as exact numbers that do not depend on the machine."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from zspl.io.classes import ClassTable
from zspl.labeling import LabelInputs, _scoring, region_pool, region_vote
from zspl.labeling._pooling import pool
from zspl.labeling._scoring import ClassTexts, dense_scored
from zspl.records import DenseFeatures, SegmentProposals, TextEmbeddings

SIZE, GRID, CHANNELS = (375, 500), (28, 28), 512
FULL_RESOLUTION = 4 * CHANNELS * SIZE[0] * SIZE[1]  # 384 MB, the upsampled features


def ellipses(number, seed=0):
    random = np.random.default_rng(seed)
    y, x = np.arange(SIZE[0])[:, None], np.arange(SIZE[1])
    masks = np.zeros((number, *SIZE), np.bool_)
    for mask in masks:
        area = np.exp(random.uniform(np.log(100), np.log(0.4 * mask.size)))
        stretch = np.exp(random.uniform(-0.7, 0.7))
        cy, cx = random.uniform(0, SIZE[0]), random.uniform(0, SIZE[1])
        ry, rx = np.sqrt(area * stretch / np.pi), np.sqrt(area / stretch / np.pi)
        mask[:] = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1
    return torch.from_numpy(masks)


def features(seed=0):
    return torch.randn(CHANNELS, *GRID, generator=torch.Generator().manual_seed(seed))


def full_resolution(grid, masks):
    """Equation 1 as written: upsample every channel, then average inside each mask."""
    dense = F.interpolate(grid[None], masks.shape[1:], mode="bilinear", align_corners=False)[0]
    flat = masks.flatten(1).float()
    return flat @ dense.flatten(1).T / flat.sum(dim=1, keepdim=True)


def test_pooling_multiplies_what_the_boxes_of_the_masks_hold_and_no_more(count_costs):
    grid, masks = features(), ellipses(20)
    pool(grid, masks)  # the interpolation matrices are kept from the first image on
    with count_costs() as ours:
        pooled = pool(grid, masks)
    expected = 0
    for mask in masks.numpy():
        ys, xs = np.nonzero(mask)
        height, width = np.ptp(ys) + 1, np.ptp(xs) + 1
        expected += 2 * height * width * GRID[1] + 2 * GRID[0] * height * GRID[1]
    expected += 2 * len(masks) * GRID[0] * GRID[1] * CHANNELS
    assert ours.flops == expected
    with count_costs() as full:
        reference = full_resolution(grid, masks)
    assert full.flops == 2 * len(masks) * SIZE[0] * SIZE[1] * CHANNELS
    assert full.largest == FULL_RESOLUTION
    assert ours.flops * 40 < full.flops
    torch.testing.assert_close(pooled, reference, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("number", [100, 300])
def test_pooling_holds_a_four_hundredth_of_the_upsampled_features(count_costs, number):
    grid, masks = features(), ellipses(number)
    with count_costs() as costs:
        pool(grid, masks)
    assert costs.largest <= max(4 * number * GRID[0] * GRID[1], 4 * SIZE[0] * SIZE[1])
    assert costs.largest * 400 < FULL_RESOLUTION


@pytest.mark.parametrize("overlap", ["area", "mean"])
@pytest.mark.parametrize("module", [region_pool, region_vote])
def test_no_labeler_of_segments_holds_all_masks_in_floating_point(count_costs, module, overlap):
    names = tuple(f"class {k}" for k in range(20))
    masks = ellipses(100)
    text = torch.randn(20, CHANNELS, generator=torch.Generator().manual_seed(1))
    inputs = LabelInputs(
        image_id="a",
        size=SIZE,
        table=ClassTable.plain(("background", *names), prompts=names),
        proposals=SegmentProposals(
            masks=masks, predicted_iou=torch.ones(100), stability_score=torch.ones(100)
        ),
        features=DenseFeatures(grid=features(), image_size=SIZE),
        text=TextEmbeddings(vectors=F.normalize(text, dim=1), class_names=names),
    )
    labeler = module.build(module.Settings(overlap=overlap, uncovered="ignore"))
    with count_costs() as costs:
        labeler.score(inputs)
    floating = 4 * masks.numel()
    assert costs.largest * 10 < floating


@pytest.mark.parametrize("kind", ["cosine", "probability"])
def test_a_dense_label_never_holds_the_scores_of_all_pixels(count_costs, kind, monkeypatch):
    """Of 40 texts and 375 x 500 pixels that would be 30 MB; the features are the largest then."""
    names = tuple(f"class {k}" for k in range(40))
    vectors = torch.randn(40, CHANNELS, generator=torch.Generator().manual_seed(1))
    embeddings = TextEmbeddings(vectors=vectors, class_names=names)
    texts = ClassTexts.of(embeddings, ClassTable.plain(("background", *names), prompts=names))
    dense = DenseFeatures(grid=features(), image_size=SIZE)
    whole = dense_scored(dense, texts, kind)
    monkeypatch.setattr(_scoring, "_BAND_VALUES", 40 * SIZE[1] * 7)
    with count_costs() as costs:
        banded = dense_scored(dense, texts, kind)
    assert costs.largest == 4 * dense.grid.numel() < 4 * 40 * SIZE[0] * SIZE[1] / 15
    assert torch.equal(banded.best, whole.best)
    torch.testing.assert_close(banded.score, whole.score, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(banded.confidence, whole.confidence, atol=1e-6, rtol=1e-5)
