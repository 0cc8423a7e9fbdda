"""Classes come from the command line or a file, with synonyms."""

import pytest

from zspl.annotation.vocabulary import read_classes
from zspl.errors import SettingsError

TEXT = "# pets\ncat\ndog = dog | puppy   # young ones, too\n\nsofa, or couch=sofa|couch\n"
YAML_LIST = "- cat\n- dog=dog|puppy\n- sofa, or couch=sofa|couch\n"
YAML_MAP = "cat:\ndog: [dog, puppy]\nsofa, or couch: sofa|couch\n"


@pytest.mark.parametrize(
    ("name", "content"), [("c.txt", TEXT), ("c", TEXT), ("c.yaml", YAML_LIST), ("c.yml", YAML_MAP)]
)
def test_a_file_says_the_same_in_any_form(tmp_path, name, content):
    (tmp_path / name).write_text(content)

    table = read_classes(str(tmp_path / name))

    assert table.names == ("background", "cat", "dog", "sofa, or couch")
    assert table.texts == ("cat", "dog", "puppy", "sofa", "couch")
    assert table.text_classes == (1, 2, 2, 3, 3)


def test_background_texts_speak_for_class_0(tmp_path):
    (tmp_path / "b.txt").write_text("sky\ngrass\n")

    table = read_classes("cat,dog", str(tmp_path / "b.txt"))

    assert table.background == ("sky", "grass")
    assert table.text_classes == (1, 2, 0, 0)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("", "names no class"),
        ("cat, cat", "class names must differ"),
        ("cat, =dog", "'=dog' is no class; write name="),
        ("dog=dog||puppy", "a prompt is empty"),
        ("cat\ndog, cow", "holds a line end"),
        ("cat, background", "background is class 0 already"),
        ("gone.yaml", "gone.yaml: no such file"),
        (",".join(map(str, range(300))), "expected 2..255 class names"),
    ],
)
def test_what_names_no_classes_is_one_line(classes, message):
    with pytest.raises(SettingsError, match=message):
        read_classes(classes)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.yaml", b"a: [", "is no YAML"),
        ("c.yaml", b"3", "expected a list of classes"),
        ("c.txt", b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)

    with pytest.raises(SettingsError, match=message):
        read_classes(str(tmp_path / name))
