from dataclasses import replace

import pytest

from zspl.data import ids_of_shard
from zspl.errors import DataError
from zspl.io.layout import Layout
from zspl.io.splits import check, hold_out, read_ids, read_split, write_ids, write_split
from zspl.records import Split

SPLIT = Split(
    name="labeled_3", labeled=("c", "a", "b"), holdout=("h",), unlabeled=("u",), val=("v", "w")
)
KNOWN = {*"abchuvw"}


def test_a_split_is_read_as_it_was_written_in_the_order_of_the_file(tmp_path):
    write_split(tmp_path / "labeled_3", SPLIT)
    assert read_split(tmp_path / "labeled_3") == SPLIT
    assert (tmp_path / "labeled_3" / "labeled.txt").read_text() == "c\na\nb\n"


def test_the_ids_of_a_shard_are_those_prepare_wrote(tmp_path):
    layout = Layout(tmp_path)
    write_ids(layout.shard(1), ["b", "d"])
    assert ids_of_shard(layout, 1) == ("b", "d")
    with pytest.raises(DataError, match="no such list of image ids"):
        ids_of_shard(layout, 2)


def test_a_good_split_passes():
    check(SPLIT, KNOWN)
    check(replace(SPLIT, holdout=(), unlabeled=()), KNOWN)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labeled": ("a", "a")}, "the id 'a' is in labeled twice"),
        ({"val": ("v", "a")}, "the id 'a' is in both labeled and val"),
        ({"unlabeled": ("h",)}, "the id 'h' is in both holdout and unlabeled"),
        ({"labeled": ("a", "zz")}, "labeled names the id 'zz', but the data set has no such"),
        ({"labeled": ()}, "no labeled images"),
        ({"val": ()}, "no val images"),
        ({"labeled": ("../a",)}, "could leave the data folder"),
        ({"unlabeled": ("/etc/passwd",)}, "could leave the data folder"),
    ],
)
def test_a_wrong_split_is_one_line_that_says_what(changes, message):
    with pytest.raises(DataError, match=message) as caught:
        check(replace(SPLIT, **changes), KNOWN)
    assert str(caught.value).startswith("split labeled_3")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("image_id", ["../a", "..", "/a", "a/b", "a\\b", ".hidden", "a\tb"])
def test_ids_that_could_leave_the_folder_are_refused_when_read(tmp_path, image_id):
    path = tmp_path / "ids.txt"
    path.write_text(f"good\n{image_id}\n")
    with pytest.raises(DataError, match="is no bare file name"):
        read_ids(path)


def test_blank_lines_and_a_missing_last_newline_do_not_count(tmp_path):
    path = tmp_path / "ids.txt"
    path.write_bytes(b"a\r\n\nb  \nc")
    assert read_ids(path) == ("a", "b", "c")


def test_a_list_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "ids.txt"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="no readable list"):
        read_ids(path)


@pytest.mark.parametrize(("share", "held"), [(0.0, 0), (0.01, 1), (0.2, 2), (0.5, 5), (0.9, 9)])
def test_a_hold_out_takes_its_share_of_the_labeled_ids_and_at_least_one(share, held):
    split = replace(SPLIT, labeled=tuple("qwertyuiop"), holdout=(), unlabeled=(), val=("v",))

    cut = hold_out(split, share=share, seed=0)

    assert len(cut.holdout) == held
    assert sorted(cut.labeled + cut.holdout) == sorted(split.labeled)
    assert list(cut.labeled) == [i for i in split.labeled if i in cut.labeled]
    assert cut == hold_out(split, share=share, seed=0)
    assert held in {0, 9} or cut != hold_out(split, share=share, seed=1)


def test_a_hold_out_may_not_take_every_labeled_image():
    split = replace(SPLIT, labeled=("a",), holdout=())
    with pytest.raises(DataError, match="leaves none of its 1 labeled"):
        hold_out(split, share=0.2, seed=0)


@pytest.mark.parametrize("image_id", ["a\u2028b", "a\x7f", "x" * 201, "\u202egpj.a", "a\0b"])
def test_ids_that_no_file_system_or_terminal_shows_are_refused_when_read(tmp_path, image_id):
    path = tmp_path / "ids.txt"
    path.write_text(f"good\n{image_id.replace(chr(0x2028), chr(0x2060))}\n")
    with pytest.raises(DataError, match="is no bare file name") as caught:
        read_ids(path)
    assert str(caught.value).isprintable()
