import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zspl import stages
from zspl.data import ids_of_shard
from zspl.errors import DataError, SettingsError
from zspl.io import atomic, workdir
from zspl.io.classes import ClassTable
from zspl.io.images import write_label
from zspl.io.layout import Layout
from zspl.io.records import read_records
from zspl.io.splits import read_split
from zspl.observer import Silent
from zspl.settings import Paths, Prepare, Settings

TOYWORLD = {"name": "toyworld", "num_train": 24, "num_val": 4}
VOC = {"name": "pascal_voc", "classes": ["cat"], "train_list": "all", "val_list": "val.txt"}


def make_settings(out, dataset, **changes):
    """Build the settings that prepare reads; the other sections are left out."""
    source = changes.pop("source", Path("nowhere"))
    values = {
        "dataset": dataset,
        "splits": ["labeled_5", "labeled_20"],
        "shards": [0, 1, 2],
        "holdout": 0.0,
        "annotate_val": True,
    }
    return Settings.model_construct(
        seed=0,
        threads=1,
        paths=Paths(source=source, out=out, code=Path()),
        prepare=Prepare.model_validate(values | changes),
    )


def prepare(settings):
    return stages.run("prepare", settings, Silent())


@pytest.fixture
def source(tmp_path):
    source = tmp_path / "VOC"
    (source / "JPEGImages").mkdir(parents=True)
    for number, image_id in enumerate("abcde"):
        Image.new("RGB", (6, 4), (number, 0, 0)).save(source / "JPEGImages" / f"{image_id}.jpg")
        if image_id in "abc":
            label = np.full((4, 6), 8, np.uint8)
            write_label(source / "SegmentationClass" / f"{image_id}.png", label)
    lists = source / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "mine.txt").write_text("a\n")
    (lists / "all.txt").write_text("a\nb\nd\ne\n")
    (lists / "val.txt").write_text("c\n")
    return source


@pytest.fixture
def voc(source, tmp_path):
    return make_settings(
        tmp_path / "out", VOC, source=source, splits=["mine"], shards=[0], annotate_val=False
    )


def refused(settings):
    """Return the message; nothing that looks finished may be left."""
    with pytest.raises((DataError, SettingsError)) as caught:
        prepare(settings)
    assert not Layout(settings.paths.out).data.exists()
    message = str(caught.value)
    assert "\n" not in message
    return message


def files(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.parent.name != "timings"  # never the same twice
    }


def test_prepare_writes_all_that_later_stages_read(tmp_path):
    settings = make_settings(tmp_path, TOYWORLD, holdout=0.2)

    counts = prepare(settings)

    layout = Layout(tmp_path)
    records = read_records(layout.records)
    split = read_split(layout.split("labeled_20"))
    assert counts["images"] == len(records) == 28
    assert counts["classes"] == ClassTable.read(layout.classes).num_classes == 11
    assert counts["labeled_20/labeled"] == len(split.labeled) == 16
    assert counts["labeled_20/holdout"] == len(split.holdout) == 4
    assert counts["labeled_20/unlabeled"] == len(split.unlabeled) == 4
    assert all(record.image_path.is_file() for record in records.values())
    assert all(record.label_path.is_relative_to(layout.data) for record in records.values())
    assert (tmp_path / "proposals" / "none" / "NONE").is_file()
    assert (tmp_path / "features" / "none" / "NONE").is_file()
    assert not layout.work("prepare").exists()


def test_two_runs_give_the_same_bytes(tmp_path, monkeypatch):
    found = []
    for name in ("first", "second"):
        (tmp_path / name / "out" / "data").mkdir(parents=True)
        (tmp_path / name / "out" / "data" / f"left by {name}.txt").write_text("old")
        monkeypatch.chdir(tmp_path / name)
        prepare(make_settings(Path("out"), TOYWORLD, holdout=0.2))
        found.append(files(Path("out")))
    assert found[0] == found[1]


def test_what_a_killed_run_left_does_not_show(tmp_path):
    layout = Layout(tmp_path)
    (layout.work("prepare") / "data").mkdir(parents=True)
    (layout.work("prepare") / "data" / "half.txt").write_text("half")
    prepare(make_settings(tmp_path, TOYWORLD))
    assert not (layout.data / "half.txt").exists()


@pytest.mark.parametrize("annotate_val", [True, False])
def test_shards_deal_the_images_to_annotate_in_turn(tmp_path, annotate_val):
    prepare(make_settings(tmp_path, TOYWORLD, annotate_val=annotate_val))

    shards = [ids_of_shard(Layout(tmp_path), shard) for shard in range(3)]

    train = [f"train_{n:04d}" for n in range(1, 25)]
    val = [f"val_{n:04d}" for n in range(1, 5)] if annotate_val else []
    assert sorted(sum(shards, ())) == train + val
    assert shards[1][:2] == ("train_0002", "train_0005")


def test_a_voc_folder_is_read_in_place_and_unlabeled_images_need_no_mask(voc, source):
    counts = prepare(voc)
    records = read_records(Layout(voc.paths.out).records)
    assert counts["mine/unlabeled"] == 3
    assert records["d"].image_path == source / "JPEGImages" / "d.jpg"
    assert records["d"].label_path is None
    assert ids_of_shard(Layout(voc.paths.out), 0) == ("a", "b", "d", "e")


def test_a_corrupt_image_is_one_line(voc, source):
    path = source / "JPEGImages" / "d.jpg"
    path.write_bytes(path.read_bytes()[:200])
    assert refused(voc).startswith(f"{path}: image is not readable")


def test_a_mask_of_another_size_is_one_line(voc, source):
    path = source / "SegmentationClass" / "b.png"
    write_label(path, np.zeros((4, 5), np.uint8))
    assert refused(voc).startswith(f"{path}: mask is 5x4, its image 6x4 pixels")


def test_a_label_id_out_of_range_is_one_line(voc, source):
    path = source / "SegmentationClass" / "b.png"
    write_label(path, np.full((4, 6), 30, np.uint8))
    assert refused(voc).startswith(f"{path}: holds the id 30 (24 pixels), expected 0..20, 255")


def test_a_labeled_image_without_mask_is_one_line(voc, source):
    (source / "ImageSets" / "Segmentation" / "mine.txt").write_text("a\nd\n")
    assert refused(voc).startswith("split mine: labeled names 'd', but")


def test_a_labeled_image_that_is_scored_on_is_one_line(voc, source):
    (source / "ImageSets" / "Segmentation" / "mine.txt").write_text("a\nc\n")
    assert "the id 'c' is in both labeled and val" in refused(voc)


def test_an_empty_split_is_one_line(voc, source):
    (source / "ImageSets" / "Segmentation" / "mine.txt").write_text("\n")
    assert refused(voc).startswith("split mine: no labeled images")


def test_an_id_twice_is_one_line(voc, source):
    (source / "ImageSets" / "Segmentation" / "mine.txt").write_text("a\na\n")
    assert "the id 'a' is in labeled twice" in refused(voc)


def test_an_id_outside_the_train_list_is_one_line(voc, source):
    (source / "ImageSets" / "Segmentation" / "all.txt").write_text("b\nd\n")
    assert "labeled names the id 'a'" in refused(voc)


def test_more_shards_than_images_is_one_line(tmp_path):
    settings = make_settings(tmp_path, TOYWORLD, shards=list(range(40)))
    assert refused(settings) == (
        "prepare.shards: 40 shards for 28 images; use at most one per image"
    )


def test_a_split_name_with_folders_is_one_line(tmp_path):
    with pytest.raises(ValueError, match="should match pattern"):
        make_settings(tmp_path, TOYWORLD, splits=["../labeled_5"])


def coco(tmp_path):
    """A COCO folder of three train photos and one val photo, with a square in each."""
    source = tmp_path / "coco"
    square = [[0, 0, 2, 0, 2, 2, 0, 2]]
    for part, ids in (("train2017", [1, 2, 3]), ("val2017", [7])):
        (source / part).mkdir(parents=True)
        for number in ids:
            Image.new("RGB", (6, 4), (number, 0, 0)).save(source / part / f"{number}.jpg")
        values = {
            "images": [{"id": n, "file_name": f"{n}.jpg", "height": 4, "width": 6} for n in ids],
            "annotations": [
                {"id": n, "image_id": n, "category_id": 1, "segmentation": square} for n in ids
            ],
        }
        atomic.write_json(source / "annotations" / f"instances_{part}.json", values)
    dataset = {"name": "coco"}
    return make_settings(tmp_path / "out", dataset, source=source, splits=["drawn_2"], shards=[0])


def test_a_killed_painting_of_coco_goes_on_and_ends_with_the_same_bytes(tmp_path, monkeypatch):
    settings = coco(tmp_path)
    prepare(settings)
    undisturbed = files(settings.paths.out)
    shutil.rmtree(settings.paths.out)
    painted = []

    def stop_at_the_third(path, label):
        painted.append(path.name)
        if len(painted) == 3:
            raise KeyboardInterrupt
        write_label(path, label)

    monkeypatch.setattr("zspl.datasets.coco.write_label", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        prepare(settings)
    assert not Layout(settings.paths.out).data.exists()
    counts = prepare(settings)
    assert painted == ["1.png", "2.png", "3.png", "3.png", "7.png"]
    assert files(settings.paths.out) == undisturbed
    assert (counts["classes"], counts["drawn_2/labeled"]) == (81, 2)


def test_other_settings_do_not_take_over_what_a_killed_run_left(tmp_path):
    settings = make_settings(tmp_path, TOYWORLD)
    work = Layout(tmp_path).work("prepare")
    workdir.open_workdir(work, made_under="other settings")
    (work / "data").mkdir()
    (work / "data" / "half.txt").write_text("half")
    prepare(settings)
    assert not (Layout(tmp_path).data / "half.txt").exists()
    assert not work.exists()
