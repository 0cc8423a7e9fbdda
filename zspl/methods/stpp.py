"""ST++ (Yang et al. 2022): self-training in three rounds, stablest images first (methods.md 3.4).

The first round learns from labeled images. Its kept models judge which half of the unlabeled
images they agree on; its best model labels those, and the second round learns from them too. The
best model of the second round labels the rest, and the third round, whose model counts, learns
from all. Every round starts from fresh weights.

Unlike the official code, a step holds a fixed number of labeled and of unlabeled crops instead of
a mixture by chance in which they are equally frequent; crops are scaled relative to the image
instead of to 400 pixels; and a list of fewer than 200 labeled images is not doubled, since
`lengths` says how long the first round is. Optimiser, schedule and network are those of `train`:
there the rate after t + 1 steps is lr0 (1 - (t + 1) / T)^0.9, one step ahead of UniMatch's.
"""

import math
from fractions import Fraction

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from zspl.data.loading import MEAN, STD
from zspl.losses import pixel_cross_entropy
from zspl.methods import Method, Round, SelfLabels
from zspl.models import SegmentationNetwork
from zspl.records import IGNORE_INDEX, LabeledBatch, StepLoss, UnlabeledBatch
from zspl.settings import Section

NEEDS = frozenset({"labeled", "unlabeled"})

KEPT = (Fraction(1, 3), Fraction(2, 3), Fraction(1))
"""Shares of the first round after which its model is kept to judge images."""

AREA = (0.02, 0.4)
"""Range of a cutout's share of the crop, before its sides are cut to whole pixels."""

RATIO = (0.3, 1 / 0.3)
"""Range of a cutout's height / width."""


class Settings(Section):
    """Settings of the method, with the published values."""

    reliable_share: float = Field(
        default=0.5, gt=0, le=1, description="Of the unlabeled list in the second round."
    )
    lengths: tuple[float, float, float] = Field(
        default=(1.0, 1.0, 1.0), description="Of the rounds, times train.epochs or iterations."
    )
    cutout: float = Field(default=0.5, ge=0, le=1, description="Probability of a cutout.")
    label_scales: tuple[float, ...] = Field(
        default=(0.5, 0.75, 1.0, 1.5, 2.0),
        min_length=1,
        description="Sizes at which a photo is predicted to label it.",
    )
    label_flip: bool = Field(default=True, description="Each size is also predicted mirrored.")


class SelfTraining(Method):
    """Cross-entropy on labeled crops and, from the second round on, on self-labeled ones."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def rounds(self) -> tuple[Round, ...]:
        """Return the three rounds."""
        first, second, third = self._settings.lengths
        everything = frozenset({"labeled", "unlabeled", "labels"})
        return (
            Round(name="labeled", needs=frozenset({"labeled"}), length=first, kept=KEPT),
            Round(
                name="reliable",
                needs=everything,
                length=second,
                self_labels=self._labels(self._settings.reliable_share),
            ),
            Round(name="all", needs=everything, length=third, self_labels=self._labels(1.0)),
        )

    def _labels(self, share: float) -> SelfLabels:
        chosen = self._settings
        return SelfLabels(share=share, scales=chosen.label_scales, flip=chosen.label_flip)

    def __call__(
        self,
        model: SegmentationNetwork,
        labeled: LabeledBatch,
        unlabeled: UnlabeledBatch | None,
        partner: UnlabeledBatch | None,  # noqa: ARG002 - part of the Method protocol
    ) -> StepLoss:
        """Return the mean cross-entropy over all pixels of the step that have a label.

        Raises:
            ValueError: if unlabeled images come without the labels of the round before.
        """
        model.train()
        if unlabeled is None:
            loss = pixel_cross_entropy(model(labeled.image), labeled.label)
            return StepLoss(total=loss, parts={"labeled": loss.detach()})
        if unlabeled.zero_shot is None:
            raise ValueError("this method needs unlabeled images with labels")
        hole = draw_cutouts(
            len(unlabeled.strong1), unlabeled.strong1.shape[-1], probability=self._settings.cutout
        ).to(unlabeled.strong1.device)
        strong = torch.where(hole[:, None], noise_like(unlabeled.strong1), unlabeled.strong1)
        label = unlabeled.zero_shot.masked_fill(hole, IGNORE_INDEX)
        logits = model(torch.cat([labeled.image, strong]))
        count = len(labeled.image)
        parts = {
            "labeled": pixel_cross_entropy(logits[:count].detach(), labeled.label),
            "self_labeled": pixel_cross_entropy(logits[count:].detach(), label),
        }
        total = pixel_cross_entropy(logits, torch.cat([labeled.label, label]))
        return StepLoss(total=total, parts=parts)


def draw_cutouts(count: int, size: int, *, probability: float) -> Bool[Tensor, "B S S"]:
    """Draw, from torch's default generator, the holes of strong views: True in a rectangle.

    Unlike a CutMix box of UniMatch, the area is drawn again too until the rectangle fits, which
    favours small ones.

    Args:
        count: B, crops.
        size: S, the side of a crop, in pixels.
        probability: Of a rectangle at all, per crop.
    """
    holes = torch.zeros(count, size, size, dtype=torch.bool)
    for hole in holes:
        if torch.rand(()).item() < probability:
            top, left, height, width = _rectangle(size)
            hole[top : top + height, left : left + width] = True
    return holes


def _rectangle(size: int) -> tuple[int, int, int, int]:
    """Draw the top, left, height and width of a rectangle inside a crop."""
    while True:
        area, ratio = (
            low + (high - low) * torch.rand((), dtype=torch.float64).item()
            for low, high in (AREA, RATIO)
        )
        width = int(math.sqrt(area * size * size / ratio))
        height = int(math.sqrt(area * size * size * ratio))
        left, top = (int(torch.randint(size, ())) for _ in range(2))
        if left + width <= size and top + height <= size:
            return top, left, height, width


def noise_like(images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B 3 S S"]:
    """Return normalised images whose 8-bit pixels are uniform noise."""
    pixels = torch.rand_like(images).mul_(255).floor_().div_(255)
    mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return pixels.sub_(mean).div_(std)


def build(settings: Settings) -> Method:
    """Build the method."""
    return SelfTraining(settings)
