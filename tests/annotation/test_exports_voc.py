import re

import numpy as np
import pytest
from PIL import Image

from zspl.annotation import exports
from zspl.annotation.exports import voc
from zspl.datasets.pascal_voc import Settings, build
from zspl.errors import DataError, UnknownPluginError
from zspl.io.classes import load_label
from zspl.io.images import read_image, read_label


def test_photos_labeled_with_voc_classes_can_be_trained_on(folder, random_label, tmp_path):
    made = folder("potted plant", "Cat", "airplane")
    labels = {
        source: made.add(source, random_label(seed, (20, 30), 3))
        for seed, source in enumerate(["a.jpg", "trip/day 1/b.png", "c.webp", "l\nf.jpg"])
    }
    voc.export(made.results, tmp_path / "voc")
    names = re.search(r"classes: \[(.*?)\]", (tmp_path / "voc" / "README.txt").read_text())
    data = build(
        Settings(
            classes=tuple(names.group(1).split(", ")), train_list="train.txt", val_list="train.txt"
        )
    )
    records = data.prepare(tmp_path / "voc", tmp_path)
    assert len(records) == len(data.train_ids(tmp_path / "voc")) == 4
    assert data.split(tmp_path / "voc", tmp_path, "train.txt").labeled
    # pascal_voc keeps VOC's order: aeroplane, cat, pottedplant.
    expected = np.arange(256)
    expected[[1, 2, 3]] = [3, 2, 1]
    by_id = {record.image_id: record for record in records}
    ids = {
        "a": "a.jpg",
        "trip%2Fday 1%2Fb": "trip/day 1/b.png",
        "c": "c.webp",
        "l%0Af": "l\nf.jpg",
    }
    assert set(by_id) == set(ids)
    for image_id, source in ids.items():
        record = by_id[image_id]
        image = read_image(record.image_path)
        label = load_label(record, data.table, image.size)
        np.testing.assert_array_equal(label, expected[labels[source]])
        np.testing.assert_array_equal(
            np.asarray(image), np.asarray(read_image(made.photos / source))
        )


@pytest.mark.parametrize("orientation", [1, 6])
def test_photos_and_masks_agree_for_readers_that_ignore_exif(folder, tmp_path, orientation):
    made = folder("cat")
    made.add("a.jpg", [[0, 1, 1]] * 2)
    exif = Image.Exif()
    exif[0x0112] = orientation
    size = (3, 2) if orientation == 1 else (2, 3)
    Image.new("RGB", size).save(made.photos / "a.jpg", exif=exif)

    voc.export(made.results, tmp_path / "voc")

    (photo,) = (tmp_path / "voc" / "JPEGImages").iterdir()
    assert photo.name == ("a.jpg" if orientation == 1 else "a.png")
    with Image.open(photo) as image:
        assert image.size == (3, 2)
        assert image.getexif().get(0x0112, 1) == 1


def test_other_classes_keep_their_ids_and_the_readme_says_so(folder, tmp_path):
    made = folder("zebra", "cat")
    label = made.add("a.jpg", [[0, 1, 2, 255]])
    voc.export(made.results, tmp_path / "voc")
    written = read_label(tmp_path / "voc" / "SegmentationClass" / "a.png")
    np.testing.assert_array_equal(written, label)
    readme = (tmp_path / "voc" / "README.txt").read_text()
    assert "  1  zebra\n  2  cat" in readme
    assert "classes: [" not in readme


def test_masks_show_the_colours_that_the_label_map_file_names(folder, tmp_path):
    made = folder("cat", "a:b,c")
    made.add("a.jpg", [[0, 1, 2]])
    voc.export(made.results, tmp_path / "voc")
    with Image.open(tmp_path / "voc" / "SegmentationClass" / "a.png") as mask:
        shown = [mask.convert("RGB").getpixel((x, 0)) for x in range(3)]
    lines = (tmp_path / "voc" / "labelmap.txt").read_text().splitlines()
    named = [tuple(int(c) for c in line.split(":")[1].split(",")) for line in lines[1:]]
    assert named == shown
    assert [line.split(":")[0] for line in lines[1:]] == ["background", "cat", "a b,c"]


def test_a_photo_that_is_gone_is_named(folder, tmp_path):
    made = folder("cat")
    made.add("a.jpg", np.ones((4, 4)))
    (made.photos / "a.jpg").unlink()
    with pytest.raises(DataError, match=r"a\.jpg: no such photo"):
        voc.export(made.results, tmp_path / "voc")
    assert not (tmp_path / "voc").exists()


def test_formats_are_the_files_of_the_folder_and_are_written_below_exports(folder, tmp_path):
    made = folder("cat")
    made.add("a.jpg", np.ones((4, 4)))
    assert exports.formats() == ("coco", "labelstudio", "voc", "yolo")
    written = exports.write(made.results, ["voc", "coco", "voc"], out=made.out)
    assert written == [made.out / "exports" / "voc", made.out / "exports" / "coco"]
    assert all((path / "README.txt").is_file() for path in written)


def test_an_unknown_format_is_named_before_anything_is_written(folder, tmp_path):
    made = folder("cat")
    with pytest.raises(UnknownPluginError, match="Did you mean 'coco'"):
        exports.write(made.results, ["voc", "cocoo"], out=made.out)
    assert not (made.out / "exports").exists()


@pytest.mark.parametrize("name", exports.formats())
def test_no_photo_at_all_gives_an_empty_export(folder, name):
    made = folder("cat")
    (path,) = exports.write(made.results, [name], out=made.out)
    assert path.is_dir()
