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


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_a_grey_image_of_more_than_8_bits_is_refused_instead_of_clipped(tmp_path, dtype):
    Image.fromarray(np.full((2, 3), 1000, dtype)).save(tmp_path / "a.tif")

    with pytest.raises(DataError, match="expected 8 bits per channel; convert to 8 bit"):
        images.read_image(tmp_path / "a.tif")


def test_a_decoder_that_fails_without_a_word_is_named_by_its_exception(tmp_path, monkeypatch):
    def fails(_):
        raise ValueError

    monkeypatch.setattr(Image, "open", fails)
    with pytest.raises(DataError, match=r"image is not readable \(ValueError\)"):
        images.read_image(tmp_path / "a.png")
