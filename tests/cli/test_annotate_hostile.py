"""A folder of everything that goes wrong: the run finishes, and says what it put aside."""

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from zspl.annotation.results import Results
from zspl.io.images import read_label

RED, GREEN = (255, 0, 0), (0, 255, 0)
LEFT_RED = [[1] * 12 + [2] * 12] * 16
LATIN = os.fsdecode(b"latin\xe9")


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path, **options)


def left_red(height, width):
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2], pixels[:, width // 2 :] = RED, GREEN
    return pixels


def bomb(path):
    """A PNG of some kilobytes that says it holds 30000 x 30000 pixels."""

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(3751 * 100))
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


def fill_good(folder):
    smooth = {"quality": 95, "subsampling": 0}
    save(folder / "plain.jpg", left_red(16, 24), **smooth)
    turned = Image.Exif()
    turned[0x0112] = 6
    lying = left_red(16, 24).swapaxes(0, 1)[::-1]
    save(folder / "turned.jpg", lying, exif=turned, **smooth)
    cmyk = np.zeros((16, 24, 4), np.uint8)
    cmyk[:, :12, 1:3], cmyk[:, 12:, [0, 2]] = 255, 255
    Image.fromarray(cmyk, mode="CMYK").save(folder / "cmyk.jpg", **smooth)
    deep = np.full((4, 6), 65535, np.uint16)
    Image.fromarray(deep).save(folder / "deep.png")
    palette = Image.new("P", (24, 16), 1)
    palette.putpalette([*RED, *GREEN, 9, 9, 9])
    palette.paste(0, (0, 0, 12, 16))
    palette.putpixel((0, 0), 2)
    palette.save(folder / "palette.png", transparency=2)
    frames = [Image.fromarray(left_red(16, 24)), Image.new("RGB", (24, 16), "blue")]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    save(folder / "dot.png", [[RED]])
    save(folder / "tall.png", np.full((20_000, 1, 3), RED))
    save(folder / "deep" / "er" / "plain.png", left_red(16, 24))
    save(folder / "two\nlines \u732b.png", left_red(16, 24))
    save(folder / f"{LATIN}.png", left_red(16, 24))
    save(folder / "same.png", left_red(16, 24))
    save(folder / "same.bmp", left_red(16, 24)[:, ::-1])


def fill_bad(folder):
    Image.effect_noise((64, 64), 50).save(folder / "cut.jpg")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:-600])
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("no photo")
    Image.fromarray(np.zeros((4, 4), np.float32)).save(folder / "float.tif")
    bomb(folder / "bomb.png")
    (folder / "nowhere.jpg").symlink_to("gone")
    (folder / "deep" / "loop").symlink_to(folder)
    (folder / ".hidden.jpg").write_text("hidden")
    (folder / "notes.txt").write_text("notes")


@pytest.fixture
def hostile(photos):
    """The folder of `photos`, with everything that goes wrong in place of its photos."""
    for path in photos.rglob("*.*"):
        path.unlink()
    fill_good(photos)
    fill_bad(photos)
    return photos


@pytest.mark.parametrize("batch", [1, 4])
def test_good_photos_are_labeled_upright_and_bad_ones_listed_with_reasons(
    annotate, hostile, capsys, batch, files
):
    before = files(hostile)

    code, out = annotate("--batch", batch)

    results = Results(out, hostile)
    assert code == 1
    reasons = dict(results.quarantined())
    assert "truncated" in reasons.pop("cut.jpg")
    assert {source: reason.split(";")[0] for source, reason in reasons.items()} == {
        "bomb.png": "image is too large (Image size (900000000 pixels) exceeds limit of 178956970 "
        "pixels, could be decompression bomb DOS attack.)",
        "empty.jpg": "image is not readable (the file is empty)",
        "float.tif": "image has mode F, expected 8 or 16 bits per channel",
        "nowhere.jpg": "link leads nowhere",
        "text.jpg": "image is not readable (its bytes are of no known image format)",
    }
    maps = {name: read_label(out / "labels" / f"{name}.png") for name in results.names()}
    for name in (
        "plain",
        "turned",
        "cmyk",
        "deep/er/plain",
        "two\nlines \u732b",
        LATIN,
        "same.png",
    ):
        assert maps[name].tolist() == LEFT_RED, name
    assert maps["same.bmp"].tolist() == [row[::-1] for row in LEFT_RED]
    assert maps["moving"].tolist() == LEFT_RED
    assert maps["dot"].tolist() == [[1]]
    assert maps["tall"].tolist() == [[1]] * 20_000
    assert maps["palette"].shape == (16, 24)
    assert maps["deep"].shape == (4, 6)
    assert len(maps) == 13
    said = capsys.readouterr()
    assert "13 of 19 photos labeled" in said.out
    assert "6 in quarantine" in said.out
    assert "1 file is no image (.txt 1)" in said.out
    assert "Traceback" not in said.err
    assert files(hostile) == before


def test_a_terminal_without_unicode_shows_every_name(annotate, hostile, monkeypatch, capfd):
    import io
    import sys

    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", ascii_only)

    assert annotate()[0] == 1

    ascii_only.seek(0)
    assert "13 of 19 photos labeled" in ascii_only.read()


def test_a_second_run_reads_no_photo_again(annotate, hostile, fakes, monkeypatch, files):
    from zspl.annotation import engine

    _, out = annotate()
    before = files(out)
    monkeypatch.setattr(engine, "read_image", None)

    code, _ = annotate()

    assert code == 1
    assert files(out) == before
