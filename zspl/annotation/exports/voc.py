"""PASCAL VOC layout: photos, palette masks and a list, which the data set pascal_voc reads.

Where every class is one of VOC's, masks use VOC's own values (cat is 8), so that
`prepare.dataset: {name: pascal_voc, classes: [...]}` finds them; otherwise they keep the class
ids of the label maps. README.txt in the folder says which.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from zspl.annotation.exports._folder import flat, whole
from zspl.annotation.results import Results
from zspl.datasets.pascal_voc import PROMPTS, SUFFIXES
from zspl.errors import DataError
from zspl.io import atomic
from zspl.io.classes import ClassTable
from zspl.io.images import is_turned, voc_palette, write_label
from zspl.io.splits import write_ids
from zspl.observer import progress
from zspl.records import IGNORE_INDEX
from zspl.viz import write_png

README = """PASCAL VOC layout, written by zspl.

JPEGImages/                            the photos, copied; turned by EXIF, or neither JPEG nor PNG:
                                       as upright PNG, since many readers turn nothing
SegmentationClass/                     palette PNG, one mask value per pixel, 255: not claimed
ImageSets/Segmentation/train.txt       the ids of all photos
labelmap.txt                           name:red,green,blue:: of each value, as CVAT reads it

An id is the photo's name with / as %2F; % itself and what cannot be printed are percent-encoded,
too, so that two photos never share an id.

Mask values:
{values}
{training}
These labels were made by a model. To score a training, add photos with masks of your own and
list their ids in ImageSets/Segmentation/val.txt.
"""

_TRAINING = """
To train on them with zspl, in params.yaml:

    paths: {{source: <this folder>}}
    prepare:
      dataset: {{name: pascal_voc, classes: [{classes}], train_list: train.txt, val_list: val.txt}}
      splits: [train.txt]
"""

_NO_TRAINING = """
Not all of these are classes of PASCAL VOC, so the values are the class ids of the label maps; the
data set pascal_voc of zspl reads VOC's own classes only.
"""


def export(results: Results, to: Path) -> None:
    """Write OUT/exports/voc: JPEGImages, SegmentationClass, ImageSets and labelmap.txt.

    Raises:
        DataError: if a label map or photo is gone.
        DiskError: if the folder cannot be written.
    """
    values = mask_values(results.table)
    table = np.full(256, IGNORE_INDEX, np.uint8)
    table[list(values)] = list(values.values())
    names = results.names()
    with whole(to, readme=_readme(results.table, values)) as folder:
        for name in progress(names, what="voc", total=len(names)):
            image_id = flat(name)
            _copy_photo(results, name, folder / "JPEGImages" / image_id)
            mask = folder / "SegmentationClass" / f"{image_id}.png"
            write_label(mask, table[results.label(name)])
        ids = sorted(flat(name) for name in names)
        write_ids(folder / "ImageSets" / "Segmentation" / "train.txt", ids)
        atomic.write_text(folder / "labelmap.txt", _labelmap(results.table, values))


def mask_values(table: ClassTable) -> Mapping[int, int]:
    """Return class id -> mask value: VOC's own if all classes are VOC's, else unchanged.

    Example:
        >>> table = ClassTable.plain(("background", "cat"), prompts=("cat",))
        >>> dict(mask_values(table))
        {0: 0, 1: 8}
    """
    voc = _voc_names(table)
    if voc is None:
        return {i: i for i in range(table.num_classes)}
    own = list(PROMPTS)
    return {0: 0} | {i: own.index(name) + 1 for i, name in enumerate(voc, start=1)}


def _voc_names(table: ClassTable) -> list[str] | None:
    """Return VOC's name of each class but the background, None unless VOC has them all."""
    known = {_key(text): name for name, prompt in PROMPTS.items() for text in (name, prompt)}
    found = [known.get(_key(name), "") for name in table.names[1:]]
    return found if all(found) and len(set(found)) == len(found) else None


def _key(name: str) -> str:
    return "".join(name.casefold().split())


def _copy_photo(results: Results, name: str, target: Path) -> None:
    photo = results.images / results.facts(name).source
    if not photo.is_file():
        raise DataError(f"{photo}: no such photo; put it back or run zspl annotate again")
    suffix = PurePosixPath(photo.name).suffix.lower()
    if suffix not in SUFFIXES or is_turned(photo):
        write_png(target.with_name(f"{target.name}.png"), results.image(name))
        return
    copy = target.with_name(f"{target.name}{suffix}")
    atomic.write(copy, lambda path: (shutil.copyfile(photo, path), None)[1])


def _readme(table: ClassTable, values: Mapping[int, int]) -> str:
    lines = [f"{value:3}  {table.names[i]}" for i, value in values.items()]
    voc = _voc_names(table)
    training = _NO_TRAINING if voc is None else _TRAINING.format(classes=", ".join(voc))
    return README.format(values="\n".join(lines), training=training)


def _labelmap(table: ClassTable, values: Mapping[int, int]) -> str:
    palette = voc_palette()
    lines = ["# label:color_rgb:parts:actions"]
    for i, value in values.items():
        colour = ",".join(str(c) for c in palette[3 * value : 3 * value + 3])
        lines.append(f"{table.names[i].replace(':', ' ')}:{colour}::")
    return "\n".join(lines) + "\n"
