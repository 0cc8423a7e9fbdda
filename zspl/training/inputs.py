"""What is odd, though not wrong, about the images that a training starts with."""

import logging
from collections.abc import Mapping

import numpy as np

from zspl.io import processes
from zspl.io.classes import ClassTable, load_label
from zspl.io.images import read_image
from zspl.records import ImageRecord, Split
from zspl.settings import Train

LOG = logging.getLogger("zspl.training")


def warn(
    split: Split,
    records: Mapping[str, ImageRecord],
    table: ClassTable,
    recipe: Train,
    *,
    needs: frozenset[str],
) -> None:
    """Say, a line each, which lists are shorter than a batch and which classes no mask shows.

    Raises:
        DataError: if a labeled image or its mask is missing, unreadable or wrong.
    """
    if not processes.is_first():
        return
    batches = {"labeled": recipe.batch_labeled, "unlabeled": recipe.batch_unlabeled}
    for part in sorted(needs & batches.keys()):
        images = len(getattr(split, part))
        if images < batches[part]:
            LOG.warning(
                "split %s: %d %s image(s) for a batch of %d, so a step meets an image more than "
                "once; lower train.batch_%s or take a larger split",
                *(split.name, images, part, batches[part], part),
            )
    missing = missing_classes(split, records, table)
    if missing:
        LOG.warning(
            "split %s: no mask of the %d labeled image(s) shows %s, so masks cannot teach it; take "
            "a larger split or a method with zero-shot labels",
            *(split.name, len(split.labeled), ", ".join(map(repr, missing))),
        )


def missing_classes(
    split: Split, records: Mapping[str, ImageRecord], table: ClassTable
) -> tuple[str, ...]:
    """Return the names of the classes that occur in no mask of the labeled images.

    Raises:
        DataError: if a labeled image or its mask is missing, unreadable or wrong.
    """
    missing = set(range(table.num_classes))
    for image_id in split.labeled:
        if not missing:
            break
        record = records[image_id]
        label = load_label(record, table, read_image(record.image_path).size)
        missing -= set(np.unique(label).tolist())
    return tuple(table.names[k] for k in sorted(missing))
