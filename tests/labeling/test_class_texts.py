"""Synonyms and background texts: every rule read out pixel by pixel, with a loop over the texts."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from zspl.io.classes import ClassTable
from zspl.labeling import Decision, LabelInputs, pixel_argmax, region_pool, region_vote
from zspl.records import DenseFeatures, SegmentProposals, TextEmbeddings

NAMES = ("background", "cat", "dog", "bird")
RICH = ClassTable.plain(
    NAMES, prompts=("cat|kitten", "dog", "bird|parrot|hen"), background=("sky", "wall")
)
PLAIN = ClassTable.plain(NAMES, prompts=NAMES[1:])
THRESHOLD = {"cosine": 0.1, "probability": 0.9}


def given(seed, table=RICH, size=(18, 26)):
    random = torch.Generator().manual_seed(seed)
    masks = torch.zeros(5, *size, dtype=torch.bool)
    for mask in masks:
        y, x, h, w = (int(torch.randint(low, 10, (), generator=random)) for low in (0, 0, 3, 3))
        mask[y : y + h, x : x + w] = True
    vectors = torch.randn(len(table.texts), 6, generator=random)
    return LabelInputs(
        image_id="a",
        size=size,
        table=table,
        proposals=SegmentProposals(
            masks=masks,
            predicted_iou=torch.linspace(0.9, 0.5, len(masks)),
            stability_score=torch.ones(len(masks)),
        ),
        features=DenseFeatures(grid=torch.randn(6, 4, 5, generator=random), image_size=size),
        text=TextEmbeddings(vectors=F.normalize(vectors, dim=1), class_names=table.texts),
    )


def class_scores(cosines, table, kind):
    """Softmax over all texts if asked for, then the best text of each class; by class id."""
    per_text = (100 * cosines).softmax(0) if kind == "probability" else cosines
    found = {}
    for class_id, value in zip(table.text_classes, per_text.tolist(), strict=True):
        found[class_id] = max(found.get(class_id, -2.0), value)
    return found


def decided(found, kind, unassigned):
    """Return the label and confidence of what has these class scores."""
    best = max(found, key=found.get)
    certain = found[best] if kind == "probability" else (1 + found[best]) / 2
    if best == 0 or found[best] > THRESHOLD[kind]:
        return best, certain
    return unassigned, 1 - certain


def dense_cosines(inputs):
    cells = F.normalize(inputs.features.grid, dim=0)
    maps = torch.einsum("dhw,pd->phw", cells, inputs.text.vectors)
    return F.interpolate(maps[None], inputs.size, mode="bilinear", align_corners=False)[0]


def plain_region_pool(inputs, kind, unassigned):
    dense = F.interpolate(
        inputs.features.grid[None], inputs.size, mode="bilinear", align_corners=False
    )[0]
    masks = inputs.proposals.masks
    of_segment = []
    for mask in masks:
        cosines = F.cosine_similarity(dense[:, mask].mean(dim=1)[None], inputs.text.vectors)
        of_segment.append(class_scores(cosines, inputs.table, kind))
    maps = dense_cosines(inputs)
    label, confidence = np.zeros(inputs.size, np.uint8), np.zeros(inputs.size)
    for y, x in np.ndindex(*inputs.size):
        covering = [k for k in range(len(masks)) if masks[k, y, x]]
        if covering:
            found = of_segment[min(covering, key=lambda k: (int(masks[k].sum()), k))]
        else:
            found = class_scores(maps[:, y, x], inputs.table, kind)
        label[y, x], confidence[y, x] = decided(found, kind, unassigned)
    return label, confidence


def plain_pixel_argmax(inputs, kind, unassigned):
    maps = dense_cosines(inputs)
    label, confidence = np.zeros(inputs.size, np.uint8), np.zeros(inputs.size)
    for y, x in np.ndindex(*inputs.size):
        found = class_scores(maps[:, y, x], inputs.table, kind)
        label[y, x], confidence[y, x] = decided(found, kind, unassigned)
    return label, confidence


@pytest.mark.parametrize("unassigned", [0, 255])
@pytest.mark.parametrize("kind", ["cosine", "probability"])
@pytest.mark.parametrize(
    ("module", "plain"),
    [(region_pool, plain_region_pool), (pixel_argmax, plain_pixel_argmax)],
)
def test_labels_with_synonyms_and_background_equal_the_rules(module, plain, kind, unassigned):
    labeler = module.build(module.Settings(score=kind, unassigned=unassigned))
    seen = set()
    for seed in range(3):
        inputs = given(seed)
        pseudo = labeler.assign(labeler.score(inputs), Decision.plain(THRESHOLD[kind]))
        label, confidence = plain(inputs, kind, unassigned)
        assert np.array_equal(pseudo.label.numpy(), label)
        np.testing.assert_allclose(pseudo.confidence.numpy(), confidence, atol=2e-5)
        seen |= set(np.unique(label))
    assert seen >= {0, 1, 2, 3, unassigned}


@pytest.mark.parametrize("module", [region_pool, region_vote, pixel_argmax])
def test_no_threshold_takes_away_what_a_background_text_won(module):
    inputs = given(1)
    labeler = module.build(module.Settings(unassigned=255))
    scored = labeler.score(inputs)
    won = scored.best == 0
    assert won.any()
    assert not won.all()
    nothing = labeler.assign(scored, Decision.plain(2.0))
    assert torch.equal(nothing.label == 0, won)
    assert torch.equal(nothing.label == 255, ~won)
    torch.testing.assert_close(nothing.confidence[won], scored.confidence[won])
    for row in nothing.segments:
        assert row.assigned == (0 if row.classes[0] == 0 else 255)


@pytest.mark.parametrize("module", [region_pool, region_vote])
def test_the_segment_table_lists_classes_not_texts(module):
    inputs = given(2)
    labeler = module.build(module.Settings())
    rows = labeler.score(inputs).segments
    for row in rows:
        assert len(set(row.classes)) == 3
        assert set(row.classes) <= {0, 1, 2, 3}
        assert sum(row.probabilities) <= 1 + 1e-5
    assert any(0 in row.classes for row in rows)


def test_a_synonym_that_says_the_same_changes_no_cosine():
    inputs = given(0, PLAIN)
    table = ClassTable.plain(NAMES, prompts=("cat|feline", "dog", "bird"))
    vectors = inputs.text.vectors[[0, 0, 1, 2]]
    twice = LabelInputs(
        image_id="a",
        size=inputs.size,
        table=table,
        proposals=inputs.proposals,
        features=inputs.features,
        text=TextEmbeddings(vectors=vectors, class_names=table.texts),
    )
    for module in (region_pool, region_vote, pixel_argmax):
        labeler = module.build(module.Settings(score="cosine"))
        once, again = labeler.score(inputs), labeler.score(twice)
        assert torch.equal(once.best, again.best)
        torch.testing.assert_close(once.score, again.score)


def test_a_table_of_one_text_per_class_is_scored_without_a_detour():
    inputs = given(3, PLAIN)
    labeler = pixel_argmax.build(pixel_argmax.Settings())
    scored = labeler.score(inputs)
    maps = dense_cosines(inputs)
    score, best = (100 * maps).softmax(dim=0).max(dim=0)
    assert torch.equal(scored.best, (best + 1).to(torch.uint8))
    torch.testing.assert_close(scored.score, score, atol=2e-5, rtol=1e-5)
    assert scored.score.max() < math.inf


@pytest.mark.parametrize("module", [region_pool, region_vote, pixel_argmax])
def test_embeddings_of_other_texts_are_a_callers_mistake(module):
    inputs = given(0, PLAIN)
    other = LabelInputs(
        image_id="a",
        size=inputs.size,
        table=RICH,
        proposals=inputs.proposals,
        features=inputs.features,
        text=inputs.text,
    )
    with pytest.raises(ValueError, match="one embedding for each of 8 texts, got 3"):
        module.build(module.Settings()).score(other)
