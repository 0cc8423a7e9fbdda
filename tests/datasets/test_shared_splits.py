"""The shipped lists of VOC and COCO are the official ones, id by id and in their order."""

import os
from pathlib import Path

import pytest

from zspl.datasets import coco, pascal_voc
from zspl.io.splits import read_ids

SHARED = Path(os.environ.get("ZSPL_SHARED", "../shared")) / "splits"
FRACTIONS = {"1_512": "232", "1_256": "463", "1_128": "925", "1_64": "1849", "1_32": "3697"}
VOC = ("92", "183", "366", "732", "1464", "train_aug", "val")


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no folder {SHARED}; set ZSPL_SHARED")
@pytest.mark.parametrize(
    ("official", "shipped"),
    [
        *((f"pascal/{name}.txt", pascal_voc._LISTS / f"{name}.txt") for name in VOC),
        *((f"coco/{a}.txt", coco._LISTS / f"{b}.txt") for a, b in FRACTIONS.items()),
    ],
)
def test_a_shipped_list_holds_the_official_ids_in_their_order(official, shipped):
    assert list(read_ids(shipped)) == (SHARED / official).read_text().split()


def test_no_list_is_missing_and_none_is_beyond_the_official_ones():
    found = {path.stem for path in coco._LISTS.glob("*.txt")}
    assert found == set(FRACTIONS.values()) == set(coco.OFFICIAL.values())
    assert {path.stem for path in pascal_voc._LISTS.glob("*.txt")} == set(VOC)


@pytest.mark.parametrize("name", VOC[:5])
def test_labeled_and_unlabeled_ids_of_voc_make_up_train_aug(name):
    labeled = set(read_ids(pascal_voc._LISTS / f"{name}.txt"))
    everything = set(read_ids(pascal_voc._LISTS / "train_aug.txt"))
    assert labeled < everything
    assert len(everything - labeled) == 10_582 - int(name)


def test_the_lists_of_voc_are_not_nested():
    ids = {name: set(read_ids(pascal_voc._LISTS / f"{name}.txt")) for name in VOC[:4]}
    shared = [len(ids[a] & ids[b]) for a, b in (("92", "183"), ("183", "366"), ("366", "732"))]
    assert shared == [9, 42, 188]
