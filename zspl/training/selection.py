"""Choosing the best model of a training: on a labeled hold-out, on val as papers do, or not."""

from collections.abc import Sequence
from dataclasses import dataclass

from zspl.errors import DataError
from zspl.inference import predictor
from zspl.io import processes
from zspl.io.classes import ClassTable, load_label
from zspl.io.images import read_image
from zspl.io.records import check_files
from zspl.metrics import ConfusionMatrix
from zspl.models import SegmentationNetwork
from zspl.records import ImageRecord, Split


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """The images that choose the best model; none with `selection: last`.

    `window` is that of the section `evaluate`; its sizes and mirror images take part in no choice.
    """

    name: str
    records: Sequence[ImageRecord]
    table: ClassTable
    window: int | None = None

    def score(self, model: SegmentationNetwork) -> float:
        """Return the mIoU in [0, 1] at original image size; the model ends in training mode.

        Several processes predict a share of the images each, and count every image once.

        Raises:
            DataError: if an image or its mask is missing or wrong.
        """
        matrix, pooled = (ConfusionMatrix(self.table.num_classes) for _ in range(2))
        model.eval()
        predict = predictor(model, window=self.window)
        for record in processes.share(self.records):
            image = read_image(record.image_path)
            matrix.update(predict(image), load_label(record, self.table, image.size))
        model.train()
        device = next(model.parameters()).device
        pooled.add(processes.total(matrix.counts.to(device)))
        return pooled.compute().miou


def choose(
    name: str,
    split: Split,
    *,
    records: dict[str, ImageRecord],
    table: ClassTable,
    window: int | None = None,
) -> Selection:
    """Return the selection that `train.selection` names, which looks through `evaluate.window`.

    Raises:
        DataError: if its list is empty, or an image or mask of it is missing.
    """
    ids = {"holdout": split.holdout, "val": split.val, "last": ()}[name]
    if not ids and name != "last":
        raise DataError(
            f"split {split.name}: train.selection is {name} but the split has no {name} images; "
            "raise prepare.holdout or set train.selection to last"
        )
    chosen = [records[image_id] for image_id in ids]
    check_files(chosen, masks=True)
    return Selection(name=name, records=chosen, table=table, window=window)
