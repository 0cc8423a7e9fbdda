import numpy as np
import pytest
import torch

from zspl.data.cutmix import draw_box, paste

SIDE = 48


@pytest.fixture(scope="module")
def boxes():
    rng = np.random.default_rng(0)
    return [draw_box(SIDE, rng) for _ in range(3000)]


def sides(box):
    rows, columns = torch.nonzero(box, as_tuple=True)
    return int(rows.max() - rows.min() + 1), int(columns.max() - columns.min() + 1)


def test_half_of_the_boxes_are_empty(boxes):
    empty = np.mean([not box.any() for box in boxes])
    assert empty == pytest.approx(0.5, abs=0.03)


def test_a_box_is_one_rectangle_with_area_and_ratio_in_range_up_to_whole_pixels(boxes):
    for box in boxes:
        if not box.any():
            continue
        height, width = sides(box)
        assert box.sum() == height * width
        assert height * width <= 0.4 * SIDE**2
        assert (height + 1) * (width + 1) >= 0.02 * SIDE**2
        assert height / (width + 1) <= 1 / 0.3
        assert (height + 1) / width >= 0.3


def test_the_area_is_uniform_since_it_is_not_redrawn(boxes):
    areas = [box.float().mean().item() for box in boxes if box.any()]
    assert np.mean(areas) == pytest.approx((0.02 + 0.4) / 2, abs=0.02)
    assert min(areas) < 0.03
    assert max(areas) > 0.37


def test_boxes_reach_every_pixel(boxes):
    assert (torch.stack(boxes).sum(dim=0) > 0).all()


@pytest.mark.parametrize("channels", [(), (3,)])
def test_paste_takes_the_box_from_the_source_pixel_by_pixel(channels):
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(2, *channels, 5, 5, generator=generator)
    source = torch.rand(2, *channels, 5, 5, generator=generator)
    box = torch.rand(2, 5, 5, generator=generator) < 0.5
    before = target.clone()

    pasted = paste(target, source, box)

    for b, y, x in torch.cartesian_prod(*map(torch.arange, box.shape)).tolist():
        taken = source if box[b, y, x] else target
        assert torch.equal(pasted[b, ..., y, x], taken[b, ..., y, x])
    assert torch.equal(target, before)


def test_paste_keeps_integer_labels_and_masks():
    box = torch.tensor([[[True, False], [False, False]]])
    label = torch.zeros(1, 2, 2, dtype=torch.int64)
    assert paste(label, label + 255, box).tolist() == [[[255, 0], [0, 0]]]
    assert paste(~box, box, box).dtype == torch.bool


def test_paste_refuses_shapes_that_would_broadcast():
    box = torch.zeros(1, 4, 4, dtype=torch.bool)
    images = torch.zeros(2, 3, 4, 4)
    with pytest.raises(Exception, match=r"box|shape|Shaped"):
        paste(images, images, box)
