"""UniMatch (Yang et al. 2023), the official first version (methods.md 2.3).

The pseudo label comes from the training-mode forward; the CutMix partner is another crop of
the same image, labeled in evaluation mode (or, by `train.cutmix_partner`, another image of the
batch as in UniMatch V2); each unlabeled loss is divided by all pixels that are no padding.
"""

from dataclasses import dataclass

from pydantic import Field
from torch import Tensor

from zspl.losses import confidence_and_label, consistency_loss
from zspl.methods import Method
from zspl.methods._streams import (
    Maps,
    StreamMethod,
    Streams,
    StreamSettings,
    found_on_both,
    lessons,
    share,
    step_loss,
)
from zspl.records import LabeledBatch, StepLoss, UnlabeledBatch

NEEDS = frozenset({"labeled", "unlabeled"})


class Settings(StreamSettings):
    """Settings of the method, with the published values for VOC and COCO."""

    min_confidence: float = Field(default=0.95, ge=0, le=1)


@dataclass(frozen=True, slots=True)
class UniMatchLoss:
    """L = (L_x + L_s1 / 4 + L_s2 / 4 + L_fp / 2) / 2."""

    settings: Settings

    def __call__(
        self,
        streams: Streams,
        labeled: LabeledBatch,
        unlabeled: UnlabeledBatch,
        partner: UnlabeledBatch | None,
    ) -> StepLoss:
        """Return the loss of one step."""
        weak, source = found_on_both(streams, unlabeled, partner, self._found)
        losses = {"labeled": self.settings.labeled_loss(streams.labeled, labeled.label)}
        for name, logits, maps in lessons(streams, unlabeled, weak=weak, source=source):
            confidence, label, padding = maps
            losses[name] = consistency_loss(
                logits, label, confidence, padding, min_confidence=self.settings.min_confidence
            )
        confident = weak[0] >= self.settings.min_confidence
        return step_loss(losses, confident_share=share(confident, among=~unlabeled.padding))

    @staticmethod
    def _found(batch: UnlabeledBatch, logits: Tensor) -> Maps:
        return (*confidence_and_label(logits), batch.padding)


def build(settings: Settings) -> Method:
    """Build the method."""
    return StreamMethod(UniMatchLoss(settings), settings)
