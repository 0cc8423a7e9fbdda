"""Photos are found in any folder, each once, with a name of its own."""

import os
import socket

import pytest

from zspl.annotation.photos import find, printable
from zspl.errors import DataError


def make(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(found):
    return [photo.name for photo in found.photos]


def test_photos_are_found_in_subfolders_and_sorted_by_name(tmp_path):
    make(tmp_path, "b.JPG", "a/deep/er/c.png", "a/b.gif", "z.webp")

    found = find(tmp_path)

    assert names(found) == ["a/b", "a/deep/er/c", "b", "z"]
    assert found.photos[0].source == "a/b.gif"
    assert found.photos[2].path == tmp_path / "b.JPG"


def test_hidden_files_and_folders_are_left_out_and_other_files_counted(tmp_path):
    make(tmp_path, ".a.jpg", ".git/b.jpg", "c.jpg", "notes.txt", "more.TXT", "x.heic", "README")

    found = find(tmp_path)

    assert names(found) == ["c"]
    assert found.ignored == {".heic": 1, ".txt": 2, "no suffix": 1}


def test_each_real_folder_is_visited_once_and_by_its_own_path(tmp_path):
    make(tmp_path / "photos", "m/a.jpg", "m/n/b.jpg")
    make(tmp_path / "elsewhere", "c.jpg")
    (tmp_path / "photos" / "m" / "loop").symlink_to(tmp_path / "photos")
    (tmp_path / "photos" / "again").symlink_to(tmp_path / "photos" / "m")
    (tmp_path / "photos" / "far").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos" / "self").symlink_to(tmp_path / "photos" / "self")

    assert names(find(tmp_path / "photos")) == ["far/c", "m/a", "m/n/b"]


def test_a_linked_photo_is_a_photo_and_a_link_to_nowhere_is_refused(tmp_path):
    make(tmp_path / "elsewhere", "real.jpg")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").symlink_to(tmp_path / "elsewhere" / "real.jpg")
    (tmp_path / "photos" / "b.jpg").symlink_to("nowhere")

    found = find(tmp_path / "photos")

    assert names(found) == ["a"]
    assert found.refused == (("b.jpg", "link leads nowhere; mend or delete it"),)


def test_a_link_that_cannot_be_followed_hides_no_photo_beside_it(tmp_path):
    make(tmp_path, "a.jpg", "z.jpg")
    (tmp_path / "m").symlink_to("x" * 300)
    (tmp_path / "n.jpg").symlink_to("/dev/null")

    found = find(tmp_path)

    assert names(found) == ["a", "z"]
    assert found.refused == (
        ("m", "cannot be reached (File name too long); mend or delete it"),
        ("n.jpg", "is no ordinary file; delete it"),
    )


def test_what_is_no_ordinary_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.jpg"))

        found = find(tmp_path)

    assert [source for source, _ in found.refused] == ["pipe.jpg", "s.jpg"]


def test_two_photos_of_one_stem_both_keep_their_suffix(tmp_path):
    make(tmp_path, "a.jpg", "a.png", "b.jpg", "d/a.jpg")

    assert names(find(tmp_path)) == ["a.jpg", "a.png", "b", "d/a"]


def test_a_kept_suffix_never_meets_another_name(tmp_path):
    make(tmp_path, "a.jpg", "a.png", "a.jpg.png", "a.jpg.gif")

    found = find(tmp_path)

    assert names(found) == ["a.jpg", "a.jpg.gif", "a.jpg.png", "a.png"]
    assert [photo.source for photo in found.photos] == names(found)


def test_results_of_a_photo_never_meet_a_folder_of_results(tmp_path):
    make(tmp_path, "a.jpg", "a.png/b.jpg", "c.gif", "c.json/d.jpg")

    assert names(find(tmp_path)) == ["a.jpg", "a.png/b", "c.gif", "c.json/d"]


def test_a_name_too_long_for_its_results_is_refused(tmp_path):
    make(tmp_path, "n" * 251 + ".jpg", "m" * 250 + ".jpg")

    found = find(tmp_path)

    assert names(found) == ["m" * 250]
    assert "too long" in found.refused[0][1]


def test_names_that_are_no_text_are_found_and_shown_in_one_line(tmp_path):
    make(tmp_path, "new\nline.png", "caf\u00e9 \u732b.jpg", os.fsdecode(b"latin\xe9.jpg"))

    found = find(tmp_path)

    assert names(found) == ["caf\u00e9 \u732b", "latin\udce9", "new\nline"]
    assert [printable(name) for name in names(found)] == [
        "caf\u00e9 \u732b", "latin\\udce9", "new\\nline",
    ]  # fmt: skip


def test_results_and_masks_inside_are_left_out(tmp_path):
    make(tmp_path, "a.jpg", "out/labels/a.png", "masks/a.png")
    make(tmp_path, "old/annotate.json", "old/labels/a.png", "mine/annotate.json", "mine/b.png")

    found = find(tmp_path, apart_from=[tmp_path / "out", tmp_path / "masks"])

    assert names(found) == ["a", "mine/b"]
    assert found.left_out == ("old",)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_refused(tmp_path):
    make(tmp_path, "a.jpg", "locked/b.jpg")
    (tmp_path / "locked").chmod(0)
    try:
        found = find(tmp_path)
    finally:
        (tmp_path / "locked").chmod(0o700)

    assert names(found) == ["a"]
    assert found.refused[0][0] == "locked/"


def test_a_missing_folder_says_which_option(tmp_path):
    with pytest.raises(DataError, match=r"gone: no such folder; pass --images"):
        find(tmp_path / "gone")
