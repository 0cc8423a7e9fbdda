"""COCO instances: one annotation per connected region, with compressed run lengths.

Unlike COCO, an image has the key `unclaimed` where pixels are 255: their run lengths, so that the
label map can be had back (0, then the annotations, then 255). Tools that do not know the key
pass over it.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from zspl.annotation.exports._folder import whole
from zspl.annotation.exports._regions import mask_counts, regions
from zspl.annotation.results import Results
from zspl.io import atomic
from zspl.observer import progress
from zspl.records import IGNORE_INDEX

FILE = "instances.json"

README = """COCO instances, written by zspl.

instances.json      images, annotations and categories; masks are pycocotools run lengths.

    from pycocotools.coco import COCO
    coco = COCO("instances.json")
    mask = coco.annToMask(coco.loadAnns(coco.getAnnIds(imgIds=1))[0])

file_name is relative to the folder of photos. An annotation is one connected region of a class
(pixels that touch at a corner belong together); score is its mean confidence in [0, 1].
category_id is the class id of the label maps. Background has no annotation, and neither has what
is not claimed (255): an image's key "unclaimed" holds the run lengths of those pixels.
Width, height and masks are those of the upright photo: readers that ignore the EXIF orientation
must turn it first.
"""


def export(results: Results, to: Path) -> None:
    """Write OUT/exports/coco/instances.json.

    Raises:
        DataError: if a label map is gone.
        DiskError: if the folder cannot be written.
    """
    with whole(to, readme=README) as folder:
        atomic.write(folder / FILE, lambda path: _write(results, path))


def _write(results: Results, path: Path) -> None:
    with path.open("w", encoding="ascii", newline="\n") as file:
        file.write('{"annotations": [')
        images = _write_annotations(results, file)
        rest = {"categories": _categories(results), "images": images, "info": _info()}
        file.write("\n], " + json.dumps(rest, sort_keys=True)[1:] + "\n")


def _write_annotations(results: Results, file: TextIO) -> list[dict[str, Any]]:
    """Write the annotations of one image after the other and return the images."""
    names = results.names()
    images: list[dict[str, Any]] = []
    written = 0
    for image_id, name in enumerate(progress(names, what="coco", total=len(names)), start=1):
        facts, label = results.facts(name), results.label(name)
        size = label.shape
        for region in regions(label, results.confidence(name)):
            annotation = {
                "id": written + 1,
                "image_id": image_id,
                "category_id": region.class_id,
                "segmentation": _rle(region.counts, size),
                "area": region.area,
                "bbox": region.bbox,
                "iscrowd": 0,
                "score": round(region.confidence, 4),
            }
            file.write((",\n" if written else "\n") + json.dumps(annotation))
            written += 1
        image = {"id": image_id, "file_name": facts.source, "width": size[1], "height": size[0]}
        unclaimed = label == IGNORE_INDEX
        if unclaimed.any():
            image["unclaimed"] = _rle(mask_counts(unclaimed), size)
        images.append(image)
    return images


def _rle(counts: Sequence[int], size: tuple[int, ...]) -> dict[str, Any]:
    from pycocotools import mask

    height, width = size
    packed: Mapping[str, Any] = mask.frPyObjects(
        {"counts": counts, "size": [height, width]}, height, width
    )
    return {"size": [height, width], "counts": packed["counts"].decode("ascii")}


def _categories(results: Results) -> list[dict[str, Any]]:
    names = results.table.names
    return [{"id": i, "name": name} for i, name in enumerate(names) if i > 0]


def _info() -> dict[str, str]:
    return {"description": "Pseudo labels made by zspl from class names; not checked by people"}
