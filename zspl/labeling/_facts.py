"""What tells whether an image's labels deserve doubt, without knowing the truth."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor


def coverage(masks: Bool[Tensor, "N H W"]) -> float:
    """Return the share of pixels in at least one segment, in [0, 1]."""
    covered = torch.zeros(masks.shape[1:], dtype=torch.bool)
    for mask in masks:
        covered |= mask
    return covered.double().mean().item()


def conflict(masks: Bool[Tensor, "N H W"], best_classes: Sequence[int]) -> float:
    """Return the share of pixels in segments whose best classes differ, in [0, 1].

    Args:
        masks: The segments of one image.
        best_classes: The class id that each segment would get, in the same order.

    Raises:
        ValueError: if there are not as many classes as segments.
    """
    if len(masks) != len(best_classes):
        raise ValueError(f"expected {len(masks)} classes, got {len(best_classes)}")
    claims: UInt8[Tensor, "H W"] = torch.zeros(masks.shape[1:], dtype=torch.uint8)
    for class_id in sorted(set(best_classes)):
        claimed = torch.zeros(masks.shape[1:], dtype=torch.bool)
        for mask, own in zip(masks, best_classes, strict=True):
            if own == class_id:
                claimed |= mask
        claims += claimed
    return (claims > 1).double().mean().item()


def doubt(confidence: Float[Tensor, "H W"]) -> float:
    """Return the mean over pixels of 1 - confidence, in [0, 1]."""
    return 1 - confidence.double().mean().item()
