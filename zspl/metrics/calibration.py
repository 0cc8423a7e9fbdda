"""How far a confidence can be believed: expected calibration error and reliability bins."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationMetrics:
    """Reliability of a confidence, over equal-width bins of [0, 1].

    `count` is in pixels; `confidence` and `accuracy` are means within a bin, in [0, 1], NaN
    for an empty bin; `ece` is the gap between the two averaged over pixels, NaN without any.
    """

    ece: float
    count: Int64[Tensor, " n"]
    confidence: Float[Tensor, " n"]
    accuracy: Float[Tensor, " n"]

    def as_json(self) -> dict[str, Any]:
        """Return the error and all bins as JSON values, None where a number is undefined."""
        bins = zip(
            self.count.tolist(), self.confidence.tolist(), self.accuracy.tolist(), strict=True
        )
        return {
            "ece": _number(self.ece),
            "reliability": [
                {
                    "pixels": pixels,
                    "confidence": _number(confidence),
                    "accuracy": _number(accuracy),
                }
                for pixels, confidence, accuracy in bins
            ],
        }


class Reliability:
    """Collects confidences and hits over many images, then compares the two.

    Expected calibration error (Naeini et al., AAAI 2015; Guo et al., ICML 2017, eq. 3):
    sum over bins m of |B_m| / n * |accuracy(B_m) - confidence(B_m)|. Bin m holds the
    confidences in (m / M, (m + 1) / M]; 0 belongs to the first bin.

    Example:
        >>> reliability = Reliability(num_bins=2)
        >>> reliability.update(torch.tensor([0.25, 1.0]), torch.tensor([False, True]))
        >>> reliability.compute().ece
        0.125
    """

    def __init__(self, num_bins: int = 10) -> None:
        if num_bins < 1:
            raise ValueError(f"num_bins must be at least 1, got {num_bins}")
        self._num_bins = num_bins
        self._count = torch.zeros(num_bins, dtype=torch.int64)
        self._hits = torch.zeros(num_bins, dtype=torch.float64)
        self._confidence = torch.zeros(num_bins, dtype=torch.float64)

    def update(
        self,
        confidence: Float[Tensor, " n"],
        correct: Bool[Tensor, " n"],
        pixels: Int64[Tensor, " n"] | None = None,
    ) -> None:
        """Add pixels.

        Args:
            confidence: Claimed probability of being right, in [0, 1].
            correct: Whether the claim was right.
            pixels: How many pixels each entry stands for; None: one.

        Raises:
            ValueError: if a confidence is outside [0, 1].
        """
        if confidence.numel() and not (confidence.min() >= 0 and confidence.max() <= 1):
            low, high = confidence.min().item(), confidence.max().item()
            raise ValueError(f"confidence must be in [0, 1], got {low:g} to {high:g}")
        exact = confidence.double()
        index = (exact * self._num_bins).ceil().long().sub(1).clamp_min(0)
        bins = self._num_bins
        weight = torch.ones_like(exact) if pixels is None else pixels.double()
        self._count += torch.bincount(index, weights=weight, minlength=bins).long()
        self._hits += torch.bincount(index, weights=weight * correct, minlength=bins)
        self._confidence += torch.bincount(index, weights=weight * exact, minlength=bins)

    def compute(self) -> CalibrationMetrics:
        """Return the error and the bins over all pixels added so far."""
        confidence = self._confidence / self._count
        accuracy = self._hits / self._count
        gap = (self._hits - self._confidence).abs().sum() / self._count.sum()
        return CalibrationMetrics(
            ece=gap.item(),
            count=self._count.clone(),
            confidence=confidence,
            accuracy=accuracy,
        )


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
