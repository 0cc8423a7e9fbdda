import hashlib
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zspl.datasets import pascal_voc
from zspl.datasets.pascal_voc import Settings, build
from zspl.errors import DataError, SettingsError
from zspl.io.images import write_label
from zspl.io.splits import read_ids
from zspl.sections import plugin_settings

SHARED = Path(os.environ.get("ZSPL_SHARED", Path(__file__).parents[2].parent / "shared"))
ANIMALS = SHARED / "data" / "voc_animals"
LISTS = Path(pascal_voc.__file__).parent / "pascal"
CLASSES = ("cat", "cow", "dog", "horse", "person", "sheep")

needs_animals = pytest.mark.skipif(
    not ANIMALS.is_dir(), reason="needs data/voc_animals below ZSPL_SHARED"
)


@pytest.fixture
def source(tmp_path):
    """A VOC layout of seven photos; the last three have no mask."""
    source = tmp_path / "VOC"
    (source / "JPEGImages").mkdir(parents=True)
    for number, image_id in enumerate("abcdefg"):
        Image.new("RGB", (6, 4), (number, 0, 0)).save(source / "JPEGImages" / f"{image_id}.jpg")
        if image_id in "abcd":
            label = np.full((4, 6), 8, np.uint8)
            write_label(source / "SegmentationClass" / f"{image_id}.png", label)
    lists = source / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "mine.txt").write_text("b\na\n")
    (lists / "all.txt").write_text("c\nb\na\ne\nf\ng\n")
    (lists / "val.txt").write_text("d\n")
    return source


def own(**changes):
    return build(Settings(**({"train_list": "all", "val_list": "val.txt"} | changes)))


def two_columns(ids):
    return "\n".join(f"JPEGImages/{i}.jpg SegmentationClass/{i}.png" for i in ids)


@pytest.mark.parametrize(
    ("name", "number", "ending", "checksum"),
    [
        ("92", 92, "", "8a02aa6a1253178b"),
        ("183", 183, "", "de3f4680391cb153"),
        ("366", 366, "", "74f6bd1e459a8b46"),
        ("732", 732, "", "02c8ec5b62e27364"),
        ("1464", 1464, "", "b20486876df309c5"),
        ("train_aug", 10582, "\n", "f04ab664c71f8495"),
        ("val", 1449, "\n", "df002e3a730c5767"),
    ],
)
def test_the_shipped_ids_are_those_of_the_official_two_column_files(name, number, ending, checksum):
    ids = read_ids(LISTS / f"{name}.txt")
    content = two_columns(ids) + ending
    assert len(set(ids)) == len(ids) == number
    assert hashlib.sha256(content.encode()).hexdigest()[:16] == checksum


def test_every_official_labeled_list_lies_in_the_1464_and_those_in_train_aug():
    train = set(read_ids(LISTS / "1464.txt"))
    assert train < set(read_ids(LISTS / "train_aug.txt"))
    for name in ("92", "183", "366", "732"):
        assert set(read_ids(LISTS / f"{name}.txt")) < train
    assert not train & set(read_ids(LISTS / "val.txt"))


def test_all_classes_keep_their_voc_ids_and_get_prompts_a_text_encoder_knows():
    table = build(Settings()).table
    assert table.num_classes == 21
    assert table.source_ids[:21] == tuple(range(21))
    assert table.names[20] == "tvmonitor"
    assert table.prompts[0] == "airplane"
    assert [p for p in table.prompts if " " in p] == ["dining table", "potted plant", "tv monitor"]


def test_a_class_subset_ignores_the_other_ids_and_keeps_the_background(tmp_path):
    table = build(Settings(classes=CLASSES)).table
    assert table.names == ("background", *CLASSES)
    label = np.array([[0, 8, 10, 12, 13, 15, 17, 1, 20, 255]], np.uint8)
    assert table.map(label, path=tmp_path).tolist() == [[0, 1, 2, 3, 4, 5, 6, 255, 255, 255]]
    with pytest.raises(DataError, match=r"holds the id 21 \(1 pixels\), expected 0\.\.20, 255"):
        table.map(np.array([[21]], np.uint8), path=tmp_path)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["cat", "hors"], "VOC has no class 'hors'. Did you mean 'horse'?"),
        (["cat", "cat"], "expected different classes"),
        ([], "expected different classes, at least one"),
    ],
)
def test_a_wrong_class_list_is_one_line(classes, message):
    with pytest.raises(SettingsError, match=re.escape(message)):
        plugin_settings("zspl.datasets", "pascal_voc", {"classes": classes})


def test_lists_of_the_folder_make_splits_and_unlabeled_images_need_no_mask(source):
    dataset = own()
    records = {r.image_id: r for r in dataset.prepare(source, source)}
    split = dataset.split(source, source, "mine")
    assert sorted(records) == list("abcdefg")
    assert records["e"].label_path is None
    assert records["a"].label_path == source / "SegmentationClass" / "a.png"
    assert (split.labeled, split.val) == (("b", "a"), ("d",))
    assert split.unlabeled == ("c", "e", "f", "g")


def test_an_id_without_image_names_list_id_and_file(source):
    (source / "JPEGImages" / "b.jpg").unlink()
    with pytest.raises(DataError) as caught:
        own().split(source, source, "mine")
    message = str(caught.value)
    assert message.startswith(f"{source / 'JPEGImages'}: no image of the id 'b'")
    assert "which the list mine names (1 of its 2 are missing)" in message
    assert "\n" not in message


def test_a_part_of_the_data_set_takes_the_ids_that_are_present(source):
    (source / "JPEGImages" / "b.jpg").unlink()
    split = own(restrict_to_present=True).split(source, source, "mine")
    assert split.labeled == ("a",)


def test_a_link_out_of_the_data_folder_is_refused(source, tmp_path):
    outside = tmp_path / "secret.jpg"
    (source / "JPEGImages" / "a.jpg").rename(outside)
    (source / "JPEGImages" / "a.jpg").symlink_to(outside)
    with pytest.raises(DataError, match=r"a\.jpg: is a link to .*secret\.jpg, outside"):
        own().prepare(source, source)


def test_a_data_folder_that_is_itself_a_link_is_fine(source, tmp_path):
    (tmp_path / "link").symlink_to(source)
    assert len(own().prepare(tmp_path / "link", source)) == 7


def test_an_unknown_list_says_what_there_is(source):
    with pytest.raises(SettingsError, match=r"no id list 'labeled_93'.*Did you mean 'labeled_92'"):
        own().split(source, source, "labeled_93")
    with pytest.raises(SettingsError, match="write it without folders"):
        own().split(source, source, "../mine")


def test_a_list_with_an_id_that_leaves_the_folder_is_refused(source):
    (source / "ImageSets" / "Segmentation" / "mine.txt").write_text("../../etc/passwd\n")
    with pytest.raises(DataError, match="could leave the data folder"):
        own().split(source, source, "mine")


def test_two_files_of_one_id_are_refused(source):
    Image.new("RGB", (6, 4)).save(source / "JPEGImages" / "a.png")
    with pytest.raises(DataError, match="has the same id"):
        own().prepare(source, source)


def test_a_folder_in_another_layout_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"JPEGImages: no such folder; point paths\.source"):
        own().prepare(tmp_path, tmp_path)


@needs_animals
@pytest.mark.parametrize(
    ("name", "number"),
    [("labeled_92", 31), ("labeled_183", 65), ("labeled_366", 104), ("labeled_732", 222)],
)
def test_official_splits_restricted_to_the_animals_have_the_noted_sizes(name, number):
    for train_list, present in (("train", 437), ("train_aug", 887)):
        dataset = build(Settings(classes=CLASSES, train_list=train_list, restrict_to_present=True))
        split = dataset.split(ANIMALS, ANIMALS, name)
        noted = read_ids(ANIMALS / "ImageSets" / "Segmentation" / f"{name}.txt")
        assert split.labeled == noted
        assert len(split.labeled) == number
        assert len(split.unlabeled) == present - number
        assert len(split.val) == 145
