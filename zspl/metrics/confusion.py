"""Mean intersection over union from one confusion matrix per split."""

import numpy as np
import torch
from jaxtyping import Int64, Integer
from torch import Tensor

from zspl.records import IGNORE_INDEX, SegmentationMetrics


class ConfusionMatrix:
    """Counts pixels of each true class per predicted class, over any number of images.

    Example:
        >>> matrix = ConfusionMatrix(2)
        >>> matrix.update(torch.tensor([[0, 1]]), torch.tensor([[0, 0]]))
        >>> matrix.compute().pixel_accuracy
        0.5
    """

    def __init__(self, num_classes: int, ignore_index: int = IGNORE_INDEX) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self._counts = np.zeros((num_classes, num_classes), dtype=np.int64)

    def update(
        self,
        prediction: Integer[Tensor | np.ndarray, "*shape"],
        label: Integer[Tensor | np.ndarray, "*shape"],
    ) -> None:
        """Add one or more images; pixels whose label is `ignore_index` are skipped.

        Raises:
            ValueError: if the shapes differ or a counted pixel holds no class id.
        """
        predicted, true = _flat(prediction), _flat(label)
        if tuple(prediction.shape) != tuple(label.shape):
            raise ValueError(
                f"prediction has shape {tuple(prediction.shape)}, label {tuple(label.shape)}"
            )
        counted = true != self.ignore_index
        predicted, true = predicted[counted], true[counted]
        for name, ids in (("prediction", predicted), ("label", true)):
            if ids.size and not 0 <= ids.min() <= ids.max() < self.num_classes:
                raise ValueError(
                    f"{name} holds {ids.min()}..{ids.max()}, expected class ids "
                    f"0..{self.num_classes - 1}"
                )
        codes = true.astype(np.int64) * self.num_classes + predicted
        size = self.num_classes**2
        self._counts += np.bincount(codes, minlength=size).reshape(self._counts.shape)

    def add(self, counts: Int64[Tensor, "C C"]) -> None:
        """Add the `counts` of another matrix of the same classes."""
        self._counts += counts.cpu().numpy()

    @property
    def counts(self) -> Int64[Tensor, "C C"]:
        """Pixels of true class (row) predicted as class (column)."""
        return torch.from_numpy(self._counts.copy())

    def compute(self) -> SegmentationMetrics:
        """Return the scores of all pixels so far."""
        counts = self.counts.double()
        hits, true, predicted = counts.diagonal(), counts.sum(dim=1), counts.sum(dim=0)
        iou = hits / (true + predicted - hits)  # 0/0 is NaN: the class occurs nowhere
        return SegmentationMetrics(
            confusion=self.counts,
            iou=iou,
            precision=hits / predicted,
            recall=hits / true,
            miou=float(iou.nanmean()),
            miou_absent_zero=float(iou.nan_to_num(0.0).mean()),
            pixel_accuracy=float(hits.sum() / counts.sum()),
        )


def _flat(ids: Tensor | np.ndarray) -> np.ndarray:
    array: np.ndarray = ids.cpu().numpy() if isinstance(ids, Tensor) else ids
    return array.reshape(-1)
