"""Which confusion of two classes costs the most mIoU."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Int64
from torch import Tensor

SILENCE = "(no label)"
"""What a pixel is called for which nothing is claimed."""

KEPT = 10
"""Confusions that a score file keeps, the dearest first."""


def dearest_confusions(
    confusion: Int64[Tensor, "C K"], names: Sequence[str], *, kept: int = KEPT
) -> list[dict[str, Any]]:
    """Return the confusions whose correction would raise mIoU the most.

    Args:
        confusion: Pixels of each true class (row) by what they were called; a column beyond the
            classes counts pixels that were called nothing.
        names: Class names by class id.
        kept: How many to return at most.

    Returns:
        `truth` and `called` (names), `share` of the true class's pixels in [0, 1], and `gain`: by
        how much mIoU, in [0, 1], would rise if these pixels alone were right.

    Example:
        >>> import torch
        >>> found = dearest_confusions(torch.tensor([[3, 1], [0, 4]]), ("cat", "dog"))
        >>> found[0]["called"], found[0]["share"], round(found[0]["gain"], 3)
        ('dog', 0.25, 0.225)
    """
    counts = confusion.double()
    classes = len(names)
    truth, hits = counts.sum(dim=1), counts.diagonal()[:classes]
    union = truth + counts.sum(dim=0)[:classes] - hits
    known = int((union > 0).sum())
    found = []
    for row, column in (counts > 0).nonzero().tolist():
        if row == column:
            continue
        pixels = counts[row, column]
        gain = pixels / union[row]
        if column < classes:
            left = union[column] - pixels
            # With nothing left of it, the class would drop out of the mean: no gain of its own.
            gain = gain + (hits[column] / left - hits[column] / union[column] if left > 0 else 0)
        found.append(
            {
                "truth": names[row],
                "called": names[column] if column < classes else SILENCE,
                "share": (pixels / truth[row]).item(),
                "gain": (gain / known).item(),
            }
        )
    return sorted(found, key=lambda entry: -entry["gain"])[:kept]
