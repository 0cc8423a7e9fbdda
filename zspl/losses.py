"""The losses of the training methods, on logits and label maps (methods.md 2.3, 2.6)."""

from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from zspl.io import processes
from zspl.records import IGNORE_INDEX
from zspl.settings import Section


def pixels(counted: Bool[Tensor, "*shape"]) -> Shaped[Tensor, ""]:
    """Return what a sum over the counted pixels is divided by to be their mean, at least 1.

    Where several processes share a batch it is their mean number of pixels, so that the mean of
    the processes' losses is the loss of the whole batch.
    """
    found = processes.total(counted.sum()).clamp(min=1)
    return found if processes.count() == 1 else found / processes.count()


def count_classes(
    label: Int64[Tensor, "*shape"], counted: Bool[Tensor, "*shape"], *, classes: int
) -> Int64[Tensor, " classes"]:
    """Return the number of counted pixels of each class, on the labels' device, without a wait.

    Args:
        label: Class ids; what is not counted may hold anything.
        counted: False where a pixel is left out, as in the padding.
        classes: Background included.
    """
    ids = label.masked_fill(~counted, 0).flatten()
    return ids.new_zeros(classes).scatter_add_(0, ids, counted.flatten().long())


def pixel_cross_entropy(
    logits: Float[Tensor, "B C H W"], label: Int64[Tensor, "B H W"]
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy over the pixels whose label is not 255; 0 if there is none."""
    total = F.cross_entropy(logits, label, ignore_index=IGNORE_INDEX, reduction="sum")
    return total / pixels(label != IGNORE_INDEX)


def hard_cross_entropy(
    logits: Float[Tensor, "B C H W"],
    label: Int64[Tensor, "B H W"],
    *,
    threshold: float,
    min_kept: int,
    crops: int,
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy over the hardest pixels, OHEM of UniMatch (methods.md 2.3).

    A pixel is kept if the probability p of its label is at most max(`threshold`, the `min_kept`-th
    smallest p); all are kept where fewer than `min_kept` have a label. Pixels are ranked within
    groups of crops, as on the GPUs of the official code, and the groups' means are averaged: so
    the number of processes changes nothing as long as each has whole groups.

    Args:
        logits: Of the labeled crops.
        label: Class ids, 255 where there is none.
        threshold: Probability up to which a pixel is hard, in [0, 1].
        min_kept: Pixels of a group that are kept however easy they are, at least 1.
        crops: Of a group; the last one may have fewer.

    Returns:
        The loss; a group without a label adds 0 (NaN in the official code).
    """
    groups = zip(torch.split(logits, crops), torch.split(label, crops), strict=True)
    means = [_hard_mean(*group, threshold=threshold, min_kept=min_kept) for group in groups]
    return torch.stack(means).mean()


def _hard_mean(
    logits: Float[Tensor, "B C H W"],
    label: Int64[Tensor, "B H W"],
    *,
    threshold: float,
    min_kept: int,
) -> Float[Tensor, ""]:
    valid = label != IGNORE_INDEX
    target = label.masked_fill(~valid, 0).unsqueeze(1)
    p = logits.detach().softmax(dim=1).gather(1, target).squeeze(1).masked_fill(~valid, 1.0)
    smallest = p.flatten().kthvalue(min(min_kept, p.numel())).values
    limit = smallest.clamp(min=threshold).masked_fill(valid.sum() < min_kept, torch.inf)
    kept = valid & (p <= limit)
    per_pixel = F.cross_entropy(logits, label, ignore_index=IGNORE_INDEX, reduction="none")
    return (per_pixel * kept).sum() / kept.sum().clamp(min=1)


class CrossEntropy(Section):
    """Settings of the labeled loss: every labeled pixel counts the same (VOC and COCO)."""

    name: Literal["ce"] = "ce"

    def __call__(
        self, logits: Float[Tensor, "B C H W"], label: Int64[Tensor, "B H W"]
    ) -> Float[Tensor, ""]:
        """Return the loss of the labeled crops."""
        return pixel_cross_entropy(logits, label)


class HardPixels(Section):
    """Settings of the labeled loss: hard pixels alone count, with the values of Cityscapes."""

    name: Literal["ohem"]
    threshold: float = Field(
        default=0.7, ge=0, le=1, description="Probability of the label up to which a pixel is hard."
    )
    min_kept: int = Field(
        default=200_000, gt=0, description="Pixels of each group that count however easy they are."
    )
    crops: int = Field(
        default=2, gt=0, description="Of a group that is ranked together: those of one GPU there."
    )

    def __call__(
        self, logits: Float[Tensor, "B C H W"], label: Int64[Tensor, "B H W"]
    ) -> Float[Tensor, ""]:
        """Return the loss of the labeled crops."""
        return hard_cross_entropy(
            logits, label, threshold=self.threshold, min_kept=self.min_kept, crops=self.crops
        )


LabeledLoss = Annotated[CrossEntropy | HardPixels, Field(discriminator="name")]
"""Of a method's `Settings`, as `labeled_loss: LabeledLoss = CrossEntropy()`; called on a batch."""


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
    return (per_pixel * teaches).sum() / pixels(~padding)


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
    counted = valid & (label != IGNORE_INDEX)
    per_pixel = smoothed_per_pixel(logits, label, smoothing=smoothing)
    return (per_pixel * counted).sum() / pixels(counted)


def smoothed_per_pixel(
    logits: Float[Tensor, "B C H W"], label: Int64[Tensor, "B H W"], *, smoothing: float
) -> Float[Tensor, "B H W"]:
    """Return the label-smoothed cross-entropy of each pixel; without meaning where it is 255.

    Args:
        logits: Of the stream that learns, 2 or more classes.
        label: Class ids, 255 where nothing is claimed.
        smoothing: Probability taken off the label, in [0, 1).
    """
    log_probability = logits.log_softmax(dim=1)
    target = label.masked_fill(label == IGNORE_INDEX, 0).unsqueeze(1)
    on_label = -log_probability.gather(1, target).squeeze(1)
    on_others = -log_probability.sum(dim=1) - on_label
    return (1 - smoothing) * on_label + smoothing / (logits.shape[1] - 1) * on_others
