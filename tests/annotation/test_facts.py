"""Facts are read back as they were written, and anything else is refused."""

import pytest

from zspl.annotation.facts import Facts
from zspl.annotation.results import Results
from zspl.errors import DataError
from zspl.records import SegmentRow

SEGMENT = SegmentRow(
    area=3,
    bbox=(0, 1, 2, 3),
    predicted_iou=0.5,
    stability_score=0.25,
    classes=(1, 2),
    cosines=(0.5, 0.125),
    probabilities=(0.75, 0.25),
    assigned=255,
)
FACTS = Facts(
    name="d/a",
    source="d/a.jpg",
    width=4,
    height=3,
    pixels={0: 5, 2: 3, 255: 4},
    coverage=0.5,
    conflict=None,
    doubt=0.25,
    segments=(SEGMENT,),
    stat=(10, 1_700_000_000_000_000_001),
)


def test_facts_come_back_as_they_were_written(tmp_path):
    FACTS.write(tmp_path / "a.json")

    assert Facts.read(tmp_path / "a.json") == FACTS


def test_equal_facts_give_equal_bytes(tmp_path):
    FACTS.write(tmp_path / "a.json")
    Facts.read(tmp_path / "a.json").write(tmp_path / "b.json")

    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"pixels": 3}', "\udce9"])
def test_a_damaged_file_is_one_line(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content.encode(errors="surrogateescape"))

    with pytest.raises(DataError, match="holds no facts of a photo") as caught:
        Facts.read(tmp_path / "a.json")
    assert "\n" not in str(caught.value)


def test_results_list_only_what_is_asked_for_and_never_half_written_files(tmp_path):
    for name in ("b", "d/a", "d/c", "d/.half"):
        FACTS.write(tmp_path / "facts" / f"{name}.json")

    assert Results(tmp_path, tmp_path).names() == ["b", "d/a", "d/c"]
    assert Results(tmp_path, tmp_path, only={"d/c", "gone"}).names() == ["d/c"]


def test_results_that_are_not_there_are_one_line(tmp_path):
    results = Results(tmp_path, tmp_path)

    assert results.names() == []
    assert results.quarantined() == []
    for ask in (results.made_with, lambda: results.facts("a"), lambda: results.label("a")):
        with pytest.raises(DataError, match="no such"):
            ask()
