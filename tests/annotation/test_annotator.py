"""What is found out about a photo's label: coverage, conflict, doubt, segments in its pixels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zspl.annotation.annotator import Annotator, Seen
from zspl.annotation.photos import Photo
from zspl.io.classes import ClassTable
from zspl.labeling import Decision
from zspl.labeling.region_pool import Settings, build
from zspl.records import DenseFeatures, SegmentProposals, TextEmbeddings

TABLE = ClassTable.plain(("background", "cat", "dog"), prompts=("cat", "dog"))


class Encoder:
    """Sees one class per column: the left half is a cat, the right half a dog."""

    def __init__(self, *, sees_segments=False):
        self.sees_segments = sees_segments
        self.given = []

    def dense(self, image, proposals=None):
        return self.dense_batch([image], proposals and [proposals])[0]

    def text(self, names):
        return TextEmbeddings(vectors=torch.eye(2), class_names=tuple(names))

    def dense_batch(self, images, proposals=None):
        self.given.append(proposals)
        return [self.one(image) for image in images]

    def one(self, image):
        grid = torch.zeros(2, 1, 2)
        grid[0, 0, 0] = grid[1, 0, 1] = 1
        segments = torch.eye(2)[[1, 0, 1]] if self.sees_segments else None
        return DenseFeatures(grid=grid, image_size=(image.height, image.width), segments=segments)


class Proposer:
    """Three boxes: left third, its upper half again, and right third."""

    def propose(self, image):
        return self.one(image.height, image.width)

    def propose_batch(self, images):
        return [self.one(image.height, image.width) for image in images]

    def one(self, height, width):
        masks = torch.zeros(3, height, width, dtype=torch.bool)
        masks[0, :, : width // 3] = True
        masks[1, : height // 2, : width // 3] = True
        masks[2, :, -(width // 3) :] = True
        scores = torch.tensor([0.9, 0.8, 0.7])
        return SegmentProposals(masks=masks, predicted_iou=scores, stability_score=scores)


def annotator(encoder):
    return Annotator(
        table=TABLE,
        labeler=build(Settings(score="probability")),
        proposer=Proposer(),
        encoder=encoder,
        text=encoder.text(["cat", "dog"]),
    )


def seen(size=(12, 8), max_side=None):
    photo = Photo(name="a", source="a.png", path=Path("a.png"))
    return Seen.of(photo, Image.new("RGB", size), max_side)


def annotation(encoder, **options):
    return annotator(encoder).annotate([seen(**options)], Decision.plain(0.5))[0]


def test_coverage_is_the_share_of_pixels_in_a_segment():
    assert annotation(Encoder()).coverage == pytest.approx(8 / 12)


def test_conflict_is_the_share_of_pixels_in_segments_of_different_classes():
    """Seen one by one, the left third is a dog and its upper half a cat."""
    assert annotation(Encoder()).conflict == 0
    assert annotation(Encoder(sees_segments=True)).conflict == pytest.approx(1 / 6)


def test_an_encoder_that_sees_segments_gets_them_and_another_does_not():
    for sees, given in ((False, 0), (True, 1)):
        encoder = Encoder(sees_segments=sees)
        annotation(encoder)
        assert sum(proposals is not None for proposals in encoder.given) == given


def test_doubt_is_the_mean_of_one_minus_confidence():
    made = annotation(Encoder())

    facts = made.facts(made.label(), (1, 2))

    by_hand = np.mean([1 - float(c) for c in made.confidence().reshape(-1)])
    assert facts.doubt == pytest.approx(by_hand, abs=1e-6)
    assert facts.pixels == {1: 48, 2: 48}


def test_a_shrunk_photo_has_labels_and_segments_in_its_own_pixels():
    small, large = annotation(Encoder()), annotation(Encoder(), size=(36, 24), max_side=12)

    assert large.seen.image.size == (12, 8)
    label = large.label()
    np.testing.assert_array_equal(label, np.kron(small.label(), np.ones((3, 3), np.uint8)))
    assert large.confidence().shape == (24, 36)
    facts = large.facts(label, (1, 2))
    assert (facts.width, facts.height) == (36, 24)
    assert [row.bbox for row in facts.segments] == [(0, 0, 12, 24), (0, 0, 12, 12), (24, 0, 12, 24)]
    assert [row.area for row in facts.segments] == [288, 144, 288]


def test_a_line_is_never_shrunk_to_nothing():
    assert Seen.of(seen().photo, Image.new("RGB", (1, 20_000)), 2048).image.size == (1, 2048)
