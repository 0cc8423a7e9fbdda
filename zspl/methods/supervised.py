"""Training on the labeled images alone: the lower line of every comparison."""

from zspl.losses import pixel_cross_entropy
from zspl.methods import Method
from zspl.models import SegmentationNetwork
from zspl.records import LabeledBatch, StepLoss, UnlabeledBatch
from zspl.settings import Section

NEEDS = frozenset({"labeled"})


class Settings(Section):
    """The supervised baseline has no settings of its own."""


class Supervised(Method):
    """Cross-entropy on the labeled crops."""

    def __call__(
        self,
        model: SegmentationNetwork,
        labeled: LabeledBatch,
        unlabeled: UnlabeledBatch | None,  # noqa: ARG002 - part of the Method protocol
        partner: UnlabeledBatch | None,  # noqa: ARG002 - part of the Method protocol
    ) -> StepLoss:
        """Return the loss of one step."""
        model.train()
        loss = pixel_cross_entropy(model(labeled.image), labeled.label)
        return StepLoss(total=loss, parts={"labeled": loss.detach()})


def build(settings: Settings) -> Method:  # noqa: ARG001 - part of the plugin protocol
    """Build the method."""
    return Supervised()
