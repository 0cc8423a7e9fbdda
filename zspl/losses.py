"""The losses of the training methods, on logits and label maps (methods.md 2.3, 2.6)."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from zspl.records import IGNORE_INDEX


def pixel_cross_entropy(
    logits: Float[Tensor, "B C H W"], label: Int64[Tensor, "B H W"]
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy over the pixels whose label is not 255; 0 if there is none."""
    total = F.cross_entropy(logits, label, ignore_index=IGNORE_INDEX, reduction="sum")
    return total / (label != IGNORE_INDEX).sum().clamp(min=1)


def consistency_loss(
    logits: Float[Tensor, "B C H W"],
    label: Int64[Tensor, "B H W"],
    confidence: Float[Tensor, "B H W"],
    padding: Bool[Tensor, "B H W"],
    *,
    min_confidence: float,
) -> Float[Tensor, ""]:
    """Return UniMatch's loss of one stream (methods.md 2.3, step 6).

    Pixels of low confidence add nothing but are counted: the sum is divided by the number of
    pixels that are not padding, so that few confident pixels give a small loss.

    Args:
        logits: Of the stream that learns.
        label: Class ids predicted on the weak view.
        confidence: Highest softmax probability on the weak view, in [0, 1].
        padding: True where the crop reaches beyond the image.
        min_confidence: Lowest confidence that teaches; a pixel exactly at it does.
    """
    per_pixel = F.cross_entropy(logits, label, ignore_index=IGNORE_INDEX, reduction="none")
    teaches = (confidence >= min_confidence) & ~padding
    return (per_pixel * teaches).sum() / (~padding).sum().clamp(min=1)


def confidence_and_label(
    logits: Float[Tensor, "B C H W"],
) -> tuple[Float[Tensor, "B H W"], Int64[Tensor, "B H W"]]:
    """Return each pixel's highest softmax probability, in [0, 1], and its class id, detached."""
    confidence, label = logits.detach().softmax(dim=1).max(dim=1)
    return confidence, label


def enhanced_label(
    zero_shot: Int64[Tensor, "B H W"],
    logits_weak: Float[Tensor, "B C H W"],
    *,
    min_confidence: float,
) -> Int64[Tensor, "B H W"]:
    """Return the zero-shot label where the model is unsure, the model's own elsewhere (eq. 7).

    Args:
        zero_shot: Class ids, 255 where nothing is claimed; 255 stays where the model is unsure.
        logits_weak: The model's logits of the weak view; no gradient flows into them.
        min_confidence: Softmax probability from which the model is believed, inclusive.
    """
    confidence, label = confidence_and_label(logits_weak)
    return torch.where(confidence < min_confidence, zero_shot, label)


def smoothed_cross_entropy(
    logits: Float[Tensor, "B C H W"],
    label: Int64[Tensor, "B H W"],
    valid: Bool[Tensor, "B H W"],
    *,
    smoothing: float,
) -> Float[Tensor, ""]:
    """Return the label-smoothed cross-entropy (eq. 8): 1-s on the label, s/(C-1) on the others.

    The formula is lost in the paper's text; PyTorch's `label_smoothing=e` puts e/C on all
    classes instead and equals this loss at s = e (C-1)/C (methods.md 2.6).

    Args:
        logits: Of the stream that learns, 2 or more classes.
        label: Class ids, 255 where nothing is claimed.
        valid: False where a pixel is left out, as in the padding.
        smoothing: Probability taken off the label, in [0, 1).

    Returns:
        The mean over the valid pixels whose label is not 255; 0 if there is none.
    """
    log_probability = logits.log_softmax(dim=1)
    counted = valid & (label != IGNORE_INDEX)
    target = label.masked_fill(~counted, 0).unsqueeze(1)
    on_label = -log_probability.gather(1, target).squeeze(1)
    on_others = -log_probability.sum(dim=1) - on_label
    per_pixel = (1 - smoothing) * on_label + smoothing / (logits.shape[1] - 1) * on_others
    return (per_pixel * counted).sum() / counted.sum().clamp(min=1)
