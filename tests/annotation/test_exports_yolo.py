from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import yaml

from zspl.annotation.exports import _folder, yolo
from zspl.annotation.exports._polygons import polygon


def filled(points, shape):
    """Fill a polygon by the even-odd rule, one pixel centre after the other."""
    inside = np.zeros(shape, bool)
    for row in range(shape[0]):
        for column in range(shape[1]):
            x, y = column + 0.5, row + 0.5
            odd = False
            for (x1, y1), (x2, y2) in zip(points, np.roll(points, -1, axis=0), strict=True):
                if (y1 > y) != (y2 > y) and x < x1 + (y - y1) * (x2 - x1) / (y2 - y1):
                    odd = not odd
            inside[row, column] = odd
    return inside


def iou(first, second):
    return (first & second).sum() / (first | second).sum()


def disc(size, radius, centre=None):
    grid = np.arange(size) + 0.5
    row, column = centre or (size / 2, size / 2)
    return np.hypot(*np.meshgrid(grid - row, grid - column, indexing="ij")) <= radius


def read_rows(path):
    rows = [line.split() for line in path.read_text().splitlines()]
    return [(int(c), np.array(xy, float).reshape(-1, 2)) for c, *xy in rows]


def test_polygons_fill_the_label_map_again(folder, tmp_path):
    made = folder("cat", "dog")
    label = np.zeros((26, 32), np.uint8)
    label[:16, :14] = 1
    label[disc(26, 10).nonzero()] = 2
    made.add("a.jpg", label)
    yolo.export(made.results, tmp_path / "yolo")
    for class_id in (1, 2):
        found = np.zeros(label.shape, bool)
        for index, points in read_rows(tmp_path / "yolo" / "labels" / "a.txt"):
            if index == class_id - 1:
                found |= filled(points * (32, 26), label.shape)
        assert iou(found, label == class_id) > 0.93


def test_a_hole_stays_a_hole_and_a_tiny_one_is_filled():
    ring = disc(30, 14)
    ring[8:20, 10:18] = False
    ring[22, 20] = False
    found = filled(polygon(ring), ring.shape)
    assert not found[10:18, 12:16].any()
    assert found[22, 20]
    assert iou(found, ring) > 0.96


def test_several_holes_are_all_cut_out():
    plate = np.ones((30, 30), bool)
    for row in (4, 18):
        for column in (4, 18):
            plate[row : row + 7, column : column + 7] = False
    assert iou(filled(polygon(plate), plate.shape), plate) > 0.95


def test_regions_under_nine_pixels_have_no_polygon():
    assert polygon(np.ones((2, 4), bool)) is None
    assert len(polygon(np.ones((3, 3), bool))) >= 3


@pytest.mark.parametrize("shape", [(1, 20), (20, 1)])
def test_a_line_one_pixel_wide_keeps_its_area(shape):
    x, y = polygon(np.ones(shape, bool)).T
    area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    assert 19 <= area <= 20


def test_straight_edges_need_few_points_and_no_edge_moves_by_more_than_half_a_pixel():
    block = np.ones((20, 30), bool)
    assert len(polygon(block)) <= 8
    wedge = np.tri(24, dtype=bool)
    points = polygon(wedge)
    assert len(points) <= 8
    assert iou(filled(points, wedge.shape), wedge) > 0.95


def test_shares_lie_in_the_photo_and_classes_count_from_zero(folder, random_label, tmp_path):
    made = folder("cat", "dog", "cow")
    made.add("a.jpg", random_label(3, (50, 70), 3))
    yolo.export(made.results, tmp_path / "yolo")
    rows = read_rows(tmp_path / "yolo" / "labels" / "a.txt")
    assert {index for index, _ in rows} == {0, 1, 2}
    for _, points in rows:
        assert len(points) >= 3
        assert points.min() >= 0
        assert points.max() <= 1


def test_every_listed_photo_opens_and_has_its_labels_where_yolo_looks(folder, tmp_path):
    made = folder("cat")
    sources = ["a.jpg", "images/b.png", "x/images/c d.jpg", "100%.jpg", "caf\udce9.jpg", "l\nf.jpg"]
    for source in sources:
        made.add(source, np.ones((12, 12)))
    made.add("same.jpg", np.ones((12, 12)), name="same.jpg")
    made.add("same.png", np.zeros((12, 12)), name="same.png")
    yolo.export(made.results, tmp_path / "out" / "yolo")
    root = tmp_path / "out" / "yolo"
    listed = (root / "train.txt").read_text(encoding="utf-8").splitlines()
    assert len(listed) == 8
    for line in listed:
        photo = line.replace("./", f"{root}/")
        assert Path(photo).read_bytes()[:2] in {b"\xff\xd8", b"\x89P"}
        # The rule of YOLO: the last /images/ becomes /labels/, the suffix .txt.
        labels = "/labels/".join(photo.rsplit("/images/", 1)).rsplit(".", 1)[0] + ".txt"
        rows = Path(labels).read_text()
        assert bool(rows) == ("same.png" not in photo)
    assert not any(path.readlink().is_absolute() for path in root.rglob("*") if path.is_symlink())


def test_data_yaml_names_the_classes_and_no_folder_of_this_machine(folder, tmp_path):
    made = folder('"cat": 1', "#dog")
    made.add("a.jpg", np.ones((4, 4)))
    yolo.export(made.results, tmp_path / "yolo")
    text = (tmp_path / "yolo" / "data.yaml").read_text()
    values = yaml.safe_load(text)
    assert values["names"] == {0: '"cat": 1', 1: "#dog"}
    assert values["train"] == "train.txt"
    assert str(tmp_path) not in text


def test_the_same_results_give_the_same_bytes(folder, random_label, tmp_path, every_byte):
    made = folder("cat", "dog")
    made.add("x/a.jpg", random_label(1, (40, 40), 2))
    yolo.export(made.results, tmp_path / "yolo")
    first = every_byte(tmp_path / "yolo")
    yolo.export(made.results, tmp_path / "yolo")
    assert every_byte(tmp_path / "yolo") == first


@pytest.mark.parametrize("encode", [_folder.plain, _folder.flat])
def test_names_never_collide_and_can_be_had_back(encode):
    names = [
        "a/b",
        "a%2Fb",
        "a_b",
        "images/a",
        "%69mages/a",
        " a",
        "a ",
        ".a",
        "a\u2028",
        "a\udcff",
    ]
    encoded = [encode(name) for name in names]
    assert len(set(encoded)) == len(names)
    assert all(text.isprintable() for text in encoded)
    assert [unquote(text, errors="surrogateescape") for text in encoded] == names


def test_names_too_long_for_a_file_are_cut_and_stay_apart():
    deep = "/".join(["folder" * 6] * 9)
    first, second = _folder.flat(f"{deep}/a"), _folder.flat(f"{deep}/b")
    assert len(first.encode()) <= 200
    assert first != second
