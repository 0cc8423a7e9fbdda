"""Training methods: one file each, with `Settings`, `NEEDS` and `build(settings) -> Method`.

`NEEDS` names what a method reads: `labeled` images, `unlabeled` images, pseudo `labels`.
"""

from typing import Protocol, runtime_checkable

from zspl import plugins
from zspl.models import SegmentationNetwork
from zspl.records import LabeledBatch, StepLoss, UnlabeledBatch


@runtime_checkable
class Method(Protocol):
    """The loss of one training step."""

    def __call__(
        self,
        model: SegmentationNetwork,
        labeled: LabeledBatch,
        unlabeled: UnlabeledBatch | None,
        partner: UnlabeledBatch | None,
    ) -> StepLoss:
        """Return the loss of one step; the model is left in training mode."""


def needs(name: str) -> frozenset[str]:
    """Return what the method `name` reads: some of labeled, unlabeled, labels.

    Raises:
        UnknownPluginError: if there is no such method.
    """
    declared: frozenset[str] = plugins.load("zspl.methods", name).NEEDS
    return declared
