"""Ultralytics YOLO segmentation: one text file of polygons per photo.

YOLO finds the labels of images/a.jpg at labels/a.txt, so images/ holds relative links to the
photos; nothing is copied. Class indices count from 0 without the background.
"""

import json
from pathlib import Path, PurePosixPath

import numpy as np

from zspl.annotation.exports._folder import plain, whole
from zspl.annotation.exports._polygons import SMALLEST, polygon
from zspl.annotation.exports._regions import regions
from zspl.annotation.results import Results
from zspl.errors import DiskError
from zspl.io import atomic
from zspl.io.classes import ClassTable
from zspl.observer import progress

README = f"""Ultralytics YOLO segmentation, written by zspl.

    yolo segment train data=data.yaml model=yolo11n-seg.pt

data.yaml     lists and class names; class 0 is the first class after the background
train.txt     the photos, relative to this folder
images/       links to the photos; on another machine, copy or link them there under these names
labels/       one polygon per line: class index, then x y pairs in [0, 1]

Names are percent-encoded where a tool would stumble over them (%, line ends, a folder "images").
A polygon is one connected region of a class; touching objects of a class are one region. Holes
are cut out through a seam of no width, which even-odd filling (OpenCV) keeps as a hole. Regions
under {SMALLEST} pixels are left out and holes under {SMALLEST} pixels filled.
YOLO has no "unknown": what is not claimed (255) counts as background.
These labels were made by a model. Put photos with masks of your own into val in data.yaml.
"""


def export(results: Results, to: Path) -> None:
    """Write OUT/exports/yolo: data.yaml, train.txt, labels/ and links in images/.

    Raises:
        DataError: if a label map is gone.
        DiskError: if the folder cannot be written or cannot hold links.
    """
    names = results.names()
    with whole(to, readme=README) as folder:
        listed = []
        for name in progress(names, what="yolo", total=len(names)):
            source = results.facts(name).source
            photo = f"images/{plain(name)}{PurePosixPath(source).suffix}"
            _link(folder / photo, results.images / source)
            atomic.write_text(folder / "labels" / f"{plain(name)}.txt", _rows(results, name))
            listed.append(f"./{photo}\n")
        atomic.write_text(folder / "train.txt", "".join(listed))
        atomic.write_text(folder / "data.yaml", _yaml(results.table))


def _rows(results: Results, name: str) -> str:
    label = results.label(name)
    height, width = label.shape
    rows = []
    for region in regions(label, results.confidence(name)):
        points = polygon(region.inside)
        if points is not None:
            shares = (points + region.bbox[:2]) / (width, height)
            pairs = " ".join(f"{value:.6f}" for value in np.clip(shares, 0, 1).reshape(-1))
            rows.append(f"{region.class_id - 1} {pairs}\n")
    return "".join(rows)


def _yaml(table: ClassTable) -> str:
    # A JSON string is a YAML string, whatever is in it.
    names = "".join(f"  {i}: {json.dumps(name)}\n" for i, name in enumerate(table.names[1:]))
    return (
        "# Files are looked up beside this one; YOLO needs no `path` then.\n"
        "train: train.txt\n"
        "val: train.txt  # no truth: name a list of photos with masks of your own\n"
        f"names:\n{names}"
    )


def _link(link: Path, photo: Path) -> None:
    """Make a relative link, so that photos and results can move together."""
    link.parent.mkdir(parents=True, exist_ok=True)
    start = link.parent.resolve().parts
    target = (photo.parent.resolve() / photo.name).parts
    shared = 0
    while shared < min(len(start), len(target)) and start[shared] == target[shared]:
        shared += 1
    try:
        link.symlink_to(Path(*[".."] * (len(start) - shared), *target[shared:]))
    except OSError as error:
        raise DiskError(
            f"{link}: cannot be made a link to the photo ({error.strerror}); put --out on a disk "
            "that can hold links"
        ) from error
