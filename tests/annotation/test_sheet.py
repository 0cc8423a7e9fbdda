import numpy as np
import pytest
from PIL import Image, ImageFont

from zspl.annotation import sheet
from zspl.annotation.photos import printable
from zspl.annotation.pictures import pair, percent, shares
from zspl.errors import DataError
from zspl.viz import class_colour, outlined, shortened


def test_the_sheet_shows_each_photo_beside_its_labels(folder, tmp_path):
    made = folder("cat", "dog")
    label = np.zeros((60, 80), np.uint8)
    label[10:50, 10:40] = 1
    made.add("a.png", label)
    sheet.write(made.results, ["a"], tmp_path / "sheet.png")
    drawn = Image.open(tmp_path / "sheet.png")
    pixels = np.asarray(drawn)
    # 80 x 60 fits the place, so it keeps its size; the photo lies left, the painted copy right.
    photo = np.asarray(Image.open(made.photos / "a.png"))
    top, left = np.argwhere((pixels[:, :, None] == photo[0, 0]).all(axis=-1))[0][:2]
    np.testing.assert_array_equal(pixels[top : top + 60, left : left + 80], photo)
    step = sheet.CELL[0] + 4
    painted = pixels[top : top + 60, left + step : left + step + 80]
    assert tuple(painted[10, 10]) == class_colour(1)
    np.testing.assert_array_equal(painted[:10], photo[:10])


def test_the_sheet_takes_hostile_names_gone_photos_and_every_shape(folder, tmp_path):
    made = folder("a very long name of a class " * 20, "dog\n2")
    sources = ["caf\udce9\n.png", "x" * 200 + ".png", "gone.png", "tall.png", "dot.png"]
    shapes = [(20, 30), (20, 30), (20, 30), (4000, 1), (1, 1)]
    for source, shape in zip(sources, shapes, strict=True):
        made.add(source, np.full(shape, 2))
    (made.photos / "gone.png").unlink()
    made.add("changed.png", np.ones((5, 5)))
    Image.new("RGB", (9, 9)).save(made.photos / "changed.png")
    sheet.write(made.results, made.results.names(), tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as drawn:
        assert drawn.width < 2000
        assert drawn.height < 1200


@pytest.mark.parametrize(("photos", "columns"), [(0, 1), (1, 1), (3, 2), (12, 3)])
def test_the_sheet_has_up_to_three_columns(folder, tmp_path, photos, columns):
    made = folder("cat")
    for index in range(photos):
        made.add(f"{index}.png", np.ones((8, 8)))
    sheet.write(made.results, made.results.names(), tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as drawn:
        assert drawn.width == 20 + columns * (2 * sheet.CELL[0] + 4 + 20)


def test_the_same_results_give_the_same_sheet(folder, random_label, tmp_path):
    made = folder("cat", "dog")
    made.add("a.jpg", random_label(0, (50, 40), 2))
    for name in ("1.png", "2.png"):
        sheet.write(made.results, ["a"], tmp_path / name)
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()


def test_a_name_that_is_not_labeled_is_an_error(folder, tmp_path):
    with pytest.raises(DataError, match=r"b\.json"):
        sheet.write(folder("cat").results, ["b"], tmp_path / "sheet.png")


def test_outlined_leaves_background_alone_and_paints_edges_in_full():
    image = Image.new("RGB", (20, 20), (100, 100, 100))
    label = np.zeros((20, 20), np.uint8)
    label[5:15, 5:15] = 1
    painted = np.asarray(outlined(image, label, opacity=0.5))
    orange = np.array(class_colour(1))
    assert painted[0, 0].tolist() == [100, 100, 100]
    np.testing.assert_array_equal(painted[5, 9], orange)
    np.testing.assert_array_equal(painted[6, 9], orange)
    np.testing.assert_array_equal(painted[10, 10], np.round((orange + 100) / 2))
    np.testing.assert_array_equal(painted[4, 9], [100, 100, 100])


def test_outlined_stripes_what_is_not_claimed():
    image = Image.new("RGB", (20, 1), (0, 0, 0))
    painted = np.asarray(outlined(image, np.full((1, 20), 255, np.uint8)))[0]
    assert len(np.unique(painted, axis=0)) == 2
    assert (painted == painted[:, :1]).all()


def test_outlined_refuses_a_label_map_of_another_size():
    with pytest.raises(ValueError, match=r"expected a label map of \(3, 1\), got \(2, 1\)"):
        outlined(Image.new("RGB", (3, 1)), np.zeros((1, 2), np.uint8))


def test_colours_of_all_classes_differ_and_none_is_grey():
    colours = [class_colour(i) for i in range(1, 255)]
    assert len(set(colours)) == 254
    assert all(max(colour) - min(colour) > 20 for colour in colours)


def test_shortened_text_fits_and_keeps_both_ends():
    font = ImageFont.load_default(size=14)
    text = "trip to the lake/day 1/IMG_000123.jpg"
    for room in (30, 60, 100, 200):
        cut = shortened(text, room=room, font=font)
        assert font.getlength(cut) <= room
        assert cut[0] == "t"
    assert shortened(text, room=200, font=font).endswith("3.jpg")
    assert shortened("short", room=200, font=font) == "short"


def test_a_photo_that_changed_since_has_no_pair(folder):
    made = folder("cat")
    made.add("a.png", np.ones((8, 9)))
    facts = made.results.facts("a")
    assert pair(made.results, facts, box=(4, 4)).photo.size == (4, 4)
    Image.new("RGB", (8, 8)).save(made.photos / "a.png")
    assert pair(made.results, facts, box=(4, 4)) is None


def test_shares_are_of_all_pixels_largest_first(folder):
    made = folder("cat", "dog")
    made.add("a.png", [[0, 0, 1, 2, 2, 255, 0, 0]])
    assert shares(made.results.facts("a")) == [(2, 0.25), (1, 0.125), (255, 0.125)]
    assert percent(0.125) == "12 %"


def test_printable_names_have_one_line_and_can_be_drawn():
    assert printable("a\nb\udce9\u2028") == "a\\nb\\udce9\\u2028"
