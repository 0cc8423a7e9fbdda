import numpy as np
import pytest
from PIL import Image, ImageOps

from zspl.data.geometry import Geometry, draw

SIZES = [(60, 44), (37, 81), (20, 20), (9, 7)]


def photo(size, seed=0):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def written_out(image, drawn, *, method, fill):
    """Resize the whole, pad right and bottom, crop, mirror: the order of the official code."""
    image = image.resize(drawn.resized, method)
    width, height = image.size
    missing = (0, 0, max(drawn.side - width, 0), max(drawn.side - height, 0))
    image = ImageOps.expand(image, missing, fill=fill)
    x, y = drawn.origin
    image = image.crop((x, y, x + drawn.side, y + drawn.side))
    return np.asarray(ImageOps.mirror(image) if drawn.flip else image)


def draws(size, *, side=32, number=25, scale_range=(0.5, 2.0)):
    rng = np.random.default_rng(1)
    return [draw(size, rng, side=side, scale_range=scale_range) for _ in range(number)]


@pytest.mark.parametrize("size", SIZES)
def test_an_image_equals_resize_pad_crop_flip_exactly(size):
    image = photo(size)

    for drawn in draws(size):
        expected = written_out(image, drawn, method=Image.Resampling.BILINEAR, fill=0)
        np.testing.assert_array_equal(drawn.image(image), expected)


@pytest.mark.parametrize("size", SIZES)
def test_a_label_map_equals_resize_pad_crop_flip_exactly(size):
    rng = np.random.default_rng(0)
    label = rng.integers(0, 21, (size[1], size[0]), dtype=np.uint8)

    for drawn in draws(size):
        whole = Image.fromarray(label)
        expected = written_out(whole, drawn, method=Image.Resampling.NEAREST, fill=255)
        np.testing.assert_array_equal(drawn.label(label), expected)


@pytest.mark.parametrize("size", SIZES)
def test_the_padding_mask_is_where_the_official_code_finds_its_254(size):
    blank = Image.new("L", size)
    padded = 0

    for drawn in draws(size):
        filled = written_out(blank, drawn, method=Image.Resampling.NEAREST, fill=254)
        np.testing.assert_array_equal(drawn.padding(), filled == 254)
        padded += drawn.padding().any()

    assert padded > 0


def test_the_long_side_is_uniform_over_the_scale_range_with_both_ends():
    longs = [max(drawn.resized) for drawn in draws((10, 7), number=4000)]

    counts = np.bincount(longs, minlength=21)
    assert counts[:5].sum() == 0
    assert counts[5:].sum() == 4000
    assert len(counts) == 21
    assert np.abs(counts[5:] - 250).max() < 80


def test_the_short_side_keeps_the_proportion_rounded_half_up():
    for drawn in draws((7, 10), number=50):
        width, height = drawn.resized
        assert width == int(7 * height / 10 + 0.5)


def test_the_corner_is_uniform_and_half_the_crops_are_mirrored():
    many = draws((20, 20), side=16, number=4000, scale_range=(1.0, 1.0))

    for axis in (0, 1):
        counts = np.bincount([drawn.origin[axis] for drawn in many], minlength=5)
        assert len(counts) == 5
        assert np.abs(counts - 800).max() < 120
    assert np.mean([drawn.flip for drawn in many]) == pytest.approx(0.5, abs=0.03)


def test_an_image_of_another_size_is_refused():
    drawn = Geometry(size=(8, 8), resized=(8, 8), origin=(0, 0), side=8, flip=False)
    with pytest.raises(ValueError, match=r"geometry drawn for \(8, 8\)"):
        drawn.image(photo((9, 8)))


@pytest.mark.parametrize("size", SIZES)
def test_a_resized_window_is_the_crop_of_the_resized_whole_to_two_grey_levels(size):
    noise = photo(size)
    soft = photo((max(2, size[0] // 8), max(2, size[1] // 8))).resize(size)
    apart = []

    for image in (noise, soft):
        for drawn in draws(size):
            ours, theirs = (crop.astype(int) for crop in (drawn.window(image), drawn.image(image)))
            apart.append(np.abs(ours - theirs))
            assert (ours[drawn.padding()] == 0).all()

    assert np.max(apart) <= 2
    assert np.mean(apart) < 0.25


def test_a_window_of_an_image_of_another_size_is_refused():
    drawn = Geometry(size=(8, 8), resized=(8, 8), origin=(0, 0), side=8, flip=False)
    with pytest.raises(ValueError, match=r"geometry drawn for \(8, 8\)"):
        drawn.window(photo((9, 8)))
