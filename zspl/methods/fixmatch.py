"""FixMatch with CutMix, as UniMatch's authors run it (methods.md 2.3).

UniMatch with one strong view and without feature perturbation. The pseudo label comes from the
training-mode forward; the CutMix partner is another crop of the same image, labeled in
evaluation mode, or another image of the batch; the unlabeled loss is divided by all pixels that
are no padding.
"""

import torch
from pydantic import Field
from torch import Tensor

from zspl.data.cutmix import paste
from zspl.losses import CrossEntropy, LabeledLoss, confidence_and_label, consistency_loss
from zspl.methods import Method
from zspl.methods._streams import present, share, turned, watched
from zspl.models import SegmentationNetwork
from zspl.records import LabeledBatch, StepLoss, UnlabeledBatch
from zspl.settings import Section

NEEDS = frozenset({"labeled", "unlabeled"})


class Settings(Section):
    """Settings of the method, with the published values for VOC and COCO."""

    min_confidence: float = Field(
        default=0.95, ge=0, le=1, description="Lowest confidence that teaches; Cityscapes: 0."
    )
    labeled_loss: LabeledLoss = Field(
        default=CrossEntropy(), description="ce, or ohem as published for Cityscapes."
    )


class FixMatch(Method):
    """L = (L_x + L_s) / 2."""

    def __init__(self, settings: Settings) -> None:
        self._min_confidence = settings.min_confidence
        self._labeled_loss = settings.labeled_loss

    def __call__(
        self,
        model: SegmentationNetwork,
        labeled: LabeledBatch,
        unlabeled: UnlabeledBatch | None,
        partner: UnlabeledBatch | None,
    ) -> StepLoss:
        """Return the loss of one step; labeled and weak crops form one batch, strong ones another.

        Raises:
            ValueError: if there is no unlabeled batch.
        """
        unlabeled = present(unlabeled)
        source = None if partner is None else self._labeled(model, partner)
        model.train()
        both = model(torch.cat([labeled.image, unlabeled.weak]))
        on_labeled, on_weak = both.split([len(labeled.image), len(unlabeled.weak)])
        box = unlabeled.box1
        pasted = turned(unlabeled.strong1) if partner is None else partner.strong1
        on_strong = model(paste(unlabeled.strong1, pasted, box))
        weak = (*confidence_and_label(on_weak), unlabeled.padding)
        source = tuple(turned(maps) for maps in weak) if source is None else source
        confidence, label, padding = (paste(a, b, box) for a, b in zip(weak, source, strict=True))
        loss = self._labeled_loss(on_labeled, labeled.label)
        strong = consistency_loss(
            on_strong, label, confidence, padding, min_confidence=self._min_confidence
        )
        confident = share(weak[0] >= self._min_confidence, among=~unlabeled.padding)
        parts = {"labeled": loss.detach(), "strong": strong.detach(), "confident_share": confident}
        total = StepLoss(total=(loss + strong) / 2, parts=parts)
        return watched(total, on_weak, unlabeled)

    @staticmethod
    @torch.no_grad()
    def _labeled(model: SegmentationNetwork, partner: UnlabeledBatch) -> tuple[Tensor, ...]:
        """Return confidence, label and padding of the partner, in evaluation mode."""
        model.eval()
        return (*confidence_and_label(model(partner.weak)), partner.padding)


def build(settings: Settings) -> Method:
    """Build the method."""
    return FixMatch(settings)
