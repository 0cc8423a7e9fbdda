"""COCO's instance annotations as label maps: who wins where instances overlap, and crowds.

How the masks of the published semi-supervised results were painted is not stated. Their list of
classes is that of COCO-Stuff, whose maps know no third state for a crowd, so a crowd is painted
as its class unless the settings say otherwise.
"""

import contextlib
import io
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from zspl.errors import DataError
from zspl.io.images import Pixels
from zspl.records import IGNORE_INDEX
from zspl.settings import Section

Bits = npt.NDArray[np.bool_]

SMALLEST_POLYGON = 6
"""Numbers of a triangle; pycocotools takes four numbers for a box."""


class Rules(Section):
    """How instances become one label map."""

    crowd: Literal["class", "ignore"] = Field(
        default="class",
        description="A crowd region becomes its class, or 255; it lies below every instance.",
    )
    overlap: Literal["smallest", "last", "first", "ignore"] = Field(
        default="smallest",
        description="Which instance has a pixel that several claim: the smallest (the cup on the "
        "table), the last or the first of the file; ignore: 255 where their classes differ.",
    )
    bad_polygons: Literal["refuse", "skip"] = Field(
        default="refuse", description="What happens to a polygon of fewer than three points."
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Instance:
    """One annotated thing or crowd: its class id (1, 2, ...) and its pixels, Bool[H W]."""

    class_id: int
    crowd: bool
    mask: Bits


def paint(instances: Sequence[Instance], size: tuple[int, int], rules: Rules) -> Pixels:
    """Return UInt8[H W] class ids, 0 where there is no instance.

    Args:
        instances: In the order of the file.
        size: (height, width) in pixels.
        rules: Who wins a pixel.
    """
    label = np.zeros(size, np.uint8)
    for crowd in _bottom_to_top([i for i in instances if i.crowd], rules.overlap):
        label[crowd.mask] = crowd.class_id if rules.crowd == "class" else IGNORE_INDEX
    things = [instance for instance in instances if not instance.crowd]
    for thing in _bottom_to_top(things, rules.overlap):
        label[thing.mask] = thing.class_id
    if rules.overlap == "ignore":
        label[_disputed(things, size)] = IGNORE_INDEX
    return label


def _bottom_to_top(instances: Sequence[Instance], overlap: str) -> Sequence[Instance]:
    """Order instances as they are painted: the winner is the last; equals keep their order."""
    if overlap == "smallest":
        return sorted(instances, key=lambda instance: -int(instance.mask.sum()))
    return instances[::-1] if overlap == "first" else instances


def _disputed(things: Sequence[Instance], size: tuple[int, int]) -> Bits:
    """Return Bool[H W]: where instances of different classes overlap."""
    claimed = np.zeros(size, np.uint8)
    disputed = np.zeros(size, bool)
    for thing in things:
        disputed |= thing.mask & (claimed != 0) & (claimed != thing.class_id)
        claimed[thing.mask] = thing.class_id
    return disputed


class Annotations:
    """One instances_<part>.json, indexed by pycocotools.

    Args:
        path: The file.
        classes: Category id of the file -> class id.

    Raises:
        DataError: if the file is missing, is no such JSON, or an annotation names an image or a
            category that does not exist.
    """

    def __init__(self, path: Path, *, classes: Mapping[int, int]) -> None:
        from pycocotools.coco import COCO

        self._path = path
        self._classes = classes
        self._coco = COCO()
        self._coco.dataset = _read(path)
        try:
            # createIndex prints what it does.
            with contextlib.redirect_stdout(io.StringIO()):
                self._coco.createIndex()
            self._check()
            self._numbers = {
                Path(image["file_name"]).stem: number for number, image in self._coco.imgs.items()
            }
        except (KeyError, TypeError) as error:
            raise DataError(
                f"{path}: is no file of COCO instances (missing or wrong: {error}); download it "
                "again"
            ) from error

    @property
    def image_ids(self) -> tuple[str, ...]:
        """The images of the file, by the stem of their file name, in its order."""
        return tuple(self._numbers)

    def classes_of(self, image_id: str) -> frozenset[int]:
        """Return the class ids of an image's instances, crowds included."""
        found = self._coco.imgToAnns.get(self._numbers[image_id], ())
        return frozenset(self._classes[annotation["category_id"]] for annotation in found)

    def label(self, image_id: str, rules: Rules) -> Pixels:
        """Return the label map of an image as UInt8[H W] class ids.

        Raises:
            DataError: if a polygon or a run-length code is wrong.
        """
        image = self._coco.imgs[self._numbers[image_id]]
        return paint(list(self._instances(image, rules)), (image["height"], image["width"]), rules)

    def _instances(self, image: Mapping[str, Any], rules: Rules) -> Iterator[Instance]:
        for annotation in self._coco.imgToAnns.get(image["id"], ()):
            shape = annotation.get("segmentation")
            where = f"{self._path}: annotation {annotation['id']} of {image['file_name']}"
            if isinstance(shape, list):
                shape = _polygons(shape, rules, where=where)
            else:
                _check_runs(shape, image, where=where)
            if shape:
                yield Instance(
                    class_id=self._classes[annotation["category_id"]],
                    crowd=bool(annotation.get("iscrowd", 0)),
                    mask=self._mask({**annotation, "segmentation": shape}, where=where),
                )

    def _mask(self, annotation: Mapping[str, Any], *, where: str) -> Bits:
        try:
            with warnings.catch_warnings():
                # pycocotools 2.0 has no `copy` argument of numpy 2's array protocol.
                warnings.simplefilter("ignore", DeprecationWarning)
                mask: Bits = self._coco.annToMask(annotation).astype(bool)
        except (ValueError, TypeError, IndexError) as error:
            raise DataError(f"{where}: its segmentation cannot be drawn ({error})") from error
        return mask

    def _check(self) -> None:
        for annotation in self._coco.dataset["annotations"]:
            number, category = annotation["id"], annotation["category_id"]
            if annotation["image_id"] not in self._coco.imgs:
                raise DataError(
                    f"{self._path}: annotation {number} names the image id "
                    f"{annotation['image_id']}, which the file does not list; download it again"
                )
            if category not in self._classes:
                raise DataError(
                    f"{self._path}: annotation {number} has the category id {category}, which "
                    "COCO does not use; for classes of your own paint masks and take the data "
                    "set folder"
                )


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: no such file of instances; unpack COCO's annotations into {path.parent}"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); download it again") from error
    if not isinstance(values, dict) or not {"images", "annotations"} <= set(values):
        raise DataError(
            f"{path}: is no file of COCO instances, expected the keys images and annotations; "
            "download it again"
        )
    return values


def _polygons(polygons: list[Any], rules: Rules, *, where: str) -> list[Any]:
    """Return the polygons that can be drawn."""
    kept = []
    for polygon in polygons:
        problem = _problem(polygon)
        if problem is None:
            kept.append(polygon)
        elif rules.bad_polygons == "refuse":
            raise DataError(
                f"{where}: bad polygon, {problem}; correct it, or set "
                "prepare.dataset.bad_polygons: skip"
            )
    return kept


def _problem(polygon: Any) -> str | None:  # noqa: ANN401 - a JSON value
    try:
        numbers = np.asarray(polygon, dtype=np.float64)
    except (TypeError, ValueError):
        return "expected numbers x, y, x, y, ..."
    if numbers.ndim != 1 or len(numbers) < SMALLEST_POLYGON or len(numbers) % 2:
        return f"expected at least {SMALLEST_POLYGON} numbers, two per point, got {numbers.size}"
    return None if np.isfinite(numbers).all() else "expected finite numbers"


def _check_runs(shape: Any, image: Mapping[str, Any], *, where: str) -> None:  # noqa: ANN401
    size = [image["height"], image["width"]]
    if not isinstance(shape, dict) or not {"counts", "size"} <= set(shape):
        raise DataError(f"{where}: has no segmentation, expected polygons or run lengths")
    counts = shape["counts"]
    covered = sum(counts) if isinstance(counts, list) else None
    if list(shape["size"]) != size or covered not in (None, size[0] * size[1]):
        raise DataError(
            f"{where}: run lengths are for {shape['size']} pixels and cover {covered}, expected "
            f"{size} (height, width); download the file again"
        )
