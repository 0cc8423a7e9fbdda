"""Naming segments: similarities, the threshold, overlaps and gaps."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from zspl.io.classes import ClassTable
from zspl.labeling import Decision, LabelInputs, pixel_argmax, region_pool
from zspl.records import DenseFeatures, SegmentProposals, TextEmbeddings

NAMES = ("zebra", "brick", "bee")
TABLE = ClassTable.plain(("background", *NAMES), prompts=NAMES)


def inputs(masks, grid, *, ious=None, seed=0):
    height, width = masks.shape[1:]
    number = len(masks)
    vectors = torch.randn(len(NAMES), len(grid), generator=torch.Generator().manual_seed(seed))
    return LabelInputs(
        image_id="a",
        size=(height, width),
        table=TABLE,
        proposals=SegmentProposals(
            masks=masks,
            predicted_iou=torch.linspace(0.9, 0.5, number) if ious is None else ious,
            stability_score=torch.ones(number),
        ),
        features=DenseFeatures(grid=grid, image_size=(height, width)),
        text=TextEmbeddings(vectors=F.normalize(vectors, dim=1), class_names=NAMES),
    )


def random_inputs(seed, number=6, size=(20, 30)):
    random = torch.Generator().manual_seed(seed)
    rows = torch.randint(0, size[0] - 4, (number,), generator=random)
    columns = torch.randint(0, size[1] - 4, (number,), generator=random)
    sides = torch.randint(3, 14, (number, 2), generator=random)
    masks = torch.zeros(number, *size, dtype=torch.bool)
    for k in range(number):
        masks[k, rows[k] : rows[k] + sides[k, 0], columns[k] : columns[k] + sides[k, 1]] = True
    return inputs(masks, torch.randn(8, 4, 6, generator=random), seed=seed)


def plain_label(given, settings, threshold):
    """Methods.md 1.1 and 1.2, pixel by pixel."""
    features, text, masks = given.features, given.text, given.proposals.masks
    grid = features.grid
    if settings.normalise_tokens:
        grid = grid / grid.norm(dim=0)
    dense = F.interpolate(grid[None], given.size, mode="bilinear", align_corners=False)[0]
    unit = features.grid / features.grid.norm(dim=0)
    maps = torch.einsum("dhw,kd->khw", unit, text.vectors)
    maps = F.interpolate(maps[None], given.size, mode="bilinear", align_corners=False)[0]

    def score(cosine):
        return (100 * cosine).softmax(0) if settings.score == "probability" else cosine

    segment = [
        score(F.cosine_similarity(dense[:, mask].mean(dim=1)[None], text.vectors)) for mask in masks
    ]
    label = np.zeros(given.size, np.uint8)
    for y in range(given.size[0]):
        for x in range(given.size[1]):
            covering = [k for k in range(len(masks)) if masks[k, y, x]]
            if covering and settings.overlap == "mean":
                chosen = torch.stack([segment[k] for k in covering]).mean(dim=0)
            elif covering:
                keys = {
                    "area": lambda k: -int(masks[k].sum()),
                    "score": lambda k: float(segment[k].max()),
                    "predicted_iou": lambda k: float(given.proposals.predicted_iou[k]),
                }
                chosen = segment[max(covering, key=lambda k: (keys[settings.overlap](k), -k))]
            elif settings.uncovered == "dense":
                chosen = score(maps[:, y, x])
            else:
                label[y, x] = {"background": 0, "ignore": 255}[settings.uncovered]
                continue
            above = float(chosen.max()) > threshold
            label[y, x] = int(chosen.argmax()) + 1 if above else settings.unassigned
    return label


@pytest.mark.parametrize("score", ["cosine", "probability"])
@pytest.mark.parametrize("overlap", ["area", "score", "predicted_iou", "mean"])
@pytest.mark.parametrize("uncovered", ["dense", "background", "ignore"])
def test_labels_equal_a_pixel_by_pixel_reading_of_the_rules(score, overlap, uncovered):
    settings = region_pool.Settings(
        score=score,
        overlap=overlap,
        uncovered=uncovered,
        unassigned=255 if overlap == "score" else 0,
        normalise_tokens=overlap == "mean",
    )
    threshold = 0.05 if score == "cosine" else 0.9
    labeler = region_pool.build(settings)
    given = random_inputs(seed=len(score) + len(overlap))
    found = labeler.assign(labeler.score(given), Decision.plain(threshold)).label.numpy()
    assert np.array_equal(found, plain_label(given, settings, threshold))
    assert len(np.unique(found)) > 1


def test_the_order_of_segments_does_not_matter_when_their_areas_differ():
    given = random_inputs(seed=3)
    areas = given.proposals.masks.sum(dim=(1, 2))
    assert len(areas.unique()) == len(areas)
    labeler = region_pool.build(region_pool.Settings(score="cosine"))
    expected = labeler.assign(labeler.score(given), Decision.plain(0.0)).label
    order = torch.randperm(len(areas), generator=torch.Generator().manual_seed(0))
    shuffled = random_inputs(seed=3)
    shuffled = inputs(shuffled.proposals.masks[order], shuffled.features.grid, seed=3)
    assert torch.equal(labeler.assign(labeler.score(shuffled), Decision.plain(0.0)).label, expected)


def test_confidence_is_the_certainty_of_what_was_painted():
    given = random_inputs(seed=1)
    for score, low in (("probability", 1 / 3), ("cosine", 0.0)):
        labeler = region_pool.build(region_pool.Settings(score=score))
        scored = labeler.score(given)
        everything = labeler.assign(scored, Decision.plain(-1.0))
        nothing = labeler.assign(scored, Decision.plain(2.0))
        assert (everything.label > 0).all()
        assert (nothing.label == 0).all()
        assert (everything.confidence >= low - 1e-6).all()
        torch.testing.assert_close(nothing.confidence, 1 - everything.confidence)


def test_the_segment_table_describes_each_segment():
    masks = torch.zeros(2, 10, 12, dtype=torch.bool)
    masks[0, 2:5, 3:9] = True
    masks[1, 9, 0] = True
    given = inputs(masks, torch.randn(8, 3, 3, generator=torch.Generator().manual_seed(4)))
    labeler = region_pool.build(region_pool.Settings(score="cosine"))
    rows = labeler.assign(labeler.score(given), Decision.plain(-1.0)).segments
    assert [(row.area, row.bbox) for row in rows] == [(18, (3, 2, 6, 3)), (1, (0, 9, 1, 1))]
    for row in rows:
        assert row.assigned == row.classes[0]
        assert sorted(row.classes) == [1, 2, 3]
        assert list(row.cosines) == sorted(row.cosines, reverse=True)
        assert sum(row.probabilities) == pytest.approx(1)
    assert all(
        row.assigned == 0
        for row in labeler.assign(labeler.score(given), Decision.plain(2.0)).segments
    )


def test_an_image_without_segments_gets_the_dense_label():
    given = random_inputs(seed=2, number=0)
    region = region_pool.build(region_pool.Settings())
    pixel = pixel_argmax.build(pixel_argmax.Settings())
    a, b = (
        labeler.assign(labeler.score(given), Decision.plain(0.5)) for labeler in (region, pixel)
    )
    assert torch.equal(a.label, b.label)
    assert torch.equal(a.confidence, b.confidence)
    assert a.segments == ()


def test_missing_inputs_are_a_callers_mistake():
    empty = LabelInputs(image_id="a", size=(2, 2), table=TABLE)
    for module in (region_pool, pixel_argmax):
        with pytest.raises(ValueError, match="needs"):
            module.build(module.Settings()).score(empty)


def test_a_threshold_outside_the_range_of_scores_is_refused():
    with pytest.raises(ValueError, match="calibrated"):
        region_pool.Settings(threshold=85.0)


def seen(given, segments):
    features = DenseFeatures(grid=given.features.grid, image_size=given.size, segments=segments)
    return dataclasses.replace(given, features=features)


@pytest.mark.parametrize("normalise", [False, True])
def test_an_encoder_that_looks_at_segments_is_taken_at_its_word(normalise):
    given = random_inputs(seed=5)
    vectors = torch.randn(len(given.proposals.masks), 8, generator=torch.Generator().manual_seed(9))
    settings = region_pool.Settings(
        score="cosine", uncovered="ignore", overlap="predicted_iou", normalise_tokens=normalise
    )
    scored = region_pool.build(settings).score(seen(given, vectors))
    cosines = F.cosine_similarity(vectors[:, None], given.text.vectors[None], dim=2)
    assert scored.segment_scores == pytest.approx(cosines.amax(dim=1).tolist(), abs=1e-6)
    for y, x in ((2, 3), (10, 12), (15, 20)):
        covering = [k for k, mask in enumerate(given.proposals.masks) if mask[y, x]]
        expected = int(cosines[covering[0]].argmax()) + 1 if covering else 255
        assert scored.best[y, x] == expected


def test_embeddings_of_other_segments_are_a_callers_mistake():
    given = random_inputs(seed=5)
    labeler = region_pool.build(region_pool.Settings())
    with pytest.raises(ValueError, match="saw 4 segments, but there are 6 proposals"):
        labeler.score(seen(given, torch.ones(4, 8)))


@pytest.mark.parametrize("overlap", ["area", "mean"])
def test_painting_many_real_sized_masks_equals_the_plain_rule(overlap):
    random = np.random.default_rng(0)
    size, number = (120, 160), 150
    y, x = np.arange(size[0])[:, None], np.arange(size[1])
    centre = random.uniform(0, 1, (number, 2)) * size
    radius = np.exp(random.uniform(0, 4, (number, 2)))
    masks = [
        ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1
        for (cy, cx), (ry, rx) in zip(centre, radius, strict=True)
    ]
    given = inputs(
        torch.from_numpy(np.stack(masks)),
        torch.randn(8, 9, 12, generator=torch.Generator().manual_seed(0)),
    )
    settings = region_pool.Settings(overlap=overlap, uncovered="ignore", score="cosine")
    scored = region_pool.build(settings).score(given)
    rows = scored.segments
    best = np.full(size, 255, np.uint8)
    if overlap == "area":
        order = sorted(range(number), key=lambda k: (-rows[k].area, -k))
        for k in order:
            best[masks[k]] = rows[k].classes[0]
    else:
        total = np.zeros((3, *size))
        for row, mask in zip(rows, masks, strict=True):
            for class_id, cosine in zip(row.classes, row.cosines, strict=True):
                total[class_id - 1][mask] += cosine
        covered = np.any(masks, axis=0)
        best[covered] = total.argmax(axis=0)[covered] + 1
    assert np.array_equal(scored.best.numpy(), best)
