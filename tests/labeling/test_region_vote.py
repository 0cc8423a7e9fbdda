"""Region-level voting against counting the votes of a segment pixel by pixel."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from zspl.io.classes import ClassTable
from zspl.labeling import Decision, LabelInputs, region_vote
from zspl.records import DenseFeatures, SegmentProposals, TextEmbeddings

NAMES = ("zebra", "brick", "bee")
PLAIN = ClassTable.plain(("background", *NAMES), prompts=NAMES)
RICH = ClassTable.plain(
    ("background", *NAMES), prompts=("zebra|mule", "brick", "bee"), background=("sky",)
)


def given(seed, table, size=(40, 30), number=6):
    random = torch.Generator().manual_seed(seed)
    masks = torch.zeros(number, *size, dtype=torch.bool)
    for mask in masks:
        y, x = (int(torch.randint(0, 20, (), generator=random)) for _ in range(2))
        h, w = (int(torch.randint(4, 25, (), generator=random)) for _ in range(2))
        mask[y : y + h, x : x + w] = True
    vectors = torch.randn(len(table.texts), 8, generator=random)
    return LabelInputs(
        image_id="a",
        size=size,
        table=table,
        proposals=SegmentProposals(
            masks=masks,
            predicted_iou=torch.linspace(0.9, 0.5, number),
            stability_score=torch.ones(number),
        ),
        features=DenseFeatures(grid=torch.randn(8, 5, 4, generator=random), image_size=size),
        text=TextEmbeddings(vectors=F.normalize(vectors, dim=1), class_names=table.texts),
    )


def plain_scores(inputs, kind):
    """Return for every pixel its class scores by ascending class id, upsampled as torch does."""
    cells = F.normalize(inputs.features.grid, dim=0)
    maps = torch.einsum("dhw,pd->phw", cells, inputs.text.vectors)
    maps = F.interpolate(maps[None], inputs.size, mode="bilinear", align_corners=False)[0]
    if kind == "probability":
        maps = (100 * maps).softmax(dim=0)
    ids = sorted(set(inputs.table.text_classes))
    texts = np.array(inputs.table.text_classes)
    return ids, torch.stack([maps[texts == k].amax(dim=0) for k in ids])


def plain_label(inputs, settings, threshold):
    ids, scores = plain_scores(inputs, settings.score)
    masks = inputs.proposals.masks
    votes, means = [], []
    for mask in masks:
        inside = scores[:, mask]
        means.append(inside.mean(dim=1))
        ballots = [int(inside[:, k].argmax()) for k in range(inside.shape[1])]
        counted = torch.tensor([ballots.count(column) for column in range(len(ids))])
        votes.append(counted / len(ballots) if settings.vote == "most" else means[-1])
    label = np.zeros(inputs.size, np.uint8)
    for y, x in np.ndindex(*inputs.size):
        covering = [k for k in range(len(masks)) if masks[k, y, x]]
        if covering and settings.overlap == "mean":
            chosen = torch.stack([votes[k] for k in covering]).mean(dim=0)
            strength = torch.stack([means[k] for k in covering]).mean(dim=0)
        elif covering:
            keys = {
                "area": lambda k: -int(masks[k].sum()),
                "score": lambda k: float(means[k][votes[k].argmax()]),
                "predicted_iou": lambda k: float(inputs.proposals.predicted_iou[k]),
            }
            top = max(covering, key=lambda k: (keys[settings.overlap](k), -k))
            chosen, strength = votes[top], means[top]
        elif settings.uncovered == "dense":
            chosen = strength = scores[:, y, x]
        else:
            label[y, x] = {"background": 0, "ignore": 255}[settings.uncovered]
            continue
        best = int(chosen.argmax())
        keep = ids[best] == 0 or float(strength[best]) > threshold
        label[y, x] = ids[best] if keep else settings.unassigned
    return label


@pytest.mark.parametrize("table", [PLAIN, RICH], ids=["plain", "rich"])
@pytest.mark.parametrize("vote", ["most", "mean"])
@pytest.mark.parametrize("score", ["cosine", "probability"])
@pytest.mark.parametrize(
    ("overlap", "uncovered"),
    [("area", "dense"), ("score", "ignore"), ("predicted_iou", "background"), ("mean", "dense")],
)
def test_labels_equal_a_count_of_every_vote(table, vote, score, overlap, uncovered):
    settings = region_vote.Settings(
        vote=vote, score=score, overlap=overlap, uncovered=uncovered, unassigned=255
    )
    threshold = 0.05 if score == "cosine" else 0.6
    inputs = given(len(vote) + len(overlap), table)
    labeler = region_vote.build(settings)
    pseudo = labeler.assign(labeler.score(inputs), Decision.plain(threshold))
    expected = plain_label(inputs, settings, threshold)
    assert np.array_equal(pseudo.label.numpy(), expected)
    assert len(np.unique(expected)) > 1


def one_segment(grid):
    """One segment over a photo of as many pixels as cells; text k points along channel k."""
    size = (grid.shape[1], grid.shape[2])
    table = ClassTable.plain(("background", "a", "b"), prompts=("a", "b"))
    return LabelInputs(
        image_id="a",
        size=size,
        table=table,
        proposals=SegmentProposals(
            masks=torch.ones(1, *size, dtype=torch.bool),
            predicted_iou=torch.ones(1),
            stability_score=torch.ones(1),
        ),
        features=DenseFeatures(grid=grid, image_size=size),
        text=TextEmbeddings(vectors=torch.eye(2), class_names=("a", "b")),
    )


def best_class(inputs, vote):
    settings = region_vote.Settings(vote=vote, score="cosine")
    (best,) = region_vote.build(settings).score(inputs).best.unique().tolist()
    return best


def test_most_pixels_outvote_a_few_very_similar_ones():
    grid = torch.zeros(2, 1, 10)
    grid[:, :, :6] = torch.tensor([1.0, 0.9])[:, None, None]
    grid[:, :, 6:] = torch.tensor([0.0, 1.0])[:, None, None]
    assert best_class(one_segment(grid), "most") == 1
    assert best_class(one_segment(grid), "mean") == 2


def test_a_tie_of_votes_goes_to_the_more_similar_class():
    grid = torch.tensor([[[1.0, 0.0]], [[0.9, 1.0]]])
    assert best_class(one_segment(grid), "most") == 2
    assert best_class(one_segment(grid.flip(0)), "most") == 1


def test_the_table_holds_the_means_over_the_pixels_of_each_segment():
    inputs = given(1, PLAIN)
    settings = region_vote.Settings(vote="mean")
    rows = region_vote.build(settings).score(inputs).segments
    for kind in ("cosine", "probability"):
        _, scores = plain_scores(inputs, kind)
        for row, mask in zip(rows, inputs.proposals.masks, strict=True):
            means = scores[:, mask].mean(dim=1)
            listed = row.cosines if kind == "cosine" else row.probabilities
            expected = [float(means[class_id - 1]) for class_id in row.classes]
            assert listed == pytest.approx(expected, abs=1e-5)
            assert row.area == int(mask.sum())
        if kind == "probability":
            assert all(list(r.probabilities) == sorted(r.probabilities)[::-1] for r in rows)


def test_an_empty_mask_and_no_masks_at_all_do_no_harm():
    inputs = given(2, PLAIN)
    inputs.proposals.masks[2] = False
    labeler = region_vote.build(region_vote.Settings())
    scored = labeler.score(inputs)
    assert scored.segments[2].area == 0
    assert torch.isfinite(scored.score).all()
    none = given(2, PLAIN, number=0)
    assert labeler.score(none).segments == ()
    assert set(labeler.score(none).best.unique().tolist()) <= {1, 2, 3}


def test_missing_inputs_are_a_callers_mistake():
    empty = LabelInputs(image_id="a", size=(2, 2), table=PLAIN)
    with pytest.raises(ValueError, match="region_vote needs proposals, features and texts"):
        region_vote.build(region_vote.Settings()).score(empty)
