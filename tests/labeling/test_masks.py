"""Boxes, areas and bands of masks against a loop over pixels."""

import numpy as np
import torch

from zspl.labeling._masks import areas, as_float, bands, windows


def some_masks():
    random = np.random.default_rng(0)
    masks = random.random((9, 50, 37)) > random.random((9, 1, 1)) * 0.2 + 0.8
    masks[3] = False
    masks[4] = False
    masks[4, -1, -1] = True
    masks[5] = True
    masks[6] = False
    masks[6, 17:20, 4:9] = True
    return torch.from_numpy(masks)


def test_windows_are_the_smallest_boxes_around_the_masks():
    for mask, window in zip(some_masks(), windows(some_masks()), strict=True):
        ys, xs = np.nonzero(mask.numpy())
        plain = (ys.min(), ys.max() + 1, xs.min(), xs.max() + 1) if len(ys) else (0, 0, 0, 0)
        assert window == plain


def test_areas_count_the_pixels_of_each_mask():
    assert areas(some_masks()) == [int(mask.sum()) for mask in some_masks()]


def test_bands_partition_the_rows_and_name_every_mask_that_reaches_in():
    masks = some_masks()
    named = dict.fromkeys(range(len(masks)), 0)
    end = 0
    for rows, inside in bands(masks):
        assert rows.start == end
        end = rows.stop
        for k in inside:
            named[k] += int(masks[k, rows].sum())
        others = [k for k in range(len(masks)) if k not in inside]
        assert not masks[others, rows].any()
    assert end >= masks.shape[1]
    assert list(named.values()) == areas(masks)


def test_bands_without_a_mask_are_left_out():
    masks = some_masks()[6:7]
    assert [rows.start for rows, _ in bands(masks)] == [16]
    assert bands(masks[:0]) == []
    assert windows(masks[:0]) == []


def test_masks_become_zeros_and_ones():
    masks = some_masks()
    assert torch.equal(as_float(masks), masks.float())
    assert torch.equal(as_float(masks[1::2, 5:9, ::3]), masks[1::2, 5:9, ::3].float())
