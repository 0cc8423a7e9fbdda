import jaxtyping
import numpy as np
import pytest
from PIL import Image

from zspl.datasets.toyworld import MIN_PIXELS, Settings, build
from zspl.errors import SettingsError
from zspl.io.images import read_image, read_label
from zspl.io.splits import check
from zspl.sections import plugin_settings

SMALL = Settings(num_train=48, num_val=4)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    dataset = build(SMALL)
    return dataset, folder, dataset.prepare(folder, folder)


def test_scenes_are_png_files_in_voc_layout_with_palette_masks(world):
    _, folder, records = world
    record = records[0]
    assert record.image_path == folder / "images" / "Images" / "train_0001.png"
    assert record.label_path == folder / "images" / "SegmentationClass" / "train_0001.png"
    assert len(records) == 52
    assert records[-1].image_id == "val_0004"
    assert read_image(record.image_path).size == (96, 96)
    with Image.open(record.label_path) as mask:
        assert mask.mode == "P"
    assert set(np.unique(read_label(record.label_path))) <= set(range(11))


def test_the_same_settings_render_the_same_bytes_and_another_seed_another_world(world, tmp_path):
    _, _, records = world
    again = build(SMALL.model_copy(update={"num_train": 3})).prepare(tmp_path, tmp_path / "a")
    other = build(Settings(num_train=3, num_val=1, seed=1)).prepare(tmp_path, tmp_path / "b")
    digests = {record.image_id: record.digest for record in records}
    assert all(digests[record.image_id] == record.digest for record in again)
    assert all(digests[record.image_id] != record.digest for record in other)


def test_no_scene_serves_twice(world):
    _, _, records = world
    assert len({record.digest for record in records}) == len(records)


def test_splits_are_nested_and_sound(world):
    dataset, folder, records = world
    splits = [dataset.split(folder, folder, f"labeled_{n}") for n in (5, 20, 40)]
    for split, number in zip(splits, (5, 20, 40), strict=True):
        check(split, {record.image_id for record in records})
        assert len(split.labeled) == number
        assert {*split.labeled, *split.unlabeled} == set(dataset.train_ids(folder))
        assert split.val == ("val_0001", "val_0002", "val_0003", "val_0004")
    assert set(splits[0].labeled) < set(splits[1].labeled) < set(splits[2].labeled)


def test_every_class_appears_in_labeled_20_of_the_default_world(tmp_path, monkeypatch):
    # Checking the shapes of 320 scenes would take most of the time.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    dataset = build(Settings(num_val=1))
    dataset.prepare(tmp_path, tmp_path)

    split = dataset.split(tmp_path, tmp_path, "labeled_20")

    labels = [
        read_label(tmp_path / "images" / "SegmentationClass" / f"{image_id}.png")
        for image_id in split.labeled
    ]
    shown = [np.bincount(label.reshape(-1), minlength=11) >= MIN_PIXELS for label in labels]
    assert np.sum(shown, axis=0).min() >= 2
    assert len(split.unlabeled) == 300


@pytest.mark.parametrize("name", ["labeled_0", "labeled_49", "labeled_020", "labeled_x", "train"])
def test_a_split_that_does_not_exist_is_one_line(world, name):
    dataset, folder, _ = world
    with pytest.raises(SettingsError, match=f"toyworld has no split '{name}'; write labeled_<n>"):
        dataset.split(folder, folder, name)


def test_worlds_that_tuned_the_tiny_weights_are_closed():
    with pytest.raises(SettingsError, match="less than 9"):
        plugin_settings("zspl.datasets", "toyworld", {"seed": 9})
