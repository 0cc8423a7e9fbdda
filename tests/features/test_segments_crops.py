"""CLIP on crops: each segment cut out pixel by pixel and given to the model's own tower."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from zspl.features import crops
from zspl.features.crops import crop_window
from zspl.records import SegmentProposals

HEIGHT, WIDTH = 30, 46


def photo():
    random = np.random.default_rng(0)
    return Image.fromarray(random.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8))


def proposals_of(masks):
    scores = torch.linspace(0.9, 0.8, len(masks))
    return SegmentProposals(masks=masks, predicted_iou=scores, stability_score=scores)


def some_masks():
    """Return segments in a corner, across the photo, in the middle, of one pixel, and none."""
    masks = torch.zeros(5, HEIGHT, WIDTH, dtype=torch.bool)
    masks[0, :7, :5] = True
    masks[1, 12:15] = True
    masks[2] = torch.rand(HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0)) > 0.7
    masks[2, :6] = masks[2, 20:] = masks[2, :, :9] = masks[2, :, 30:] = False
    masks[3, 29, 45] = True
    return proposals_of(masks)


def cut_by_hand(image, mask, *, margin, square, outside):
    """Return the crop of one segment, written pixel by pixel."""
    points = [(y, x) for y in range(HEIGHT) for x in range(WIDTH) if mask[y, x]]
    spans = []
    for axis, room in ((1, WIDTH), (0, HEIGHT)):
        inside = [point[axis] for point in points]
        spans.append((min(inside), max(inside) + 1, room))
    longer = max(end - start for start, end, _ in spans)
    window = []
    for start, end, room in spans:
        length = (longer if square else end - start) + 2 * margin * longer
        low = math.floor((start + end) / 2 - length / 2)
        high = math.ceil((start + end) / 2 + length / 2)
        beyond_start, beyond_end = max(0, -low), max(0, high - room)
        window.append((max(0, low - beyond_end), min(room, high + beyond_start)))
    (left, right), (top, bottom) = window
    blurred = image.filter(ImageFilter.GaussianBlur(0.05 * WIDTH))
    mean = tuple(round(float(c)) for c in np.array(image).mean(axis=(0, 1)))
    cut = Image.new("RGB", (right - left, bottom - top))
    for y in range(top, bottom):
        for x in range(left, right):
            shown = image.getpixel((x, y))
            if not mask[y, x] and outside == "mean":
                shown = mean
            if not mask[y, x] and outside == "blur":
                shown = blurred.getpixel((x, y))
            cut.putpixel((x - left, y - top), shown)
    return cut


@pytest.mark.parametrize("outside", ["keep", "mean", "blur"])
@pytest.mark.parametrize(("margin", "square"), [(0.0, False), (0.25, True), (3.0, True)])
@torch.inference_mode()
def test_a_segment_is_clips_own_embedding_of_its_crop(sharp_clip, serve, outside, margin, square):
    model = sharp_clip(image_size=32)
    serve(model)
    chosen = {"margin": margin, "square": square, "outside": outside}
    encoder = crops.build(crops.Settings(image_size=48, **chosen))
    image, segments = photo(), some_masks()
    found = encoder.dense(image, segments)
    for k in range(4):
        cut = cut_by_hand(image, segments.masks[k], **chosen)
        # The dense tokens are of 48 pixels; a crop has the size that the model was made for.
        pixels = encoder.pixels(cut, 32)
        expected = model.encode_image(pixels[None])[0]
        torch.testing.assert_close(found.segments[k], expected, atol=1e-5, rtol=1e-5)
    assert found.segments.shape == (5, 24)
    assert not found.segments[4].any()


def test_pixels_in_no_segment_keep_plain_clips_tokens(sharp_clip, serve):
    from zspl.features import clip

    serve(sharp_clip())
    plain = clip.build(clip.Settings(image_size=32)).dense(photo())
    found = crops.build(crops.Settings(image_size=32)).dense(photo(), some_masks())
    assert torch.equal(found.grid, plain.grid)


def test_more_segments_than_fit_into_one_pass_keep_their_order(sharp_clip, serve, monkeypatch):
    serve(sharp_clip())
    encoder = crops.build(crops.Settings(image_size=32))
    images, segments = [photo(), photo()], [some_masks(), some_masks()]
    at_once = encoder.dense_batch(images, segments)
    monkeypatch.setattr(crops, "_CROPS_PER_PASS", 3)
    for some, all_of_them in zip(encoder.dense_batch(images, segments), at_once, strict=True):
        torch.testing.assert_close(some.segments, all_of_them.segments, atol=1e-5, rtol=1e-5)


def test_a_crop_at_the_border_moves_inside_and_never_leaves_the_photo():
    mask = np.zeros((20, 30), bool)
    mask[0:2, 24:30] = True
    assert crop_window(mask, margin=0.0, square=True) == (24, 0, 30, 6)
    assert crop_window(mask, margin=0.5, square=True) == (18, 0, 30, 12)
    assert crop_window(mask, margin=9.0, square=True) == (0, 0, 30, 20)


def test_masks_of_another_size_are_refused(sharp_clip, serve):
    serve(sharp_clip())
    masks = torch.ones(1, HEIGHT, WIDTH + 1, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"masks are of \(30, 47\) pixels"):
        crops.build(crops.Settings(image_size=32)).dense(photo(), proposals_of(masks))
