"""zspl annotate keeps a folder free for another try, and its own files apart from the photos'."""

import pytest
from PIL import Image

from zspl import cli


def annotate(photos, out, *more):
    paths = ["--images", str(photos), "--classes", "cat,dog", "--out", str(out)]
    return cli.main(["annotate", *paths, "--proposals", "superpixels", *more])


@pytest.mark.parametrize("name", ["contact_sheet.jpg", "a.confidence.png"])
def test_a_photo_named_like_an_output_is_refused(tmp_path, capsys, name):
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (8, 8)).save(photos / name)

    assert annotate(photos, tmp_path / "out") == 2
    assert "the name is taken by a file of the output" in capsys.readouterr().err


def test_an_annotator_that_cannot_be_built_does_not_claim_the_folder(tmp_path, capsys):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    Image.new("RGB", (8, 8)).save(photos / "a.png")

    code = annotate(photos, out, "--set", "features.model=tiny")

    assert code == 2
    assert "cat" in capsys.readouterr().err or not out.exists()
    assert not out.exists()
