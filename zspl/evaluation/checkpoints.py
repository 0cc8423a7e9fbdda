"""Scoring a segmentation model on photos at their original size."""

from collections.abc import Callable, Mapping, Sequence

from PIL import Image
from torch import Tensor

from zspl.io.classes import ClassTable, load_label
from zspl.io.images import Pixels, read_image
from zspl.metrics import ConfusionMatrix
from zspl.observer import progress
from zspl.records import ImageRecord, SegmentationMetrics

Predictor = Callable[[Image.Image], Tensor]


def score_images(
    predict: Predictor,
    records: Sequence[ImageRecord],
    *,
    table: ClassTable,
    keep: frozenset[str],
    what: str,
) -> tuple[SegmentationMetrics, Mapping[str, Pixels]]:
    """Predict every photo once and pool the result.

    Args:
        predict: Photo -> UInt8[H W] class ids at the photo's size, on the CPU.
        records: Photos with masks.
        table: The data set's classes.
        keep: Ids whose predictions are wanted back.
        what: Title of the progress bar.

    Raises:
        DataError: if a photo or a mask is missing, unreadable or of another size.
    """
    confusion = ConfusionMatrix(table.num_classes)
    kept: dict[str, Pixels] = {}
    for record in progress(records, what=what, total=len(records)):
        image = read_image(record.image_path)
        truth = load_label(record, table, image.size)
        prediction = predict(image)
        confusion.update(prediction, truth)
        if record.image_id in keep:
            kept[record.image_id] = prediction.numpy()
    return confusion.compute(), kept


def sample_ids(ids: Sequence[str], count: int) -> tuple[str, ...]:
    """Return at most `count` ids spread evenly over the list.

    Example:
        >>> sample_ids("abcdefgh", 3)
        ('a', 'c', 'f')
    """
    if len(ids) <= count:
        return tuple(ids)
    return tuple(ids[index * len(ids) // count] for index in range(count))
