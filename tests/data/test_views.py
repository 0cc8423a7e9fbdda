from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from zspl.data import strong
from zspl.data.colour_rows import REACH, ROW, box_weights, rows
from zspl.data.strong import BRIGHTNESS, CONTRAST, SATURATION, TURN, Colours
from zspl.data.views import finished, strong_views
from zspl.records import LabeledBatch

SIDE = 96
FACTORS = (0.5, 0.83, 1.0, 1.27, 1.5)


def smooth(seed):
    """A picture with soft and hard edges, bright and dark parts and strong colours."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    pixels = np.array(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    pixels[20:40, 30:80] = rng.integers(0, 256, 3)
    return pixels


def noise(seed):
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


CROPS = [smooth(0), smooth(1), noise(2)]


def drawn(*changes, grey=False, radius=0.0):
    return Colours(changes=changes, grey=grey, radius=radius)


def by_pillow(crop, colours):
    """The view as `pillow` makes it, from the same draw."""
    return strong.coloured(crop, colours).astype(float)


def by_tensor(crops, colours):
    levels = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float()
    return strong_views(levels, rows(colours)).permute(0, 2, 3, 1).numpy()


def apart(colours):
    """Grey levels between the two ways to make a view, over all crops."""
    ours = by_tensor(CROPS, [colours] * len(CROPS))
    return np.abs(ours - np.stack([by_pillow(crop, colours) for crop in CROPS]))


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("change", [BRIGHTNESS, CONTRAST, SATURATION])
def test_brightness_contrast_and_saturation_equal_pillow_exactly(change, factor):
    assert apart(drawn((change, factor))).max() == 0


def test_grey_equals_pillow_exactly():
    assert apart(drawn(grey=True)).max() == 0


@pytest.mark.parametrize("share", [-0.25, -0.1, 0.0, 0.003, 0.07, 0.25])
def test_a_turn_of_the_hue_equals_pillow_but_for_a_few_pixels(share):
    difference = apart(drawn((TURN, share)))
    assert difference.mean() < 0.02
    assert (difference > 1).mean() < 0.005
    assert difference.max() <= 8


@pytest.mark.parametrize("radius", [0.1, 0.33, 0.5, 0.7, 1.0, 1.41, 1.7, 1.99])
def test_a_blur_equals_pillow_to_two_grey_levels_up_to_the_edge(radius):
    difference = apart(drawn(radius=radius))
    assert difference.mean() < 0.15
    assert difference.max() <= 2


def test_no_blur_and_no_change_leave_every_bit():
    assert apart(drawn()).max() == 0


@pytest.mark.parametrize("radius", np.linspace(0, 2, 9))
def test_three_boxes_have_the_variance_of_the_blur(radius):
    inner, *outer = box_weights(float(radius))
    assert inner + 2 * sum(outer) == pytest.approx(1)
    variance = 2 * sum(weight * k * k for k, weight in enumerate(outer, start=1))
    assert 3 * variance == pytest.approx(radius**2)


def test_the_widest_blur_fits_in_the_box():
    assert len(box_weights(strong.BLUR_SIGMA[1])) == REACH + 1


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2), (2, 0, 3, 1)])
def test_changes_are_made_in_the_order_drawn(order):
    factors = {BRIGHTNESS: 1.4, CONTRAST: 0.6, SATURATION: 1.5, TURN: 0.2}
    colours = drawn(*((k, factors[k]) for k in order))
    shuffled = drawn(*((k, factors[k]) for k in order[::-1]))
    difference = apart(colours)
    assert difference.mean() < 0.1
    assert np.abs(by_tensor(CROPS, [colours] * 3) - by_tensor(CROPS, [shuffled] * 3)).mean() > 1


def test_the_draws_are_those_of_the_strong_view_and_leave_its_generator_alike():
    crop = CROPS[0][:12, :12]
    for seed in range(300):
        ours, theirs = np.random.default_rng(seed), np.random.default_rng(seed)
        colours = strong.draw_colours(ours)
        np.testing.assert_array_equal(by_pillow(crop, colours), strong.strong_view(crop, theirs))
        assert ours.bit_generator.state == theirs.bit_generator.state


def only(colours, kind):
    """What a draw would be if nothing but one kind of change existed."""
    if kind == "grey":
        return replace(colours, changes=(), radius=0.0)
    if kind == "blur":
        return replace(colours, changes=(), grey=False)
    kept = tuple(change for change in colours.changes if change[0] == kind)
    return replace(colours, changes=kept, grey=False, radius=0.0)


@pytest.mark.parametrize("kind", [BRIGHTNESS, CONTRAST, SATURATION, TURN, "grey", "blur"])
def test_views_of_random_draws_are_distributed_as_pillows_one_change_at_a_time(kind):
    rng = np.random.default_rng(7)
    draws = [only(strong.draw_colours(rng), kind) for _ in range(150)]
    crop = CROPS[1]

    ours = by_tensor([crop] * len(draws), draws)
    theirs = np.stack([by_pillow(crop, colours) for colours in draws])

    for statistic in (np.mean, np.std):
        found, expected = (statistic(views, axis=(1, 2)) for views in (ours, theirs))
        assert np.abs(found - expected).max() < 0.2  # grey levels, of each view and channel
    assert np.abs(ours - theirs).mean() < 0.05
    steps = [np.abs(np.diff(views, axis=2)).mean() for views in (ours, theirs)]
    assert steps[0] == pytest.approx(steps[1], abs=0.02)
    assert np.abs(theirs - crop).max() > 20


def test_a_view_depends_on_its_own_crop_and_draw_to_the_bit():
    rng = np.random.default_rng(0)
    draws = [strong.draw_colours(rng) for _ in range(9)]
    crops = [smooth(k) for k in range(9)]
    together = by_tensor(crops, draws)
    for k in range(9):
        np.testing.assert_array_equal(by_tensor(crops[k : k + 1], draws[k : k + 1])[0], together[k])
    np.testing.assert_array_equal(by_tensor(crops[3:7], draws[3:7]), together[3:7])


def test_views_are_whole_grey_levels_and_their_crops_stay_as_they_are():
    crops = torch.randint(0, 256, (2, 3, 8, 8), generator=torch.Generator().manual_seed(0)).float()
    before = crops.clone()
    draw = drawn((CONTRAST, 1.5), (TURN, 0.1), radius=1.0)
    views = strong_views(crops, rows([draw, draw]))
    assert torch.equal(crops, before)
    assert torch.equal(views, views.round())
    assert views.min() >= 0
    assert views.max() <= 255
    assert rows([draw]).shape == (1, ROW)


def test_the_views_of_a_batch_take_as_many_ops_as_the_views_of_one_crop(count_costs):
    rng, ops = np.random.default_rng(0), []
    for number in (2, 16):
        table = rows([strong.draw_colours(rng) for _ in range(number)])
        with count_costs() as costs:
            strong_views(torch.zeros(number, 3, 8, 8), table)
        ops.append(costs.ops)
    assert ops[0] == ops[1] <= 260


@pytest.mark.gpu
def test_views_on_a_gpu_are_those_of_the_cpu_to_a_grey_level():
    rng = np.random.default_rng(0)
    table = rows([strong.draw_colours(rng) for _ in range(16)])
    crops = torch.from_numpy(np.stack([smooth(k) for k in range(16)])).permute(0, 3, 1, 2).float()
    difference = (strong_views(crops.cuda(), table.cuda()).cpu() - strong_views(crops, table)).abs()
    assert difference.mean() < 0.01
    assert (difference > 1).float().mean() < 0.001


def test_what_pillow_made_is_finished_already():
    image, label = torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4, dtype=torch.int64)
    labeled = LabeledBatch(image=image, label=label)
    assert finished((labeled, None, None)) == (labeled, None, None)
