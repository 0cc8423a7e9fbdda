import json
from urllib.parse import unquote
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from zspl.annotation.exports import labelstudio
from zspl.annotation.exports.labelstudio import brush_rle


def decoded(packed):
    """Decode bit by bit as the format is described: header, then equal or unequal runs."""
    bits = "".join(f"{byte:08b}" for byte in packed)
    place = 0

    def take(width):
        nonlocal place
        place += width
        return int(bits[place - width : place], 2)

    total = take(32)
    word = take(5) + 1
    fields = [take(4) + 1 for _ in range(4)]
    values = []
    while len(values) < total:
        repeated = take(1)
        count = take(fields[take(2)]) + 1
        values += [take(word)] * count if repeated else [take(word) for _ in range(count)]
    assert len(values) == total
    assert len(bits) - place < 8
    return values


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 2), (3, 5), (17, 33), (1, 64), (2, 20000), (180, 240)]
)
@pytest.mark.parametrize("density", [0.0, 0.02, 0.5, 1.0])
def test_brush_masks_come_back_as_they_were(shape, density):
    random = np.random.default_rng(0)
    mask = random.random(shape) < density
    pixels = np.array(decoded(brush_rle(mask))).reshape(*shape, 4)
    for channel in range(4):
        np.testing.assert_array_equal(pixels[..., channel], np.where(mask, 255, 0))


def test_the_header_is_that_of_masks_painted_in_label_studio():
    # A published mask of a 3332 x 2527 photo begins with these bytes; its first run is 65536 zeros.
    empty = np.zeros((2527, 3332), bool)
    assert brush_rle(empty)[:9] == [2, 1, 233, 240, 57, 27, 255, 255, 255]


def test_a_run_of_each_length_uses_the_smallest_field():
    for pixels, bits in ((1, 14), (2, 14), (3, 15), (4, 15), (5, 19), (64, 19), (65, 27)):
        assert len(brush_rle(np.ones((1, pixels), bool))) == -(-(53 + bits) // 8)


def tasks_of(made, to):
    labelstudio.export(made.results, to)
    return json.loads((to / "tasks-001.json").read_text())


def test_a_task_names_the_photo_below_the_document_root_and_predicts_each_class(folder, tmp_path):
    made = folder("cat", "potted plant")
    label = np.zeros((6, 9), np.uint8)
    label[:2], label[3], label[5, :4] = 1, 2, 255
    confidence = np.full((6, 9), 51)
    confidence[3] = 255
    made.add("trip to ü/a&b#1.jpg", label, confidence=confidence)
    (task,) = tasks_of(made, tmp_path / "ls")
    address = task["data"]["image"]
    prefix = "/data/local-files/?d="
    assert address.startswith(prefix)
    assert address.isascii()
    assert unquote(address.removeprefix(prefix)) == "photos/trip to ü/a&b#1.jpg"
    (prediction,) = task["predictions"]
    assert prediction["model_version"] == "zspl 0.1.0"
    assert prediction["score"] == pytest.approx((45 * 51 + 9 * 255) / 54 / 255, abs=1e-4)
    cat, plant = prediction["result"]
    assert cat["value"]["brushlabels"] == ["cat"]
    assert plant["value"]["brushlabels"] == ["potted plant"]
    assert (plant["score"], cat["score"]) == (1.0, 0.2)
    for region, class_id in ((cat, 1), (plant, 2)):
        assert (region["original_width"], region["original_height"]) == (9, 6)
        assert (region["type"], region["image_rotation"]) == ("brushlabels", 0)
        alpha = np.array(decoded(region["value"]["rle"])).reshape(6, 9, 4)[..., 3]
        np.testing.assert_array_equal(alpha == 255, label == class_id)
    assert cat["id"] != plant["id"]


def test_predictions_fit_the_labeling_interface(folder, tmp_path):
    made = folder('cat "x" <&>', "dog")
    made.add("a.jpg", np.ones((4, 4)))
    (task,) = tasks_of(made, tmp_path / "ls")
    config = ET.fromstring((tmp_path / "ls" / "labeling_config.xml").read_text())
    brush, image = config.find("BrushLabels"), config.find("Image")
    assert [label.get("value") for label in brush] == ['cat "x" <&>', "dog"]
    (region,) = task["predictions"][0]["result"]
    assert region["from_name"] == brush.get("name")
    assert region["to_name"] == image.get("name") == brush.get("toName")
    assert image.get("value") == "$image"
    assert "image" in task["data"]
    assert region["value"]["brushlabels"][0] in {label.get("value") for label in brush}


def test_many_tasks_are_split_into_files_that_can_be_imported(folder, tmp_path, monkeypatch):
    made = folder("cat")
    for name in "abcde":
        made.add(f"{name}.jpg", np.ones((4, 4)))
    monkeypatch.setattr(labelstudio, "_PART_SIZE", 900)
    labelstudio.export(made.results, tmp_path / "ls")
    parts = sorted((tmp_path / "ls").glob("tasks-*.json"))
    assert [part.name for part in parts] == ["tasks-001.json", "tasks-002.json", "tasks-003.json"]
    tasks = [task for part in parts for task in json.loads(part.read_text())]
    assert [task["data"]["image"][-5:] for task in tasks] == [f"{n}.jpg" for n in "abcde"]


def test_the_same_results_give_the_same_bytes_without_a_path_of_this_machine(
    folder, random_label, tmp_path, every_byte
):
    made = folder("cat", "dog")
    made.add("caf\udce9\n.jpg", random_label(1, (40, 40), 2))
    labelstudio.export(made.results, tmp_path / "ls")
    first = every_byte(tmp_path / "ls")
    labelstudio.export(made.results, tmp_path / "ls")
    assert every_byte(tmp_path / "ls") == first
    assert not any(str(tmp_path).encode() in content for content in first.values())
