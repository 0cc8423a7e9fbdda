"""Cross pseudo supervision (Chen et al. 2021): two networks label images for each other.

Written from the configurations of its authors for VOC, with and without CutMix (methods.md 3.3).
Both networks start from the same pretrained weights with heads of their own; the first one is
evaluated. As there, teachers predict in training mode, no confidence is asked for, and the
padding of a crop is taught like any pixel. Optimiser, schedule, scales and decoder are those of
`train`, in our benchmarks UniMatch's, not the authors' (no weight decay of norms and biases, one
learning rate, a decoder with leaky ReLUs). Unlike there, both crops that CutMix joins are drawn
from one list of images: the second batch is turned by one, so that no image meets itself.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from pydantic import Field
from torch import Tensor

from zspl.data.cutmix import paste
from zspl.losses import count_classes, pixel_cross_entropy
from zspl.methods import Ensemble, Facts, Method
from zspl.methods._streams import present, turned
from zspl.models import SegmentationNetwork
from zspl.records import LabeledBatch, StepLoss, UnlabeledBatch
from zspl.settings import Section

NEEDS = frozenset({"labeled", "unlabeled"})

BOXES = 3
"""Boxes of one CutMix mask."""

AREA = (0.25, 0.5)
"""Range of a box's share of the crop, before all sides shrink by the root of the boxes."""


class Settings(Section):
    """Settings of the method, with the published values for VOC."""

    cutmix: bool = Field(default=True, description="Students learn from pairs of crops, joined.")
    weight: float | None = Field(
        default=None,
        ge=0,
        description="Of the unlabeled loss; null is 1 with CutMix, 1.5 without. Cityscapes: 5, 6.",
    )


class Pair(Ensemble):
    """Two networks of one architecture; the first one is evaluated."""

    def __init__(self, first: SegmentationNetwork, second: SegmentationNetwork) -> None:
        super().__init__(first)
        self.second = second


class CrossPseudoSupervision(Method):
    """L = CE(first, y) + CE(second, y) + weight (CE(first, label of second) + the reverse)."""

    def __init__(self, settings: Settings) -> None:
        self._cutmix = settings.cutmix
        published = 1.0 if settings.cutmix else 1.5
        self._weight = published if settings.weight is None else settings.weight

    def prepare(
        self,
        network: SegmentationNetwork,
        another: Callable[[], SegmentationNetwork],
        facts: Facts,  # noqa: ARG002 - part of the Method protocol
    ) -> Pair:
        """Return the network and a second one that starts elsewhere."""
        return Pair(network, another())

    def __call__(
        self,
        model: Pair,
        labeled: LabeledBatch,
        unlabeled: UnlabeledBatch | None,
        partner: UnlabeledBatch | None,
    ) -> StepLoss:
        """Return the loss of one step.

        Raises:
            ValueError: if there is no unlabeled batch.
        """
        unlabeled = present(unlabeled)
        model.train()
        step = _cutmix_step if self._cutmix else _plain_step
        (first, second), cross, label = step(model, labeled, unlabeled, partner)
        own = [pixel_cross_entropy(logits, labeled.label) for logits in (first, second)]
        losses = {"labeled": own[0], "labeled_second": own[1], "cross": cross}
        parts = {name: loss.detach() for name, loss in losses.items()}
        found = count_classes(label, torch.ones_like(label).bool(), classes=first.shape[1])
        return StepLoss(total=own[0] + own[1] + self._weight * cross, parts=parts, found=found)


Logits = Float[Tensor, "B C S S"]
Found = tuple[tuple[Logits, Logits], Float[Tensor, ""], Int64[Tensor, "U S S"]]
"""Logits of both networks on the labeled crops, the cross loss, and the first one's labels."""


def _plain_step(
    model: Pair,
    labeled: LabeledBatch,
    unlabeled: UnlabeledBatch,
    partner: UnlabeledBatch | None,  # noqa: ARG001 - as the other step
) -> Found:
    """Let both networks teach each other on labeled and unlabeled crops together."""
    images = torch.cat([labeled.image, unlabeled.weak])
    first, second = model.deployed(images), model.second(images)
    count = len(labeled.image)
    taught = [_label(first), _label(second)]
    return (first[:count], second[:count]), cross_loss(first, second, *taught), taught[0][count:]


def _cutmix_step(
    model: Pair, labeled: LabeledBatch, unlabeled: UnlabeledBatch, partner: UnlabeledBatch | None
) -> Found:
    """Let both networks teach each other on joined crops, in the official order of forwards."""
    other = turned(unlabeled.weak) if partner is None else partner.weak.roll(1, dims=0)
    mask = _drawn_masks(len(other), other.shape[-1]).to(other.device)
    taught = []
    with torch.no_grad():
        for network in (model.deployed, model.second):
            own = network(unlabeled.weak)
            pasted = turned(own) if partner is None else network(other)
            taught.append(_label(paste(own, pasted, mask)))
    joined = paste(unlabeled.weak, other, mask)
    cross = cross_loss(model.deployed(joined), model.second(joined), *taught)
    return (model.deployed(labeled.image), model.second(labeled.image)), cross, taught[0]


def _label(logits: Logits) -> Int64[Tensor, "B S S"]:
    return logits.detach().argmax(dim=1)


def cross_loss(
    first: Float[Tensor, "B C S S"],
    second: Float[Tensor, "B C S S"],
    label_first: Int64[Tensor, "B S S"],
    label_second: Int64[Tensor, "B S S"],
) -> Float[Tensor, ""]:
    """Return CE(first, label of the second) + CE(second, label of the first), over all pixels.

    Args:
        first: Logits of the first network as a student.
        second: Logits of the second network as a student.
        label_first: Class ids that the first network predicts as a teacher.
        label_second: Class ids that the second network predicts as a teacher.
    """
    return pixel_cross_entropy(first, label_second) + pixel_cross_entropy(second, label_first)


def _drawn_masks(count: int, size: int) -> Bool[Tensor, "B S S"]:
    seed = int(torch.randint(2**62, ()))
    return draw_masks(count, size, np.random.default_rng(seed))


def draw_masks(count: int, size: int, rng: np.random.Generator) -> Bool[Tensor, "B S S"]:
    """Draw masks that are True inside an odd number of three boxes.

    The random numbers are drawn in the official order. A box covers a share p ~ U(0.25, 0.5) of
    the crop with the height exp(U(0, 1) ln p), before both sides shrink by sqrt(1/3) and are
    rounded; it lies at a uniform place inside the crop. Where the boxes overlap they cancel.

    Args:
        count: B, masks.
        size: S, the side of the crop, in pixels.
        rng: Where the random numbers come from.
    """
    shares = rng.uniform(*AREA, size=(count, BOXES))
    heights = np.exp(rng.uniform(0.0, 1.0, size=(count, BOXES)) * np.log(shares))
    relative = np.stack([heights, shares / heights], axis=2) * np.sqrt(1 / BOXES)
    sizes = np.round(relative * size)
    corners = np.round((size - sizes) * rng.uniform(0.0, 1.0, size=sizes.shape))
    masks = torch.zeros(count, size, size, dtype=torch.bool)
    for mask, boxes in zip(masks, np.dstack([corners, corners + sizes]).astype(int), strict=True):
        for top, left, bottom, right in boxes:
            mask[top:bottom, left:right] ^= True
    return masks


def build(settings: Settings) -> Method:
    """Build the method."""
    return CrossPseudoSupervision(settings)
