import math

import numpy as np
import pytest
from PIL import Image

from zspl.report.charts import Beside, Line, draw_beside, draw_lines, draw_reliability
from zspl.report.class_charts import FEW, draw_classes
from zspl.report.looks import inches, looks
from zspl.report.pictures import Row, draw_grid, image_score
from zspl.report.tables import over_seeds

NAN = float("nan")


def draw_everything(folder):
    lines = [
        Line("a", [(20, 50.0, 1.0), (40, NAN, NAN)]),
        Line("b", []),
        Line("published: a", [(20, 60.0, NAN)], published=True, like="a"),
    ]
    draw_lines(folder / "lines", lines, ylabel="mIoU %", known=looks(["a", "b"]))
    panels = {"a": {"before": [(0.5, 0.4, 0.3), (0.9, 0.8, 0.7)], "after": []}, "b": {}}
    draw_reliability(folder / "reliability", panels)
    draw_beside(
        folder / "beside", {"x": [Beside("a", 50.0, 2.0, 60.0), Beside("b", NAN, NAN, 70.0)]}
    )
    for count in (3, FEW + 1):
        columns = {"a": [over_seeds([40.0, 50.0])] * count, "b": [over_seeds([NAN])] * count}
        names = [f"class {n}" for n in range(count)]
        draw_classes(folder / f"classes{count}", columns, names, sort="b", colours=looks(["a"]))
    truth = np.zeros((20, 40), np.uint8)
    truth[5:, 10:], truth[0] = 1, 255
    row = Row(image_id="i", image=Image.new("RGB", (40, 20)), truth=truth, maps=(truth, None))
    draw_grid(folder / "grid", ("m", "a_long-name"), [row], class_names=("background", "cat"))
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_every_figure_is_the_same_png_and_svg_each_time_and_takes_gaps(tmp_path):
    first, second = tmp_path / "1", tmp_path / "2"
    first.mkdir()
    second.mkdir()
    drawn = draw_everything(first)
    assert len(drawn) == 2 * 6
    assert drawn == draw_everything(second)
    for name, content in drawn.items():
        if name.endswith(".svg"):
            assert b"<dc:date>" not in content, name


def test_a_figure_knows_its_width(tmp_path):
    draw_lines(tmp_path / "x", [Line("a", [(1, 1.0, NAN)])], ylabel="y", known=looks(["a"]))
    assert inches(tmp_path / "x") == pytest.approx(8.4, abs=0.01)


def test_names_differ_in_colour_or_in_marker_and_stroke():
    found = looks([str(n) for n in range(20)])
    assert len({(look.colour, look.marker) for look in found.values()}) == 20
    assert len({look.colour for look in list(found.values())[:8]}) == 8


def test_a_grid_refuses_a_row_with_too_few_maps(tmp_path):
    row = Row(
        image_id="i", image=Image.new("RGB", (4, 4)), truth=np.zeros((4, 4), np.uint8), maps=()
    )
    with pytest.raises(ValueError, match="expected 1 maps in each row, got 0"):
        draw_grid(tmp_path / "x", ("a",), [row], class_names=("background",))


def test_the_score_below_a_map_counts_silence_as_a_miss_and_leaves_void_out():
    truth = np.array([[0, 0, 1, 1, 255]], np.uint8)
    claim = np.array([[0, 0, 1, 255, 0]], np.uint8)
    assert image_score(claim, truth, num_classes=3) == pytest.approx(100 * (1 + 1 / 2) / 2)
    assert math.isclose(image_score(truth, truth, num_classes=3), 100)
