import json

import numpy as np
import pytest

from zspl.annotation.exports import coco


def painted(loaded, image, table_size):
    """Paint the annotations of one image, as pycocotools reads them."""
    from pycocotools import mask

    label = np.zeros((image["height"], image["width"]), np.uint8)
    painted_already = np.zeros(label.shape, bool)
    for annotation in loaded.loadAnns(loaded.getAnnIds(imgIds=image["id"])):
        inside = loaded.annToMask(annotation).astype(bool)
        assert not (painted_already & inside).any()
        painted_already |= inside
        assert 0 < annotation["category_id"] < table_size
        label[inside] = annotation["category_id"]
    if "unclaimed" in image:
        label[mask.decode(image["unclaimed"]).astype(bool)] = 255
    return label


# pycocotools 2.0.11 decodes through an interface that NumPy 2 deprecates.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_pycocotools_reads_back_every_label_map_exactly(folder, random_label, tmp_path, capsys):
    from pycocotools.coco import COCO

    made = folder("cat", "dog", "cow")
    labels = {}
    for seed, (source, shape) in enumerate(
        [("a.jpg", (31, 45)), ("trip/b.png", (64, 20)), ("c.jpg", (1, 1)), ("d.jpg", (1, 400))]
    ):
        labels[source] = made.add(source, random_label(seed, shape, 3))
    labels["empty.jpg"] = made.add("empty.jpg", np.zeros((9, 9)))
    coco.export(made.results, tmp_path / "coco")
    loaded = COCO(str(tmp_path / "coco" / "instances.json"))
    images = loaded.loadImgs(loaded.getImgIds())
    assert sorted(image["file_name"] for image in images) == sorted(labels)
    for image in images:
        expected = labels[image["file_name"]]
        np.testing.assert_array_equal(painted(loaded, image, 4), expected)
    assert [c["id"] for c in loaded.loadCats(loaded.getCatIds())] == [1, 2, 3]


def test_an_annotation_is_one_region_with_its_area_box_and_mean_confidence(folder, tmp_path):
    from pycocotools import mask

    made = folder("cat", "dog")
    label = np.zeros((6, 8), np.uint8)
    label[1:3, 1:4] = 1
    label[3, 4] = 1  # touches the first at a corner
    label[5, 7] = 1
    label[0, 7] = 2
    confidence = np.zeros((6, 8), np.uint8)
    confidence[1:3, 1:4], confidence[3, 4] = 255, 41
    made.add("a.jpg", label, confidence=confidence)
    coco.export(made.results, tmp_path / "coco")
    written = json.loads((tmp_path / "coco" / "instances.json").read_text())
    first, second, third = written["annotations"]
    assert (first["category_id"], first["area"], first["bbox"]) == (1, 7, [1, 1, 4, 3])
    assert first["score"] == pytest.approx((6 * 255 + 41) / 7 / 255, abs=1e-4)
    assert first["iscrowd"] == 0
    assert (second["area"], second["bbox"], second["score"]) == (1, [7, 5, 1, 1], 0.0)
    assert (third["category_id"], third["bbox"]) == (2, [7, 0, 1, 1])
    assert [a["id"] for a in written["annotations"]] == [1, 2, 3]
    for annotation in written["annotations"]:
        assert mask.area(annotation["segmentation"]) == annotation["area"]
        assert mask.toBbox(annotation["segmentation"]).tolist() == annotation["bbox"]


def test_unclaimed_pixels_are_in_no_annotation(folder, tmp_path):
    made = folder("cat")
    made.add("a.jpg", np.full((4, 5), 255))
    coco.export(made.results, tmp_path / "coco")
    written = json.loads((tmp_path / "coco" / "instances.json").read_text())
    assert written["annotations"] == []
    assert written["images"][0]["unclaimed"]["size"] == [4, 5]


def test_the_same_results_give_the_same_bytes_and_replace_an_earlier_export(
    folder, random_label, tmp_path, every_byte
):
    made = folder("cat", "dog")
    made.add("a.jpg", random_label(1, (40, 40), 2))
    coco.export(made.results, tmp_path / "coco")
    first = every_byte(tmp_path / "coco")
    (tmp_path / "coco" / "stale.json").write_text("{}")
    (tmp_path / ".coco.unfinished").mkdir()
    coco.export(made.results, tmp_path / "coco")
    assert every_byte(tmp_path / "coco") == first
    assert not (tmp_path / ".coco.unfinished").exists()


def test_names_that_are_no_text_survive_as_json(folder, tmp_path, read_json):
    made = folder("c<a>t")
    made.add("caf\udce9\n.jpg", np.ones((4, 4)))
    coco.export(made.results, tmp_path / "coco")
    (image,) = read_json(tmp_path / "coco" / "instances.json")["images"]
    assert image["file_name"] == "caf\udce9\n.jpg"


def test_a_failed_export_leaves_the_earlier_one_alone(folder, tmp_path, every_byte):
    from zspl.errors import DataError

    made = folder("cat")
    made.add("a.jpg", np.ones((4, 4)))
    coco.export(made.results, tmp_path / "coco")
    before = every_byte(tmp_path)
    made.add("b.jpg", np.ones((4, 4)))
    (made.out / "labels" / "b.png").unlink()
    with pytest.raises(DataError, match=r"b\.png"):
        coco.export(made.results, tmp_path / "coco")
    assert every_byte(tmp_path / "coco") == {
        path.removeprefix("coco/"): content
        for path, content in before.items()
        if path.startswith("coco/")
    }
    assert not (tmp_path / ".coco.unfinished").exists()
