"""Training on the labeled images alone: the lower line of every comparison."""

from pydantic import Field

from zspl.losses import CrossEntropy, LabeledLoss
from zspl.methods import Method
from zspl.models import SegmentationNetwork
from zspl.records import LabeledBatch, StepLoss, UnlabeledBatch
from zspl.settings import Section

NEEDS = frozenset({"labeled"})


class Settings(Section):
    """Settings of the method."""

    labeled_loss: LabeledLoss = Field(
        default=CrossEntropy(), description="ce, or ohem as published for Cityscapes."
    )


class Supervised(Method):
    """Cross-entropy on the labeled crops."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __call__(
        self,
        model: SegmentationNetwork,
        labeled: LabeledBatch,
        unlabeled: UnlabeledBatch | None,  # noqa: ARG002 - part of the Method protocol
        partner: UnlabeledBatch | None,  # noqa: ARG002 - part of the Method protocol
    ) -> StepLoss:
        """Return the loss of one step."""
        model.train()
        loss = self._settings.labeled_loss(model(labeled.image), labeled.label)
        return StepLoss(total=loss, parts={"labeled": loss.detach()})


def build(settings: Settings) -> Method:
    """Build the method."""
    return Supervised(settings)
