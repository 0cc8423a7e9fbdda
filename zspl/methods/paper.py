"""The paper's method: UniMatch that learns from enhanced labels (eq. 3-10, methods.md 2.6).

Where the model is unsure of the weak view, the zero-shot label takes its place, so every pixel
with a label teaches and no confidence mask remains. What the paper leaves open is decided as
in methods.md 2.6; its smoothing formula is lost, see `smoothing_target`. The method `enhanced`
has the same rule with more to set.
"""

from dataclasses import dataclass

from jaxtyping import Int64
from torch import Tensor

from zspl.losses import (
    confidence_and_label,
    enhanced_label,
    smoothed_cross_entropy,
)
from zspl.methods import Method
from zspl.methods._streams import (
    Maps,
    SmoothedSettings,
    StreamMethod,
    Streams,
    found_on_both,
    lessons,
    share,
    step_loss,
)
from zspl.records import LabeledBatch, StepLoss, UnlabeledBatch

NEEDS = frozenset({"labeled", "unlabeled", "labels"})


class Settings(SmoothedSettings):
    """Settings of the method, with the paper's values."""


@dataclass(frozen=True, slots=True)
class PaperLoss:
    """L = (L_s + L_fp / 2 + L_s1 / 4 + L_s2 / 4) / 2 with smoothed unlabeled losses (eq. 9, 10)."""

    settings: Settings

    def __call__(
        self,
        streams: Streams,
        labeled: LabeledBatch,
        unlabeled: UnlabeledBatch,
        partner: UnlabeledBatch | None,
    ) -> StepLoss:
        """Return the loss of one step.

        Raises:
            ValueError: if a batch carries no zero-shot label.
        """
        weak, source = found_on_both(streams, unlabeled, partner, self._found)
        smoothing = self.settings.rate(streams.weak.shape[1])
        losses = {"labeled": self.settings.labeled_loss(streams.labeled, labeled.label)}
        for name, logits, maps in lessons(streams, unlabeled, weak=weak, source=source):
            losses[name] = smoothed_cross_entropy(logits, *maps, smoothing=smoothing)
        confidence, _ = confidence_and_label(streams.weak)
        unsure = confidence < self.settings.min_confidence
        return step_loss(losses, zero_shot_share=share(unsure, among=~unlabeled.padding))

    def _found(self, batch: UnlabeledBatch, logits: Tensor) -> Maps:
        return self._label(batch, logits), ~batch.padding

    def _label(self, batch: UnlabeledBatch, logits: Tensor) -> Int64[Tensor, "U S S"]:
        if batch.zero_shot is None:
            raise ValueError("the paper's method needs batches with zero-shot labels")
        return enhanced_label(batch.zero_shot, logits, min_confidence=self.settings.min_confidence)


def build(settings: Settings) -> Method:
    """Build the method."""
    return StreamMethod(PaperLoss(settings), settings)
