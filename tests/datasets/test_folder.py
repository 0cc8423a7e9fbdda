import re

import numpy as np
import pytest
from PIL import Image

from zspl.datasets.folder import Settings, build
from zspl.errors import DataError, SettingsError
from zspl.io.images import write_label
from zspl.io.splits import check
from zspl.sections import plugin_settings

CLASSES = ("crop", "weed=weed|thistle")
MASKED = [f"field {k:02d}" for k in range(20)]
BARE = ["bare a", "bare b"]


@pytest.fixture
def source(tmp_path):
    """Twenty photos with masks, of which four show weed, and two photos without."""
    source = tmp_path / "photos"
    (source / "JPEGImages").mkdir(parents=True)
    for number, image_id in enumerate([*MASKED, *BARE]):
        Image.new("RGB", (6, 4), (number, 0, 0)).save(source / "JPEGImages" / f"{image_id}.jpg")
    for number, image_id in enumerate(MASKED):
        label = np.zeros((4, 6), np.uint8)
        label[0] = 1
        label[1] = 2 if number % 5 == 0 else 0
        label[3] = 255
        write_label(source / "SegmentationClass" / f"{image_id}.png", label)
    return source


def write_list(source, name, ids):
    path = source / "ImageSets" / "Segmentation" / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{image_id}\n" for image_id in ids))


def own(**changes):
    return build(Settings(**({"classes": CLASSES} | changes)))


def test_classes_are_the_mask_values_from_1_on_with_the_texts_that_follow_the_equals_sign():
    table = own(background=("soil", "sky")).table
    assert table.names == ("background", "crop", "weed")
    assert table.texts == ("crop", "weed", "thistle", "soil", "sky")
    assert table.source_ids[:3] == (0, 1, 2)
    assert table.source_ids[3] == -1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "classes: Field required"),
        ({"classes": []}, "classes: Tuple should have at least 1 item"),
        ({"classes": ["crop", "crop"]}, "class names must differ"),
        ({"classes": ["background", "crop"]}, "background is class 0 already"),
        ({"classes": ["crop="]}, "'crop=' is no class; write name or name=text|synonym"),
        ({"classes": ["crop=a||b"]}, "a prompt is empty"),
        ({"classes": ["crop"], "masks": "../other"}, "expected a folder below paths.source"),
        ({"classes": ["crop"], "val_share": 1.0}, "less than 1"),
    ],
)
def test_wrong_settings_are_one_line(changes, message):
    with pytest.raises(SettingsError, match=re.escape(message)) as caught:
        plugin_settings("zspl.datasets", "folder", changes)
    assert "\n" not in str(caught.value)


def test_photos_without_a_mask_are_unlabeled_and_val_is_drawn_from_the_others(source):
    dataset = own()
    records = {r.image_id: r for r in dataset.prepare(source, source)}
    split = dataset.split(source, source, "drawn_5")
    check(split, records)
    assert sorted(records) == sorted([*MASKED, *BARE])
    assert records["bare a"].label_path is None
    assert len(split.val) == 4
    assert len(split.labeled) == 5
    assert set(BARE) < set(split.unlabeled)
    assert {*split.labeled, *split.unlabeled} == set(dataset.train_ids(source))


def test_the_rare_class_is_in_val_and_in_the_drawn_photos_and_takes_neither_over(source):
    with_weed = set(MASKED[::5])
    for seed in range(20):
        split = own(seed=seed).split(source, source, "drawn_4")
        assert 1 <= len(with_weed & set(split.val)) <= 2
        assert 1 <= len(with_weed & set(split.labeled)) <= 2


def test_the_same_seed_draws_the_same_and_a_smaller_draw_is_part_of_a_larger_one(source):
    small, large = (own().split(source, source, f"drawn_{n}") for n in (4, 9))
    again = own().split(source, source, "drawn_4")
    other = own(seed=1).split(source, source, "drawn_4")
    assert small == again
    assert large.labeled[:4] == small.labeled
    assert (other.val, other.labeled) != (small.val, small.labeled)


def test_lists_say_who_is_who(source):
    write_list(source, "train", [*MASKED[:5], *BARE])
    write_list(source, "few", [MASKED[3], MASKED[1]])
    write_list(source, "val", MASKED[10:12])
    dataset = own(train_list="train", val_list="val.txt")
    split = dataset.split(source, source, "few")
    assert split.labeled == (MASKED[3], MASKED[1])
    assert split.unlabeled == (MASKED[0], MASKED[2], MASKED[4], *BARE)
    assert split.val == tuple(MASKED[10:12])
    assert len(dataset.prepare(source, source)) == 9


def test_a_val_list_leaves_the_rest_for_training(source):
    write_list(source, "val", MASKED[10:12])
    dataset = own(val_list="val")
    assert set(dataset.train_ids(source)) == {*MASKED, *BARE} - set(MASKED[10:12])


def test_a_list_loses_the_photos_of_a_drawn_val(source):
    write_list(source, "train", MASKED)
    split = own().split(source, source, "train")
    check(split, {*MASKED, *BARE})
    assert len(split.val) == 4
    assert set(split.labeled) == set(MASKED) - set(split.val)


def test_other_folders_and_endings_are_read(tmp_path):
    for number in range(4):
        photo = tmp_path / "raw" / f"{number}.TIF"
        photo.parent.mkdir(exist_ok=True)
        Image.new("RGB", (6, 4)).save(photo)
        write_label(tmp_path / "truth" / "png" / f"{number}.png", np.ones((4, 6), np.uint8))
    dataset = own(images="raw", masks="truth/png")
    records = {r.image_id: r for r in dataset.prepare(tmp_path, tmp_path)}
    assert sorted(records) == ["0", "1", "2", "3"]
    assert records["2"].image_path == tmp_path / "raw" / "2.TIF"
    assert records["2"].label_path == tmp_path / "truth" / "png" / "2.png"


def test_the_voc_export_of_annotate_can_be_trained_on_with_classes_of_ones_own(tmp_path):
    """Its layout: ids with an escaped slash, class ids as values, the list train of all photos."""
    for number in range(6):
        image_id = f"day 1%2Fphoto {number}"
        photo = tmp_path / "JPEGImages" / f"{image_id}.jpg"
        photo.parent.mkdir(exist_ok=True)
        Image.new("RGB", (6, 4), (number, 0, 0)).save(photo)
        label = np.full((4, 6), 1 + number % 2, np.uint8)
        write_label(tmp_path / "SegmentationClass" / f"{image_id}.png", label)
    write_list(tmp_path, "train", sorted(p.stem for p in (tmp_path / "JPEGImages").iterdir()))
    dataset = own(val_share=0.34)
    records = dataset.prepare(tmp_path, tmp_path)
    split = dataset.split(tmp_path, tmp_path, "train")
    check(split, {r.image_id for r in records})
    assert (len(split.labeled), len(split.val)) == (4, 2)
    assert all(r.label_path is not None for r in records)


def test_masks_of_0_and_255_are_no_classes_and_the_message_says_so(source):
    for image_id in MASKED:
        label = np.array([[0, 255]] * 2, np.uint8)
        write_label(source / "SegmentationClass" / f"{image_id}.png", label)
    with pytest.raises(DataError, match="such as 1 instead of 255 for the object of a black"):
        own().train_ids(source)


def test_a_mask_with_a_class_too_many_is_one_line(source):
    write_label(source / "SegmentationClass" / "field 00.png", np.full((4, 6), 3, np.uint8))
    with pytest.raises(DataError, match=r"holds the id 3 \(24 pixels\), expected 0\.\.2, 255"):
        own().train_ids(source)


def test_too_few_masks_are_one_line(source):
    for image_id in MASKED[1:]:
        (source / "SegmentationClass" / f"{image_id}.png").unlink()
    with pytest.raises(DataError, match="1 of the 22 photos have a mask, too few to train and to"):
        own().train_ids(source)


def test_a_list_that_names_a_missing_photo_is_one_line(source):
    write_list(source, "few", [MASKED[0], "lost"])
    with pytest.raises(DataError, match=r"no image of the id 'lost', which the list few names"):
        own().split(source, source, "few")
    part = own(restrict_to_present=True).split(source, source, "few")
    assert set(part.labeled) <= {MASKED[0]}


def test_an_unknown_list_or_draw_says_what_there_is(source):
    write_list(source, "few", [MASKED[0]])
    with pytest.raises(SettingsError, match=r"no id list 'fw'.*Did you mean 'few'\?"):
        own().split(source, source, "fw")
    with pytest.raises(SettingsError, match="n from 1 to 16"):
        own().split(source, source, "drawn_17")
    with pytest.raises(SettingsError, match="write it without folders"):
        own().split(source, source, "../few")


def test_a_link_out_of_the_folder_is_refused(source, tmp_path):
    outside = tmp_path / "secret.png"
    mask = source / "SegmentationClass" / "field 00.png"
    mask.rename(outside)
    mask.symlink_to(outside)
    with pytest.raises(DataError, match=r"field 00\.png: is a link to .*secret\.png, outside"):
        own().prepare(source, source)


def test_a_folder_without_photos_or_with_two_of_a_name_is_one_line(source, tmp_path):
    with pytest.raises(DataError, match=r"JPEGImages: no such folder; point paths\.source"):
        own().train_ids(tmp_path)
    (tmp_path / "JPEGImages").mkdir()
    with pytest.raises(DataError, match=r"JPEGImages: holds no photo; expected files such as"):
        own().train_ids(tmp_path)
    Image.new("RGB", (6, 4)).save(source / "JPEGImages" / "bare a.png")
    with pytest.raises(DataError, match=r"bare a\.png: bare a\.jpg has the same id; rename one"):
        own().train_ids(source)


def test_a_link_may_lead_to_a_folder_that_the_settings_name_and_to_no_other(source, tmp_path):
    outside = tmp_path / "elsewhere" / "mask.png"
    outside.parent.mkdir()
    mask = source / "SegmentationClass" / "field 00.png"
    mask.rename(outside)
    mask.symlink_to(outside)
    assert own(linked_from=(tmp_path / "elsewhere",)).prepare(source, source)
    with pytest.raises(DataError, match="is a link to"):
        own(linked_from=(tmp_path / "other",)).prepare(source, source)
