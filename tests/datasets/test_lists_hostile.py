"""Lists of ids from a stranger read no file outside the data folder."""

import pytest

from zspl.datasets._files import own_list, record
from zspl.errors import DataError, SettingsError


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b", ".hidden", "a\0b", "a\nb"])
def test_the_name_of_a_list_is_no_path(tmp_path, name):
    (tmp_path / "secret.txt").write_text("a\n")
    (tmp_path / "lists").mkdir()
    with pytest.raises(SettingsError, match="is no name of an id list") as caught:
        own_list(tmp_path / "lists", name)
    assert "\n" not in str(caught.value)


def test_a_list_that_is_a_link_out_of_its_folder_is_refused_before_it_is_read(tmp_path):
    (tmp_path / "secret").write_text("root:x:0:0\n")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/mine.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(DataError, match="is a link out of") as caught:
        own_list(tmp_path / "lists", "mine")
    assert "x:0:0" not in str(caught.value)


def test_the_whole_folder_may_be_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real/mine.txt").write_text("a\n")
    (tmp_path / "lists").symlink_to(tmp_path / "real")
    assert own_list(tmp_path / "lists", "mine") == ("a",)


@pytest.mark.parametrize("kind", ["photo", "mask"])
def test_a_photo_or_a_mask_that_is_a_link_out_of_the_data_folder_is_refused(tmp_path, kind):
    source = tmp_path / "source"
    source.mkdir()
    (tmp_path / "secret").write_text("x")
    (source / "a.jpg").write_text("x")
    (source / "link").symlink_to(tmp_path / "secret")
    photo, mask = (
        (source / "link", None) if kind == "photo" else (source / "a.jpg", source / "link")
    )
    with pytest.raises(DataError, match="is a link to"):
        record(source, "a", photo, label_path=mask)
