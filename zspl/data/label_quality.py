"""How right the pseudo labels of labeled images are, by class and confidence."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from zspl.data.stock import Stock
from zspl.errors import DataError
from zspl.io.classes import ClassTable
from zspl.records import IGNORE_INDEX, ImageRecord

LEVELS = 256
"""Confidences are kept in 8 bits: level / 255."""

NEVER = 2.0
"""A confidence that no label reaches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelQuality:
    """Pixels of pseudo labels on images with masks, by claimed class and confidence level.

    `right` counts those whose mask agrees, `wrong` the others; void pixels are in neither.
    `claims[t, p]` counts pixels of true class t that are labeled p, unclaimed ones (255) in the
    last column, and `images` the images that show each class.
    """

    right: Int64[Tensor, "C 256"]
    wrong: Int64[Tensor, "C 256"]
    claims: Int64[Tensor, "C D"]
    images: Int64[Tensor, " C"]

    def min_confidences(self, precision: float) -> Float[Tensor, " C"]:
        """Return the lowest confidence from which on a class's labels are right often enough.

        For class c, the least t in {0, 1/255, ..., 1} such that, of the pixels labeled c with a
        confidence of t or more, at least `precision` are right; 2, which no confidence reaches,
        where there is no such t, as for a class that no labeled image's label claims.

        Args:
            precision: The share that must be right, in [0, 1].
        """
        right, wrong = (counts.flip(1).cumsum(1).flip(1) for counts in (self.right, self.wrong))
        claimed = right + wrong
        enough = (right >= precision * claimed) & (claimed > 0)
        lowest = enough.int().argmax(dim=1).float() / (LEVELS - 1)
        return torch.where(enough.any(dim=1), lowest, NEVER)

    def log_likelihood(self) -> Float[Tensor, "D C"]:
        """Return log P(claim p | true class t) at [p, t]; unclaimed (255) is the last row.

        The counted shares of a class are mixed with a common belief that weighs as much as one
        image: a claim is right as often as on average over the classes seen, and wrong claims
        are equally likely. A class that no image shows has that belief alone.
        """
        classes = len(self.images)
        pixels = self.claims.sum(dim=1)
        found = self.claims / pixels.clamp(min=1)[:, None]
        seen = pixels > 0
        right = found.diagonal()[seen].mean() if seen.any() else torch.tensor(0.5)
        right = right.clamp(1 / (classes + 1), 1 - 1e-3)
        belief = ((1 - right) / classes).expand(classes, classes + 1).clone()
        belief.diagonal().fill_(right)
        images = self.images[:, None]
        return ((images * found + belief) / (images + 1)).log().T.contiguous()


def measure(
    records: Sequence[ImageRecord], table: ClassTable, *, pseudo_labels: Path
) -> LabelQuality:
    """Compare the pseudo labels of images with their masks, at original size.

    Args:
        records: Images with masks.
        table: The classes.
        pseudo_labels: The folder with `<image id>.png` and `<image id>.confidence.png`.

    Raises:
        DataError: if a mask, a pseudo label or its confidence is missing or does not fit.
    """
    stock = Stock({r.image_id: r for r in records}, table, pseudo_labels=pseudo_labels, capacity=0)
    classes = table.num_classes
    counts = np.zeros((2, classes * LEVELS), np.int64)
    claims, images = np.zeros(classes * (classes + 1), np.int64), np.zeros(classes, np.int64)
    for record in records:
        if not stock.pseudo_label_path(record.image_id).is_file():
            raise DataError(
                f"{stock.pseudo_label_path(record.image_id)}: a labeled image has no pseudo label, "
                "but the method compares it with the mask; label it, too, or unset min_precision "
                "and evidence"
            )
        truth, claim = stock.label(record.image_id), stock.pseudo_label(record.image_id)
        cell = claim.astype(np.int64) * LEVELS + stock.confidence(record.image_id)
        known = (truth != IGNORE_INDEX) & (claim != IGNORE_INDEX)
        for row, chosen in enumerate((known & (truth == claim), known & (truth != claim))):
            counts[row] += np.bincount(cell[chosen], minlength=classes * LEVELS)
        true = truth[truth != IGNORE_INDEX].astype(np.int64)
        claimed = np.minimum(claim[truth != IGNORE_INDEX], classes)
        claims += np.bincount(true * (classes + 1) + claimed, minlength=claims.size)
        images[np.unique(true)] += 1
    right, wrong = torch.from_numpy(counts.reshape(2, classes, LEVELS))
    return LabelQuality(
        right=right,
        wrong=wrong,
        claims=torch.from_numpy(claims.reshape(classes, classes + 1)),
        images=torch.from_numpy(images),
    )
