import numpy as np
import pytest
from PIL import Image

from zspl.evaluation.charts import draw_lines, draw_reliability
from zspl.viz import GridRow, grid, overlay


def test_overlay_leaves_background_alone_and_paints_classes_in_voc_colours():
    image = Image.new("RGB", (3, 1), (100, 100, 100))
    painted = np.asarray(overlay(image, np.array([[0, 1, 255]], np.uint8), opacity=0.5))
    assert painted[0, 0].tolist() == [100, 100, 100]
    assert painted[0, 1].tolist() == [114, 50, 50]
    assert painted[0, 2].tolist() == [168, 168, 168]


def test_overlay_refuses_a_label_map_of_another_size():
    with pytest.raises(ValueError, match=r"expected a label map of \(3, 1\), got \(2, 1\)"):
        overlay(Image.new("RGB", (3, 1)), np.zeros((1, 2), np.uint8))


def test_grid_has_a_place_per_photo_and_map_and_keeps_aspect_ratios():
    image = Image.new("RGB", (40, 20), (9, 9, 9))
    maps = (np.ones((20, 40), np.uint8), None)
    sheet = grid(
        ("truth", "labels"),
        [GridRow(image=image, maps=maps)] * 2,
        class_names=("background", "cat"),
        cell=(80, 60),
    )
    assert sheet.width == 8 + 3 * 88
    # 80x60 places hold the 2:1 photo as 80x40; below it stays white.
    assert sheet.getpixel((10, 8 + 18 + 2)) == (9, 9, 9)
    assert sheet.getpixel((10, 8 + 18 + 45)) == (255, 255, 255)


def test_grid_refuses_a_row_with_too_few_maps():
    row = GridRow(image=Image.new("RGB", (4, 4)), maps=())
    with pytest.raises(ValueError, match="expected 1 maps in each row, got 0"):
        grid(("truth",), [row], class_names=("background",))


def test_charts_are_the_same_bytes_each_time_and_take_gaps(tmp_path):
    lines = {"a": [(20, 50.0, 1.0), (40, float("nan"), float("nan"))], "b": []}
    for name in ("1", "2"):
        draw_lines(tmp_path / f"{name}.png", lines, ylabel="mIoU %")
        panels = {"a": {"before": [(0.5, 0.4, 0.3), (0.9, 0.8, 0.7)], "after": []}, "b": {}}
        draw_reliability(tmp_path / f"r{name}.png", panels)
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()
    assert (tmp_path / "r1.png").read_bytes() == (tmp_path / "r2.png").read_bytes()
    with Image.open(tmp_path / "r1.png") as chart:
        assert chart.width > 500
    with Image.open(tmp_path / "1.png") as chart:
        assert chart.width > 500
