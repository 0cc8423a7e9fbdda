import numpy as np
import pytest
import torch
from PIL import Image

from zspl import cli
from zspl.cli import annotate
from zspl.io.images import read_label
from zspl.records import DenseFeatures, SegmentProposals, TextEmbeddings


class FakeEncoder:
    """Red is the first direction, green the second, and texts point along them in turn."""

    def dense(self, image):
        pixels = torch.from_numpy(np.array(image)).float() / 255
        return DenseFeatures(
            grid=pixels.movedim(2, 0)[:2] + 1e-3, image_size=(image.height, image.width)
        )

    def text(self, names):
        return TextEmbeddings(vectors=torch.eye(2)[: len(names)], class_names=tuple(names))


class FakeProposer:
    """Cuts every photo into a left and a right half."""

    def propose(self, image):
        masks = torch.zeros(2, image.height, image.width, dtype=torch.bool)
        masks[0, :, : image.width // 2] = True
        masks[1] = ~masks[0]
        return SegmentProposals(
            masks=masks, predicted_iou=torch.ones(2), stability_score=torch.ones(2)
        )


@pytest.fixture
def photos(tmp_path, monkeypatch):
    real = annotate.build_plugin
    fakes = {"zspl.proposals": FakeProposer, "zspl.features": FakeEncoder}

    def build(package, name, values):
        return fakes[package]() if package in fakes else real(package, name, values)

    monkeypatch.setattr(annotate, "build_plugin", build)
    folder = tmp_path / "photos"
    folder.mkdir()
    pixels = np.zeros((6, 8, 3), np.uint8)
    pixels[:, :4, 0], pixels[:, 4:, 1] = 255, 255
    for name in ("a.png", "b.jpg"):
        Image.fromarray(pixels).save(folder / name)
    return folder


def run(photos, *more, classes="cat,dog"):
    out = photos.parent / "out"
    where = ["--images", str(photos), "--out", str(out), "--classes", classes]
    return cli.main(["annotate", *where, *more]), out


def test_annotate_writes_palette_labels_confidences_and_a_contact_sheet(photos, capsys):
    code, out = run(photos)
    assert code == 0
    assert read_label(out / "a.png").tolist() == [[1] * 4 + [2] * 4] * 6
    with Image.open(out / "a.png") as label:
        assert label.mode == "P"
    assert read_label(out / "a.confidence.png").min() == 255
    assert (out / "contact_sheet.png").exists()
    assert "2 of 2 images annotated" in capsys.readouterr().out


def test_annotate_skips_what_is_unreadable_and_says_so_at_the_end(photos, capsys):
    (photos / "c.jpg").write_bytes(b"no photo")
    code, out = run(photos)
    assert code == 1
    captured = capsys.readouterr()
    assert "2 of 3 images annotated" in captured.out
    assert "zspl: skipped" in captured.err
    assert "c.jpg: image is not readable" in captured.err
    assert not (out / "c.png").exists()


def test_annotate_does_only_what_is_not_done(photos, monkeypatch, capsys):
    _, out = run(photos)
    (out / "b.png").unlink()
    before = (out / "a.png").stat().st_mtime_ns
    assert run(photos)[0] == 0
    assert (out / "b.png").exists()
    assert (out / "a.png").stat().st_mtime_ns == before


def test_annotate_never_mixes_labels_of_other_choices(photos, capsys):
    run(photos)
    assert run(photos, "--threshold", "0.5")[0] == 2
    assert "holds labels made with other choices; pass another --out" in capsys.readouterr().err


def test_annotate_leaves_a_folder_with_other_files_alone(photos, capsys):
    out = photos.parent / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    assert run(photos)[0] == 2
    assert "holds files of something else" in capsys.readouterr().err


def test_annotate_without_segments_labels_each_pixel(photos):
    code, out = run(photos, "--proposals", "none")
    assert code == 0
    assert set(np.unique(read_label(out / "a.png"))) <= {0, 1, 2}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--features", "gme"], "zspl/features/ has no plugin 'gme'. Did you mean 'gem'?"),
        (["--set", "features.mode=tiny"], "mode"),
        (["--set", "feature.model=tiny"], "Did you mean 'features'?"),
        (["--proposals", "none", "--labeler", "region_pool"], "needs segments"),
    ],
)
def test_annotate_checks_its_choices_before_any_photo(photos, capsys, more, message):
    assert run(photos, *more)[0] == 2
    err = [line for line in capsys.readouterr().err.splitlines() if line.startswith("zspl:")]
    assert len(err) == 1
    assert message in err[0]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("cat,cat", "class names must differ"),
        (" , ", "expected 2..255 class names"),
        ("cat", "one class, whose probability is always 1"),
    ],
)
def test_annotate_wants_classes_that_can_be_told_apart(photos, capsys, classes, message):
    assert run(photos, classes=classes)[0] == 2
    assert message in capsys.readouterr().err


def test_annotate_takes_one_class_with_a_cosine(photos):
    cosine = ["--set", "labeler.score=cosine", "--threshold", "0.5"]
    code, out = run(photos, *cosine, classes="cat")
    assert code == 0
    # The encoder's directions are two; the class is the first, red and on the left.
    assert read_label(out / "a.png").tolist() == [[1] * 4 + [0] * 4] * 6


def test_annotate_names_a_folder_without_photos_and_two_of_one_name(photos, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    base = ["--classes", "cat,dog", "--out", str(tmp_path / "o")]
    assert cli.main(["annotate", "--images", str(tmp_path / "empty"), *base]) == 2
    assert "empty: no image in it" in capsys.readouterr().err
    Image.new("RGB", (2, 2)).save(photos / "a.jpg")
    assert cli.main(["annotate", "--images", str(photos), *base]) == 2
    assert "has the same name; rename one" in capsys.readouterr().err
