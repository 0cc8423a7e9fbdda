"""What is looked up before the first batch: a missing file must not stop a long training."""

from collections.abc import Mapping

from zspl.data.stock import Stock
from zspl.errors import DataError
from zspl.io.records import check_files
from zspl.records import ImageRecord, Split


def check_images(records: Mapping[str, ImageRecord], split: Split) -> None:
    """Check that all images to train on are there, the labeled ones with masks.

    Raises:
        DataError: if one is missing.
    """
    for image_id in (*split.labeled, *split.unlabeled):
        if image_id not in records:
            raise DataError(
                f"split {split.name}: the data set has no image {image_id!r}; run prepare again"
            )
    for image_id in split.labeled:
        if records[image_id].label_path is None:
            raise DataError(f"split {split.name}: labeled image {image_id!r} has no mask; add it")
    check_files((records[image_id] for image_id in split.labeled), masks=True)
    check_files((records[image_id] for image_id in split.unlabeled), masks=False)


def check_labels(stock: Stock, split: Split) -> None:
    """Check that every unlabeled image has a pseudo label.

    Raises:
        DataError: if one is missing.
    """
    for image_id in split.unlabeled:
        path = stock.pseudo_label_path(image_id)
        if not path.is_file():
            raise DataError(f"{path}: no such pseudo label; run the stage label for its variant")


def check_confidences(stock: Stock, split: Split) -> None:
    """Check that the pseudo label of every unlabeled image says how sure it is.

    Raises:
        DataError: if a confidence is missing.
    """
    for image_id in split.unlabeled:
        path = stock.confidence_path(image_id)
        if not path.is_file():
            raise DataError(
                f"{path}: no such confidence of a pseudo label; run the stage label for its variant"
            )
