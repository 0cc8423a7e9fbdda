"""What every encoder keeps, whatever its method; a new plugin file is tested the day it appears."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from zspl import plugins
from zspl.errors import SettingsError
from zspl.features import Encoder
from zspl.io import devices
from zspl.records import SegmentProposals

ENCODERS = plugins.names("zspl.features")
SIZES = [(30, 50), (64, 40), (33, 33)]


def photos():
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 255, (*size, 3), dtype=np.uint8)) for size in SIZES]


def halves(size, *, parts):
    """Cut an image into vertical stripes."""
    masks = torch.zeros(parts, *size, dtype=torch.bool)
    for k, columns in enumerate(torch.arange(size[1]).chunk(parts)):
        masks[k, :, columns] = True
    scores = torch.linspace(0.9, 0.8, parts)
    return SegmentProposals(masks=masks, predicted_iou=scores, stability_score=scores)


def proposals():
    return [halves(size, parts=2 + k) for k, size in enumerate(SIZES)]


@pytest.fixture(params=ENCODERS)
def build(request, sharp_clip, serve):
    """Return a function that builds one encoder over a small CLIP, with its default settings."""
    serve(sharp_clip())
    module = plugins.load("zspl.features", request.param)
    return lambda **values: module.build(module.Settings(image_size=32, **values))


def test_it_keeps_the_protocol(build):
    encoder = build()
    assert isinstance(encoder, Encoder)
    assert isinstance(encoder.sees_segments, bool)


def test_dense_features_have_the_grid_of_the_input_and_the_size_of_the_photo(build):
    dense = build().dense(photos()[0], proposals()[0])
    assert dense.grid.shape == (24, 4, 4)
    assert dense.grid.dtype == torch.float32
    assert bool(dense.grid.isfinite().all())
    assert dense.image_size == SIZES[0]


def test_a_batch_equals_its_images_one_by_one(build):
    encoder = build()
    together = encoder.dense_batch(photos(), proposals())
    for dense, photo, segments, size in zip(together, photos(), proposals(), SIZES, strict=True):
        alone = encoder.dense(photo, segments)
        torch.testing.assert_close(dense.grid, alone.grid, atol=1e-5, rtol=1e-5)
        assert dense.image_size == alone.image_size == size
        assert (dense.segments is None) == (alone.segments is None)
        if dense.segments is not None:
            torch.testing.assert_close(dense.segments, alone.segments, atol=1e-5, rtol=1e-5)


def test_no_images_give_no_features(build):
    assert build().dense_batch([], []) == []


def test_only_one_that_sees_segments_needs_proposals(build):
    encoder = build()
    if encoder.sees_segments:
        with pytest.raises(ValueError, match="segments"):
            encoder.dense(photos()[0])
        with pytest.raises(ValueError, match="segments"):
            encoder.dense_batch(photos())
    else:
        with_them = encoder.dense(photos()[0], proposals()[0])
        assert torch.equal(encoder.dense(photos()[0]).grid, with_them.grid)
        assert with_them.segments is None


def test_segment_embeddings_come_one_per_proposal(build):
    for dense, segments in zip(
        build().dense_batch(photos(), proposals()), proposals(), strict=True
    ):
        if dense.segments is not None:
            assert dense.segments.shape == (len(segments.masks), 24)
            assert bool(dense.segments.isfinite().all())


def test_an_image_without_any_segment_still_gets_its_grid(build):
    none = halves(SIZES[0], parts=2)
    none = SegmentProposals(
        masks=none.masks[:0], predicted_iou=torch.zeros(0), stability_score=torch.zeros(0)
    )
    dense = build().dense(photos()[0], none)
    assert dense.grid.shape == (24, 4, 4)
    assert bool(dense.grid.isfinite().all())
    assert dense.segments is None or len(dense.segments) == 0


def test_text_embeddings_are_unit_vectors_in_the_space_of_the_grid(build):
    text = build().text(["cat", "potted plant"])
    assert text.vectors.shape == (2, 24)
    assert text.class_names == ("cat", "potted plant")
    torch.testing.assert_close(text.vectors.norm(dim=1), torch.ones(2))


def test_two_builds_give_the_same_bytes(build):
    one, other = (build().dense(photos()[1], proposals()[1]) for _ in range(2))
    assert torch.equal(one.grid, other.grid)


def test_bfloat16_agrees_with_float32_and_comes_out_as_float32(build):
    try:
        devices.dtype("bfloat16")
    except SettingsError:
        pytest.skip("this CPU has no bfloat16")
    exact = build().dense(photos()[0], proposals()[0])
    half = build(dtype="bfloat16").dense(photos()[0], proposals()[0])
    assert half.grid.dtype == torch.float32
    cosine = F.cosine_similarity(exact.grid, half.grid, dim=0)
    assert cosine.mean() > 0.99
    assert not torch.equal(exact.grid, half.grid)
