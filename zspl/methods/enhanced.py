"""The paper's method: UniMatch that learns from enhanced labels (eq. 3-10, methods.md 2.6).

Where the model is unsure of the weak view, the zero-shot label takes its place, so every pixel
with a label teaches and no confidence mask remains. What the paper leaves open is decided as
in methods.md 2.6; its smoothing formula is lost, see `Settings.smoothing_target`.
"""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Bool, Float, Int64
from pydantic import Field
from torch import Tensor

from zspl.data.cutmix import paste
from zspl.losses import (
    confidence_and_label,
    enhanced_label,
    pixel_cross_entropy,
    smoothed_cross_entropy,
)
from zspl.methods import Method
from zspl.methods._streams import StreamMethod, Streams, share
from zspl.records import LabeledBatch, StepLoss, UnlabeledBatch
from zspl.settings import Section

NEEDS = frozenset({"labeled", "unlabeled", "labels"})


class Settings(Section):
    """Settings of the method, with the paper's values."""

    min_confidence: float = Field(
        default=0.7, ge=0, le=1, description="The model is believed from here on (eq. 7)."
    )
    smoothing: float | None = Field(
        default=None, ge=0, lt=1, description="Label smoothing (eq. 8); null is 1 / classes."
    )
    smoothing_target: Literal["others", "all"] = Field(
        default="others",
        description="Smoothing s spreads s/(C-1) over the other classes, or s/C over all "
        "(as PyTorch's label_smoothing does); at s = 1/C they differ by a factor (C-1)/C in s.",
    )
    feature_dropout: float = Field(default=0.5, ge=0, lt=1)


@dataclass(frozen=True, slots=True)
class EnhancedLoss:
    """L = (L_s + L_fp / 2 + L_s1 / 4 + L_s2 / 4) / 2 with smoothed unlabeled losses (eq. 9, 10)."""

    settings: Settings

    def __call__(
        self,
        streams: Streams,
        labeled: LabeledBatch,
        unlabeled: UnlabeledBatch,
        partner: UnlabeledBatch,
    ) -> StepLoss:
        """Return the loss of one step.

        Raises:
            ValueError: if a batch carries no zero-shot label.
        """
        weak = (self._label(unlabeled, streams.weak), ~unlabeled.padding)
        source = (self._label(partner, streams.partner), ~partner.padding)
        losses = {
            "labeled": pixel_cross_entropy(streams.labeled, labeled.label),
            "feature": self._smoothed(streams.feature, *weak),
        }
        strong = (
            ("strong1", streams.strong1, unlabeled.box1),
            ("strong2", streams.strong2, unlabeled.box2),
        )
        for name, logits, box in strong:
            label, valid = (paste(a, b, box) for a, b in zip(weak, source, strict=True))
            losses[name] = self._smoothed(logits, label, valid)
        unlabeled_loss = 0.25 * (losses["strong1"] + losses["strong2"]) + 0.5 * losses["feature"]
        parts = {name: loss.detach() for name, loss in losses.items()}
        confidence, _ = confidence_and_label(streams.weak)
        parts["zero_shot_share"] = share(
            confidence < self.settings.min_confidence, among=~unlabeled.padding
        )
        return StepLoss(total=(losses["labeled"] + unlabeled_loss) / 2, parts=parts)

    def _label(self, batch: UnlabeledBatch, logits: Tensor) -> Int64[Tensor, "U S S"]:
        if batch.zero_shot is None:
            raise ValueError("the enhanced method needs batches with zero-shot labels")
        return enhanced_label(batch.zero_shot, logits, min_confidence=self.settings.min_confidence)

    def _smoothed(
        self,
        logits: Float[Tensor, "U C S S"],
        label: Int64[Tensor, "U S S"],
        valid: Bool[Tensor, "U S S"],
    ) -> Float[Tensor, ""]:
        classes = logits.shape[1]
        chosen = self.settings.smoothing
        smoothing = 1 / classes if chosen is None else chosen
        if self.settings.smoothing_target == "all":
            smoothing *= (classes - 1) / classes
        return smoothed_cross_entropy(logits, label, valid, smoothing=smoothing)


def build(settings: Settings) -> Method:
    """Build the method."""
    return StreamMethod(EnhancedLoss(settings), feature_dropout=settings.feature_dropout)
