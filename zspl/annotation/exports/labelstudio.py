"""Label Studio: tasks whose predictions are brush masks, and the labeling interface.

Label Studio stores a brush mask as the RGBA pixels, row by row, packed by thi.ng/rle-pack: 32
bits number of values, 5 bits word size - 1, four times 4 bits size of a run length field - 1; then
per run 1 bit (1: repeated), 2 bits which field size, the run length - 1, and the value. Here all
four channels are 255 inside the mask and 0 outside.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np
import numpy.typing as npt

from zspl.annotation.exports._folder import whole
from zspl.annotation.results import Results
from zspl.io import atomic
from zspl.io.classes import ClassTable
from zspl.io.images import Pixels
from zspl.observer import progress
from zspl.records import IGNORE_INDEX
from zspl.viz import class_colour

_WORD = 8
_FIELDS = (3, 4, 8, 16)
"""Bits of a run length field; a run of n values needs the first that holds n - 1."""

_PART_SIZE = 40_000_000
"""In bytes; Label Studio imports files of up to 50 MB."""

README = """Label Studio tasks with predictions, written by zspl.

1. Let Label Studio serve files below the folder that CONTAINS your folder of photos, and start it:
       LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true
       LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT=<folder above the photos>
2. New project; Settings > Labeling Interface > Code: paste labeling_config.xml.
3. Settings > Cloud Storage > Add Source Storage > Local files: the folder of photos. Do not sync:
   the tasks below name the photos.
4. Import tasks-001.json (and the next ones, if any).

The masks appear as predictions, one brush region per class; the score of a task is the mean
confidence, so sorting by prediction score puts the most doubtful photo first. Background and what
is not claimed (255) are both unpainted.
Photos are named relative to the document root, as <folder of photos>/<file>.
"""


def export(results: Results, to: Path) -> None:
    """Write OUT/exports/labelstudio: labeling_config.xml and tasks-001.json, tasks-002.json, ...

    Raises:
        DataError: if a label map is gone.
        DiskError: if the folder cannot be written.
    """
    with whole(to, readme=README) as folder:
        atomic.write_text(folder / "labeling_config.xml", _config(results.table))
        for number, part in enumerate(_parts(_tasks(results)), start=1):
            atomic.write_text(folder / f"tasks-{number:03}.json", part)


def brush_rle(mask: npt.NDArray[np.bool_]) -> list[int]:
    """Return a mask as the bytes of Label Studio's brush format.

    Args:
        mask: Bool[H W], at least one pixel.
    """
    flat = mask.reshape(-1)
    starts = np.concatenate(([0], np.flatnonzero(np.diff(flat)) + 1))
    lengths = np.diff(starts, append=flat.size) * 4
    values = flat[starts].astype(np.int64) * 255
    longest = 1 << _FIELDS[-1]
    pieces = -(-lengths // longest)
    values = np.repeat(values, pieces)
    counts = np.full(len(values), longest)
    counts[pieces.cumsum() - 1] = lengths - (pieces - 1) * longest
    field = np.searchsorted([1 << bits for bits in _FIELDS], counts)
    field_bits = np.array(_FIELDS)[field]
    codes = (((4 + field) << field_bits | (counts - 1)) << _WORD) | values
    header = ((flat.size * 4, 32), (_WORD - 1, 5), *((bits - 1, 4) for bits in _FIELDS))
    head_codes, head_widths = zip(*header, strict=True)
    return _packed(
        np.concatenate((head_codes, codes)),
        np.concatenate((head_widths, 3 + field_bits + _WORD)),
    )


def _packed(codes: npt.NDArray[np.int64], widths: npt.NDArray[np.int64]) -> list[int]:
    """Return numbers of the given widths in bits as bytes, highest bit first."""
    ends = widths.cumsum()
    bits = np.zeros(ends[-1], np.uint8)
    for place in range(int(widths.max())):
        has = widths > place
        bits[ends[has] - 1 - place] = (codes[has] >> place) & 1
    packed: list[int] = np.packbits(bits).tolist()
    return packed


def _tasks(results: Results) -> Iterator[str]:
    names = results.names()
    version = f"zspl {results.made_with().get('zspl', '')}".strip()
    folder = results.images.resolve().name
    for name in progress(names, what="labelstudio", total=len(names)):
        facts = results.facts(name)
        path = quote(f"{folder}/{facts.source}", errors="surrogateescape")
        prediction = {
            "model_version": version,
            "score": round(1 - facts.doubt, 4),
            "result": _result(results, name),
        }
        task = {"data": {"image": f"/data/local-files/?d={path}"}, "predictions": [prediction]}
        yield json.dumps(task, separators=(",", ":"))


def _result(results: Results, name: str) -> list[dict[str, Any]]:
    """Return one brush region per class in the photo."""
    label, confidence = results.label(name), results.confidence(name)
    ids = [i for i in np.unique(label).tolist() if i not in {0, IGNORE_INDEX}]
    return [
        {
            "id": hashlib.sha256(f"{name!r} {class_id}".encode()).hexdigest()[:10],
            "type": "brushlabels",
            "from_name": "label",
            "to_name": "image",
            "original_width": label.shape[1],
            "original_height": label.shape[0],
            "image_rotation": 0,
            "score": _score(confidence, label == class_id),
            "value": {
                "format": "rle",
                "rle": brush_rle(label == class_id),
                "brushlabels": [results.table.names[class_id]],
            },
        }
        for class_id in ids
    ]


def _score(confidence: Pixels, mask: npt.NDArray[np.bool_]) -> float:
    return round(float(confidence[mask].mean()) / 255, 4)


def _parts(tasks: Iterator[str]) -> Iterator[str]:
    """Yield JSON lists of tasks that are small enough to import."""
    held: list[str] = []
    size = 0
    for task in tasks:
        if held and size + len(task) > _PART_SIZE:
            yield _list(held)
            held, size = [], 0
        held.append(task)
        size += len(task) + 2
    yield _list(held)


def _list(tasks: list[str]) -> str:
    return "[\n" + ",\n".join(tasks) + "\n]\n"


def _config(table: ClassTable) -> str:
    labels = "".join(
        f'    <Label value={quoteattr(name)} background="#{bytes(class_colour(i)).hex()}"/>\n'
        for i, name in enumerate(table.names)
        if i > 0
    )
    return (
        "<View>\n"
        '  <Image name="image" value="$image" zoom="true" zoomControl="true"/>\n'
        f'  <BrushLabels name="label" toName="image">\n{labels}  </BrushLabels>\n'
        "</View>\n"
    )
