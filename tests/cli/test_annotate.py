"""zspl annotate: what it writes, what it says, and when it goes on or refuses."""

import csv
import json
import os

import numpy as np
import pytest
from PIL import Image

from zspl import cli
from zspl.annotation.results import Results
from zspl.io.images import read_label, write_label

CAT_AND_DOG = [[1] * 4 + [2] * 4] * 6


def test_annotate_writes_labels_confidence_facts_table_sheet_and_report(annotate, photos, capsys):
    code, out = annotate()

    assert code == 0
    assert read_label(out / "labels" / "a.png").tolist() == CAT_AND_DOG
    with Image.open(out / "labels" / "a.png") as label:
        assert label.mode == "P"
    assert read_label(out / "confidence" / "a.png").min() == 255
    assert read_label(out / "labels" / "sub" / "b.png").shape == (16, 16)
    facts = Results(out, photos).facts("sub/b")
    assert (facts.source, facts.width, facts.height) == ("sub/b.jpg", 16, 16)
    assert (facts.coverage, facts.conflict) == (1.0, 0.0)
    assert facts.pixels == {1: 128, 2: 128}
    assert [row.assigned for row in facts.segments] == [1, 2]
    for name in ("contact_sheet.png", "index.html", "annotate.json", "classes.json"):
        assert (out / name).exists()
    said = capsys.readouterr().out
    assert f"2 of 2 photos labeled in {out / 'labels'}" in said
    assert "coverage 100.0%" in said
    assert "photos/s" in said


def test_the_table_lists_the_most_doubtful_photo_first(annotate, photos, red_and_green):
    grey = Image.new("RGB", (8, 8), (120, 118, 0))
    grey.save(photos / "unsure.png")

    _, out = annotate()

    with (out / "images.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["name"] for row in rows] == ["unsure", "a", "sub/b"]
    assert float(rows[0]["doubt"]) > float(rows[1]["doubt"])
    assert (rows[1]["cat"], rows[1]["dog"], rows[1]["background"]) == ("0.5000", "0.5000", "0.0000")


def test_annotate_records_every_setting_and_no_place_or_time(annotate, photos):
    _, out = annotate("--background", "sky")

    made_with = json.loads((out / "annotate.json").read_text())
    assert made_with["classes"] == ["background", "cat", "dog"]
    assert made_with["background"] == ["sky"]
    assert made_with["features"]["settings"]["depth"] == 7
    assert made_with["decision"]["threshold"] == 0.85
    assert str(photos.parent) not in (out / "annotate.json").read_text()


def test_two_runs_give_the_same_bytes(annotate, photos, files):
    _, first = annotate()
    _, second = annotate(out=photos.parent / "second")

    assert files(first) == files(second)


def test_a_broken_photo_goes_to_quarantine_and_the_exit_code_tells(annotate, photos, capsys):
    (photos / "c.jpg").write_bytes(b"no photo")

    code, out = annotate()

    assert code == 1
    said = capsys.readouterr().out
    assert "2 of 3 photos labeled" in said
    assert "c.jpg: image is not readable (its bytes are of no known image format)" in said
    assert Results(out, photos).quarantined() == [
        (
            "c.jpg",
            "image is not readable (its bytes are of no known image format); replace the file",
        )
    ]
    assert not (out / "labels" / "c.png").exists()


@pytest.mark.parametrize("batch", [1, 3])
def test_a_photo_that_breaks_a_model_is_put_aside_and_the_run_goes_on(annotate, photos, batch):
    Image.new("RGB", (13, 13)).save(photos / "b.png")

    code, out = annotate("--batch", batch)

    assert code == 1
    assert Results(out, photos).names() == ["a", "sub/b"]
    assert Results(out, photos).quarantined() == [("b.png", "MemoryError: 13 x 13 is too much")]


def test_quarantined_photos_are_tried_again_when_asked_or_when_they_change(annotate, photos, fakes):
    Image.new("RGB", (13, 13)).save(photos / "b.png")
    annotate()
    fakes.passes.clear()

    assert annotate()[0] == 1
    assert fakes.passes == []
    assert annotate("--redo-quarantined")[0] == 1
    assert fakes.passes == [1]
    Image.new("RGB", (12, 13), "red").save(photos / "b.png")
    code, out = annotate()

    assert code == 0
    assert Results(out, photos).names() == ["a", "b", "sub/b"]
    assert not (out / "quarantine.csv").exists()


def test_annotate_does_only_what_is_not_done(annotate, fakes, files):
    _, out = annotate()
    before = files(out)
    fakes.passes.clear()
    (out / "labels" / "sub" / "b.png").unlink()

    assert annotate()[0] == 0

    assert fakes.passes == [1]
    assert files(out) == before
    annotate()
    assert fakes.passes == [1]


def test_a_photo_that_changed_is_labeled_again(annotate, photos, fakes):
    _, out = annotate()
    fakes.passes.clear()
    status = (photos / "a.png").stat()
    Image.new("RGB", (8, 6), (0, 255, 0)).save(photos / "a.png")
    os.utime(photos / "a.png", ns=(status.st_atime_ns, status.st_mtime_ns + 1))

    annotate()

    assert fakes.passes == [1]
    assert set(np.unique(read_label(out / "labels" / "a.png"))) == {2}


def test_annotate_never_mixes_labels_of_other_choices(annotate, capsys):
    annotate()
    assert annotate("--threshold", "0.5")[0] == 2
    error = capsys.readouterr().err
    assert "holds labels made with other choices" in error
    assert "was 0.85, is 0.5" in error
    assert "pass another --out" in error


def test_annotate_leaves_a_folder_with_other_files_alone(annotate, photos, capsys):
    out = photos.parent / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")

    assert annotate()[0] == 2
    assert "holds files of something else (thesis.txt)" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]


def test_a_preview_labels_some_and_the_full_run_keeps_them(
    annotate, photos, fakes, files, red_and_green, capsys
):
    for index in range(8):
        red_and_green().save(photos / f"x{index}.png")
    _, undisturbed = annotate(out=photos.parent / "undisturbed")
    capsys.readouterr()
    fakes.passes.clear()

    code, out = annotate("--preview", 3)

    said = capsys.readouterr().out
    assert code == 0
    assert "3 of 10 photos labeled as a preview" in said
    assert str(out / "contact_sheet.png") in said
    assert "the same command without --preview labels the rest" in said
    assert len(fakes.passes) == 3
    assert not (out / "index.html").exists()
    annotate()
    assert len(fakes.passes) == 10
    assert files(out) == files(undisturbed)


def test_masks_choose_the_thresholds_and_their_report_is_kept(annotate, photos, capsys):
    masks = photos.parent / "masks"
    for name, size in (("a", (6, 8)), ("sub/b", (16, 16))):
        truth = np.ones(size, np.uint8)
        truth[:, size[1] // 2 :] = 2
        write_label(masks / f"{name}.png", truth)
    write_label(masks / "stranger.png", np.zeros((2, 2), np.uint8))

    code, out = annotate("--masks", masks)

    assert code == 0
    calibration = Results(out, photos).made_with()["calibration"]
    assert calibration["images"] == 2
    assert calibration["fitted_miou"] == pytest.approx(1)
    assert read_label(out / "labels" / "a.png").tolist() == CAT_AND_DOG
    said = capsys.readouterr().out
    assert f"expected {calibration['sentence']}" in said
    assert "masks    stranger.png belongs to no photo" in said
    capsys.readouterr()
    write_label(masks / "a.png", np.zeros((6, 8), np.uint8))
    assert annotate("--masks", masks)[0] == 2
    assert "masks was" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((5, 8), np.uint8), "a.png: mask is 8x5, its image 8x6 pixels"),
        (np.full((6, 8), 3, np.uint8), "holds the id 3 (48 pixels), expected 0 background, 1 cat"),
    ],
)
def test_a_mask_that_does_not_fit_is_one_line(annotate, photos, capsys, mask, message):
    write_label(photos.parent / "masks" / "a.png", mask)

    code, out = annotate("--masks", photos.parent / "masks")

    assert code == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_masks_of_no_photo_are_named(annotate, photos, capsys):
    (photos.parent / "masks").mkdir()
    assert annotate("--masks", photos.parent / "masks")[0] == 2
    assert "no mask of the photos in it; expected label maps such as a.png" in (
        capsys.readouterr().err
    )


def test_annotate_exports_what_is_asked_for(annotate, capsys):
    code, out = annotate("--export", "coco, voc")

    assert code == 0
    assert sorted(path.name for path in (out / "exports").iterdir()) == ["coco", "voc"]
    assert f"export   {out / 'exports' / 'coco'}" in capsys.readouterr().out


def test_large_photos_are_shrunk_for_the_models_and_labeled_at_their_size(
    annotate, photos, red_and_green
):
    red_and_green((400, 120)).save(photos / "large.png")

    _, out = annotate("--max-side", "40")

    label = read_label(out / "labels" / "large.png")
    assert label.tolist() == [[1] * 200 + [2] * 200] * 120
    facts = Results(out, photos).facts("large")
    assert facts.pixels == {1: 24000, 2: 24000}
    assert [row.bbox for row in facts.segments] == [(0, 0, 200, 120), (200, 0, 200, 120)]
    assert [row.area for row in facts.segments] == [24000, 24000]


def test_ignored_pixels_are_255_when_asked_for(annotate, photos):
    Image.new("RGB", (8, 6), (120, 120, 0)).save(photos / "unsure.png")

    _, out = annotate("--unassigned", "ignore")

    assert set(np.unique(read_label(out / "labels" / "unsure.png"))) == {255}
    assert Results(out, photos).facts("unsure").pixels == {255: 48}


def test_annotate_without_segments_labels_each_pixel(annotate, photos):
    code, out = annotate("--proposals", "none")

    assert code == 0
    assert read_label(out / "labels" / "a.png").tolist() == CAT_AND_DOG
    facts = Results(out, photos).facts("a")
    assert (facts.coverage, facts.conflict, facts.segments) == (None, None, ())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--features", "gme"], "zspl/features/ has no plugin 'gme'. Did you mean 'gem'?"),
        (["--set", "features.mode=tiny"], "mode"),
        (["--set", "feature.model=tiny"], "Did you mean 'features'?"),
        (["--set", "labeler.threshold=0.3"], "pass --threshold"),
        (["--proposals", "none", "--labeler", "region_pool"], "needs segments"),
        (["--proposals", "superpixels", "--sam", "vit_b"], "--sam vit_b is for --proposals sam"),
        (["--sam", "vitb"], "no such model. Did you mean 'vit_b'?"),
        (["--export", "cocoa"], "no such format. Did you mean 'coco'?"),
        (["--prompt", "a photo"], "needs exactly one {} for the class name"),
        (["--threshold", "2"], "must be in [-1, 1]"),
        (["--dtype", "float16"], "float16, which no CPU computes fast"),
    ],
)
def test_annotate_checks_its_choices_before_any_photo(annotate, capsys, more, message):
    code, out = annotate(*more)

    assert code == 2
    err = [line for line in capsys.readouterr().err.splitlines() if line.startswith("zspl:")]
    assert len(err) == 1
    assert message in err[0]
    assert not out.exists()


@pytest.mark.parametrize("option", ["--out", "--masks"])
def test_results_and_masks_lie_apart_from_the_photos(annotate, photos, capsys, option):
    assert annotate(option, photos)[0] == 2
    assert f"{option} {photos}: is the folder of --images" in capsys.readouterr().err


def test_results_below_the_photos_are_no_photos(annotate, photos, capsys):
    inside = photos / "zspl"
    annotate(out=inside)
    assert annotate(out=inside)[0] == 0
    assert Results(inside, photos).names() == ["a", "sub/b"]

    _, out = annotate()

    assert Results(out, photos).names() == ["a", "sub/b"]
    assert "left out zspl/: holds results of zspl" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("cat,cat", "class names must differ"),
        (" , ", "names no class"),
        ("cat", "one class, whose probability is always 1"),
        ("background, cat", "background is class 0 already"),
        ("cat, dog=", "'dog=' is no class"),
        ("classes.txt", "classes.txt: no such file"),
    ],
)
def test_annotate_wants_classes_that_can_be_told_apart(annotate, capsys, classes, message):
    assert annotate(classes=classes)[0] == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "more", [["--background", "grass"], ["--set", "labeler.score=cosine", "--threshold", "0.5"]]
)
def test_one_class_is_enough_beside_a_background_or_with_a_cosine(annotate, more):
    code, out = annotate(*more, classes="cat")

    assert code == 0
    assert read_label(out / "labels" / "a.png").tolist() == [[1] * 4 + [0] * 4] * 6


def test_synonyms_speak_for_one_class(annotate):
    _, out = annotate(classes="pet=cat|dog")

    assert set(np.unique(read_label(out / "labels" / "a.png"))) == {1}


def test_a_folder_without_photos_says_what_lies_in_it(tmp_path, fakes, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "x.heic").touch()
    base = ["annotate", "--classes", "cat,dog", "--out", str(tmp_path / "o"), "--images"]

    assert cli.main([*base, str(tmp_path / "empty")]) == 2
    assert "empty: no image in it; 1 file is no image (.heic 1)" in capsys.readouterr().err
    assert cli.main([*base, str(tmp_path / "gone")]) == 2
    assert "gone: no such folder; pass --images" in capsys.readouterr().err


def test_a_full_disk_is_one_line_and_what_is_done_stays(annotate, photos, monkeypatch, capsys):
    import errno

    from zspl.annotation import engine

    real = engine.write_label

    def full(path, label):
        if path.name == "b.png":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path, label)

    monkeypatch.setattr(engine, "write_label", full)

    code, out = annotate()

    assert code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("zspl:")]
    assert len(lines) == 1
    assert "b.png" in lines[0]
    assert Results(out, photos).names() == ["a"]


def test_control_c_keeps_what_is_done(annotate, photos, monkeypatch, capsys, fakes, files):
    from zspl.annotation.annotator import Annotator

    _, undisturbed = annotate(out=photos.parent / "undisturbed")
    real = Annotator.annotate

    def stops(self, photos, decision):
        if photos[0].photo.name == "sub/b":
            raise KeyboardInterrupt
        return real(self, photos, decision)

    with monkeypatch.context() as patched:
        patched.setattr(Annotator, "annotate", stops)
        code, out = annotate()

    assert code == 130
    assert "finished work stays" in capsys.readouterr().err
    assert Results(out, photos).names() == ["a"]
    annotate()
    assert files(out) == files(undisturbed)


def test_a_run_killed_before_its_first_photo_continues(annotate, photos, monkeypatch, files):
    from zspl.io.classes import ClassTable

    def killed(self, path):
        raise KeyboardInterrupt

    _, undisturbed = annotate(out=photos.parent / "undisturbed")
    with monkeypatch.context() as patched:
        patched.setattr(ClassTable, "write", killed)
        assert annotate()[0] == 130
    code, out = annotate()

    assert code == 0
    assert files(out) == files(undisturbed)


def test_the_tiny_models_bring_their_settings_and_a_warning(annotate, capsys):
    _, out = annotate("--sam", "tiny", "--clip", "tiny")

    made_with = json.loads((out / "annotate.json").read_text())
    assert made_with["proposals"]["settings"]["points_per_side"] == 8
    assert made_with["features"]["settings"]["ss_attn_temp"] == 20
    assert "know rendered textures only" in capsys.readouterr().out


def test_help_shows_examples_before_options_and_fits_100_columns(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        cli.main(["annotate", "--help"])
    text = capsys.readouterr().out
    assert text.index("zspl annotate --images photos/") < text.index("--classes LIST|FILE  ")
    assert max(map(len, text.splitlines())) <= 100
