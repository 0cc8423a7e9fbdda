from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter
from torchvision.transforms import functional as reference

from zspl.data import strong


@pytest.fixture
def crop():
    return np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)


def same(first, second):
    np.testing.assert_array_equal(np.asarray(first), np.asarray(second))


@pytest.mark.parametrize("factor", [0.5, 0.93, 1.5])
def test_brightness_contrast_and_saturation_equal_torchvision(crop, factor):
    image = Image.fromarray(crop)
    same(strong._brightness(image, factor), reference.adjust_brightness(image, factor))
    same(strong._contrast(image, factor), reference.adjust_contrast(image, factor))
    same(strong._saturation(image, factor), reference.adjust_saturation(image, factor))


@pytest.mark.parametrize("share", [-0.25, -0.1, 0.0, 0.2, 0.25])
def test_the_hue_turns_as_in_torchvision(crop, share):
    image = Image.fromarray(crop)
    same(strong.turn_hue(image, share), reference.adjust_hue(image, share))


def test_jitter_applies_every_change_in_random_order_within_its_range(crop, monkeypatch):
    calls = []

    def note(name):
        return lambda image, factor: calls.append((name, factor)) or image

    changes = [(note(k), low, high) for k, (_, low, high) in enumerate(strong._CHANGES)]
    monkeypatch.setattr(strong, "_CHANGES", tuple(changes))
    rng = np.random.default_rng(0)

    for _ in range(400):
        strong.strong_view(crop[:2, :2], rng)

    orders = {tuple(name for name, _ in calls[k : k + 4]) for k in range(0, len(calls), 4)}
    assert len(orders) == 24
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
    for name, (low, high) in enumerate([(0.5, 1.5)] * 3 + [(-0.25, 0.25)]):
        factors = [factor for other, factor in calls if other == name]
        assert low <= min(factors) < low + 0.02
        assert high - 0.02 < max(factors) <= high
        assert np.mean(factors) == pytest.approx((low + high) / 2, abs=0.04)


def test_jitter_grey_and_blur_have_their_probabilities():
    rng = np.random.default_rng(0)
    drawn = [strong.draw_colours(rng) for _ in range(3000)]
    assert np.mean([len(colours.changes) == 4 for colours in drawn]) == pytest.approx(0.8, abs=0.03)
    assert np.mean([colours.grey for colours in drawn]) == pytest.approx(0.2, abs=0.03)
    radii = [colours.radius for colours in drawn if colours.radius]
    assert len(radii) / 3000 == pytest.approx(0.5, abs=0.03)
    assert 0.1 <= min(radii) < 0.11
    assert 1.99 < max(radii) <= 2


def test_a_view_is_changed_made_grey_and_blurred_as_drawn(crop):
    plain = strong.Colours(changes=(), grey=False, radius=0.0)
    np.testing.assert_array_equal(strong.coloured(crop, plain), crop)
    grey = strong.coloured(crop, replace(plain, grey=True))
    assert (grey == grey[..., :1]).all()
    image = Image.fromarray(crop)
    expected = np.asarray(image.filter(ImageFilter.GaussianBlur(1.5)))
    np.testing.assert_array_equal(strong.coloured(crop, replace(plain, radius=1.5)), expected)


def test_a_strong_view_leaves_its_crop_alone_and_repeats_with_the_seed(crop):
    before = crop.copy()
    first = strong.strong_view(crop, np.random.default_rng(3))
    again = strong.strong_view(crop, np.random.default_rng(3))
    other = strong.strong_view(crop, np.random.default_rng(4))

    np.testing.assert_array_equal(crop, before)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert first.shape == crop.shape
    assert first.dtype == np.uint8
