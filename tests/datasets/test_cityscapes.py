import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zspl.datasets import cityscapes
from zspl.datasets.cityscapes import OFFICIAL, Settings, build
from zspl.errors import DataError, SettingsError
from zspl.io.classes import ClassTable
from zspl.io.images import write_label
from zspl.io.splits import check, read_ids

LISTS = Path(cityscapes.__file__).parent / "cityscapes_fine"

TRAIN = [f"{city}_{k:06d}_000019" for city, n in (("aachen", 4), ("ulm", 2)) for k in range(n)]
VAL = ["lindau_000000_000019"]


@pytest.fixture
def source(tmp_path):
    """Two train cities with four and two photos, one val city with one; all have masks."""
    source = tmp_path / "cityscapes"
    for part, ids in (("train", TRAIN), ("val", VAL)):
        for image_id in ids:
            city = image_id.split("_")[0]
            photo = source / "leftImg8bit" / part / city / f"{image_id}_leftImg8bit.png"
            photo.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 4)).save(photo)
            mask = source / "gtFine" / part / city / f"{image_id}_gtFine_labelIds.png"
            write_label(mask, np.full((4, 8), 26, np.uint8))
    return source


def test_the_34_label_ids_become_the_19_train_ids_of_the_field(tmp_path):
    # The official table of label ids, written out.
    train_ids = {
        7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11,
        25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18,
    }  # fmt: skip
    table = build(Settings()).table
    label = np.array([[*range(34), 255]], np.uint8)
    expected = [train_ids.get(value, 255) for value in (*range(34), 255)]
    assert table.map(label, path=tmp_path)[0].tolist() == expected
    assert (table.names[0], table.names[13], table.names[18]) == ("road", "car", "bicycle")
    with pytest.raises(DataError, match=r"holds the id 34 \(1 pixels\), expected 0..33, 255"):
        table.map(np.array([[34]], np.uint8), path=tmp_path)


def test_train_ids_are_taken_as_they_are(tmp_path):
    table = build(Settings(masks="train_ids")).table
    label = np.array([[*range(19), 255]], np.uint8)
    assert (table.map(label, path=tmp_path) == label).all()
    with pytest.raises(DataError, match="holds the id 19"):
        table.map(np.array([[19]], np.uint8), path=tmp_path)


def test_there_is_no_background_and_class_0_has_a_prompt(tmp_path):
    table = build(Settings()).table
    assert table.num_classes == len(table.prompts) == 19
    assert table.texts[0] == "road"
    assert table.text_classes[0] == 0
    assert {c for t, c in zip(table.texts, table.text_classes, strict=True) if t == "tree"} == {8}
    table.write(tmp_path / "classes.json")
    assert ClassTable.read(tmp_path / "classes.json") == table


@pytest.mark.parametrize(("name", "number"), [(k, int(v)) for k, v in OFFICIAL.items()])
def test_the_shipped_lists_have_their_sizes_and_ids(name, number):
    ids = read_ids(LISTS / f"{OFFICIAL[name]}.txt")
    assert name == f"labeled_{number}"
    assert len(set(ids)) == len(ids) == number
    assert all(re.fullmatch(r"[a-z]+_\d{6}_\d{6}", image_id) for image_id in ids)


def test_the_halves_of_the_official_lists_are_nested_and_the_thirtieth_is_its_own():
    sixteenth, eighth, quarter, half = (read_ids(LISTS / f"{n}.txt") for n in (186, 372, 744, 1488))
    assert set(sixteenth) < set(eighth) < set(quarter) < set(half)
    assert not set(read_ids(LISTS / "100.txt")) <= set(half)


def test_records_hold_photo_and_mask_of_each_id(source, tmp_path):
    records = {r.image_id: r for r in build(Settings()).prepare(source, tmp_path)}
    assert sorted(records) == sorted([*TRAIN, *VAL])
    found = records["ulm_000001_000019"]
    assert found.image_path == (
        source / "leftImg8bit" / "train" / "ulm" / "ulm_000001_000019_leftImg8bit.png"
    )
    assert found.label_path == (
        source / "gtFine" / "train" / "ulm" / "ulm_000001_000019_gtFine_labelIds.png"
    )


def test_a_train_image_needs_no_mask(source, tmp_path):
    (source / "gtFine" / "train" / "ulm" / "ulm_000001_000019_gtFine_labelIds.png").unlink()
    records = {r.image_id: r for r in build(Settings()).prepare(source, tmp_path)}
    assert records["ulm_000001_000019"].label_path is None


def test_masks_of_the_other_kind_are_named(source, tmp_path):
    with pytest.raises(DataError, match=r"set prepare\.dataset\.masks: label_ids$"):
        build(Settings(masks="train_ids")).prepare(source, tmp_path)


def test_a_draw_gives_each_city_its_share(source):
    dataset = build(Settings())
    split = dataset.split(source, source, "drawn_3")
    check(split, {*TRAIN, *VAL})
    assert sorted(i.split("_")[0] for i in split.labeled) == ["aachen", "aachen", "ulm"]
    assert len(split.unlabeled) == 3
    assert split.val == tuple(VAL)


def test_official_lists_want_all_images_or_the_setting_for_a_part(source):
    with pytest.raises(DataError, match=r"train: no image of the id 'weimar_000085_000019', which"):
        build(Settings()).split(source, source, "labeled_100")
    part = build(Settings(restrict_to_present=True)).split(source, source, "labeled_1488")
    listed = set(read_ids(LISTS / "1488.txt"))
    assert set(part.labeled) == {i for i in TRAIN if i in listed}


def test_lists_of_ones_own_lie_in_splits(source):
    (source / "splits").mkdir()
    (source / "splits" / "mine.txt").write_text(f"{TRAIN[4]}\n{TRAIN[0]}\n")
    assert build(Settings()).split(source, source, "mine").labeled == (TRAIN[4], TRAIN[0])
    with pytest.raises(
        SettingsError, match=r"no id list 'labeled_185'.*Did you mean 'labeled_186'"
    ):
        build(Settings()).split(source, source, "labeled_185")


def test_a_folder_in_another_layout_is_one_line(tmp_path):
    with pytest.raises(DataError, match=r"leftImg8bit/train: holds no <city>/\*_leftImg8bit\.png"):
        build(Settings()).train_ids(tmp_path)
