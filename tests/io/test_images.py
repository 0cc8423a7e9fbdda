"""Photos and label maps are read with one clear line when something is wrong."""

import numpy as np
import pytest
from PIL import Image

from zspl.errors import DataError
from zspl.io import images


def test_a_palette_mask_keeps_its_ids(tmp_path):
    label = np.arange(256, dtype=np.uint8).reshape(16, 16)
    images.write_label(tmp_path / "a.png", label)

    np.testing.assert_array_equal(images.read_label(tmp_path / "a.png"), label)
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P"


def test_the_palette_is_vocs():
    palette = np.array(images.voc_palette()).reshape(256, 3)
    assert palette[[0, 1, 2, 15, 20, 255]].tolist() == [
        [0, 0, 0], [128, 0, 0], [0, 128, 0], [192, 128, 128], [0, 64, 128], [224, 224, 192],
    ]  # fmt: skip


def test_a_mask_of_another_size_names_both_sizes(tmp_path):
    images.write_label(tmp_path / "a.png", np.zeros((2, 3), np.uint8))

    with pytest.raises(DataError, match="mask is 3x2, its image 4x4"):
        images.read_label(tmp_path / "a.png", size=(4, 4))


def test_a_colour_mask_is_refused(tmp_path):
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")

    with pytest.raises(DataError, match="expected one id per pixel"):
        images.read_label(tmp_path / "a.png")


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n\x00\x00"])
def test_a_broken_image_is_one_line(tmp_path, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)

    with pytest.raises(DataError, match="is not readable") as caught:
        images.read_image(path)

    assert "\n" not in str(caught.value)


def test_a_program_for_another_interpreter_is_no_image(tmp_path):
    """Pillow hands PostScript to Ghostscript, whatever the file's name says."""
    Image.new("RGB", (4, 4)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.jpg")

    with pytest.raises(DataError, match="its bytes are of no known image format"):
        images.read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "gif", "bmp", "ppm", "pgm", "jp2"])
def test_every_common_format_is_read(tmp_path, suffix):
    Image.new("L", (4, 3), 255).save(tmp_path / f"a.{suffix}")

    assert images.read_image(tmp_path / f"a.{suffix}").size == (4, 3)


def test_a_truncated_jpeg_is_refused(tmp_path):
    path = tmp_path / "a.jpg"
    Image.effect_noise((64, 64), 50).save(path)
    path.write_bytes(path.read_bytes()[:-400])

    with pytest.raises(DataError, match="is not readable"):
        images.read_image(path)


def test_a_photo_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (4, 2)).save(tmp_path / "a.jpg", exif=exif)

    assert images.read_image(tmp_path / "a.jpg").size == (2, 4)


def test_a_missing_image_says_what_to_check(tmp_path):
    with pytest.raises(DataError, match="no such image; check the data folder and the split"):
        images.read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_a_grey_image_of_unknown_range_is_refused_instead_of_clipped(tmp_path, dtype):
    Image.fromarray(np.full((2, 3), 1000, dtype)).save(tmp_path / "a.tif")

    with pytest.raises(DataError, match="expected 8 or 16 bits per channel; convert to 8 bit"):
        images.read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_grey_is_scaled_from_65535_to_255(tmp_path, suffix):
    values = np.array([[0, 128, 129, 385], [257, 32768, 65406, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")

    seen = np.array(images.read_image(tmp_path / f"a.{suffix}"))

    by_hand = [[round(int(v) * 255 / 65535) for v in row] for row in values]
    np.testing.assert_array_equal(seen, np.repeat(np.array(by_hand)[..., None], 3, axis=2))


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_shows_the_same_upright_photo(tmp_path, suffix, orientation):
    upright = np.zeros((16, 24), np.uint8)
    upright[:8, :8], upright[8:, 16:] = 250, 120
    turned = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1]}
    turned |= {5: upright.T, 6: upright.T[::-1], 7: upright.T[::-1, ::-1], 8: upright.T[:, ::-1]}
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(turned[orientation])
    Image.fromarray(stored).save(tmp_path / f"a.{suffix}", exif=exif)

    seen = np.array(images.read_image(tmp_path / f"a.{suffix}"))[..., 0]

    assert seen.shape == upright.shape
    np.testing.assert_allclose(seen.astype(int), upright.astype(int), atol=8)


def test_16_bit_grey_is_turned_upright_too(tmp_path):
    values = np.array([[0, 257, 514], [771, 1028, 1285]], np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a.png", "a.tif"):
        Image.fromarray(values).save(tmp_path / name, exif=exif)
        seen = np.array(images.read_image(tmp_path / name))[..., 0]
        assert seen.tolist() == [[3, 0], [4, 1], [5, 2]]


def test_what_is_transparent_is_white(tmp_path):
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "palette.png", transparency=0)
    palette.save(tmp_path / "animal.gif", transparency=0)
    Image.new("LA", (1, 1), (0, 127)).save(tmp_path / "half.png")

    for name in ("palette.png", "animal.gif"):
        seen = np.array(images.read_image(tmp_path / name))
        assert seen.tolist() == [[[255, 255, 255], [0, 255, 0]]]
    assert np.array(images.read_image(tmp_path / "half.png")).tolist() == [[[128, 128, 128]]]


def test_an_animation_shows_its_first_picture(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])

    assert np.array(images.read_image(tmp_path / "a.gif"))[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_an_ordinary_photo_is_bit_identical_to_pillows_conversion(tmp_path, mode):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (9, 7, len(mode)), dtype=np.uint8)
    if mode == "RGBA":
        pixels[..., 3] = 255
    Image.fromarray(pixels[..., 0] if mode == "L" else pixels).save(tmp_path / "a.png")

    with Image.open(tmp_path / "a.png") as image:
        expected = np.array(image.convert("RGB"))

    np.testing.assert_array_equal(np.array(images.read_image(tmp_path / "a.png")), expected)


def test_a_photo_that_may_be_a_bomb_is_refused(tmp_path, monkeypatch):
    Image.new("RGB", (30, 30)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)

    with pytest.raises(DataError, match=r"a.png: image is too large .*900 pixels.*; shrink it"):
        images.read_image(tmp_path / "a.png")


def test_a_decoder_that_fails_without_a_word_is_named_by_its_exception(tmp_path, monkeypatch):
    def fails(_, **__):
        raise ValueError

    (tmp_path / "a.png").write_bytes(b"x")
    monkeypatch.setattr(Image, "open", fails)
    with pytest.raises(DataError, match=r"image is not readable \(ValueError\)"):
        images.read_image(tmp_path / "a.png")
