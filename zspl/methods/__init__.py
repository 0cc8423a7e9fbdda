"""Training methods: one file each, with `Settings`, `NEEDS` and `build(settings) -> Method`.

`NEEDS` names what a method reads: `labeled` images, `unlabeled` images, pseudo `labels`, and about
these the `confidence` they come with and their `label_quality`. A method whose settings decide over
the last two names them in the `needs` of its `rounds`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from torch import nn

from zspl import plugins
from zspl.data.label_quality import LabelQuality
from zspl.models import SegmentationNetwork
from zspl.records import LabeledBatch, StepLoss, UnlabeledBatch


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What a method may know before it sees a batch: class names (background first) and S.

    `label_quality` compares the pseudo labels of the labeled images with their masks, for a method
    whose needs name it.
    """

    class_names: tuple[str, ...]
    crop_size: int
    label_quality: LabelQuality | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """A step of a round: its 0-based iteration, of `total`, with `per_epoch` to an epoch."""

    iteration: int
    total: int
    per_epoch: int

    @property
    def epoch(self) -> int:
        """The 0-based epoch."""
        return self.iteration // self.per_epoch


@dataclass(frozen=True, kw_only=True, slots=True)
class SelfLabels:
    """How the best model of one round labels unlabeled images for the next.

    Attributes:
        share: Of the unlabeled list, in (0, 1], stablest first; an image that an earlier round
            labeled keeps its label, and the next round sees the labeled ones alone.
        scales: Sizes at which a photo is predicted, over its own size.
        flip: Whether each size is also predicted mirrored.
    """

    share: float
    scales: tuple[float, ...]
    flip: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """One training from fresh weights; most methods have one.

    Attributes:
        name: Names the round's folder; empty for a method of one round.
        needs: What its steps read, or None for the method's `NEEDS`.
        length: Times the `epochs` or `iterations` of `train`.
        kept: Shares of the round at which its model is kept; the predictions of those of the
            first round, against the last of them, tell which images are stable.
        self_labels: What the model of the round before labels first.
    """

    name: str = ""
    needs: frozenset[str] | None = None
    length: float = 1.0
    kept: tuple[Fraction, ...] = ()
    self_labels: SelfLabels | None = None


class Ensemble(nn.Module):
    """What is trained when it is more than the network that is evaluated, `deployed`.

    Its other parts are in the checkpoint of an unfinished training, and in no finished one.
    """

    def __init__(self, deployed: SegmentationNetwork) -> None:
        super().__init__()
        self.deployed = deployed


Trained = SegmentationNetwork | Ensemble


class Method(ABC):
    """The loss of one training step, and what little else a method may change.

    A method object holds no state: what one step leaves for a later one is a buffer or a
    parameter of what `prepare` returns, so that a killed training continues bit-identically.
    Random numbers come from torch's default generator, which is seeded before each step.
    """

    @abstractmethod
    def __call__(
        self,
        model: Any,  # noqa: ANN401 - what the method's own `prepare` returns
        labeled: LabeledBatch,
        unlabeled: UnlabeledBatch | None,
        partner: UnlabeledBatch | None,
    ) -> StepLoss:
        """Return the loss of one step; sets training and evaluation mode itself."""

    def adapt(self, network: SegmentationNetwork, facts: Facts) -> SegmentationNetwork:  # noqa: ARG002 - for methods that override it
        """Return the network to evaluate, such as one with the method's own decoder."""
        return network

    def prepare(
        self,
        network: SegmentationNetwork,
        another: Callable[[], SegmentationNetwork],  # noqa: ARG002 - for methods that override it
        facts: Facts,  # noqa: ARG002 - for methods that override it
    ) -> Trained:
        """Return what is trained: the network, or an `Ensemble` around it.

        Args:
            network: What `adapt` returned, with its initial weights, on the processor.
            another: Builds the same once more; what is not pretrained starts elsewhere.
            facts: The classes and the crop.
        """
        return network

    def at(self, moment: Moment) -> "Method":  # noqa: ARG002 - for methods that override it
        """Return the method as it is at a step, for one whose weights or thresholds change."""
        return self

    def after_step(self, model: Any, moment: Moment) -> None:  # noqa: ANN401, B027 - optional
        """Act after the optimiser's step, without gradient, such as to move an average."""

    def rounds(self) -> tuple[Round, ...]:
        """Return the trainings to run one after the other; the last one's model counts."""
        return (Round(),)


def deployed(trained: nn.Module) -> SegmentationNetwork:
    """Return the network that is evaluated out of what is trained.

    Raises:
        TypeError: if it is neither a network nor an `Ensemble`.
    """
    if isinstance(trained, Ensemble):
        return trained.deployed
    if isinstance(trained, SegmentationNetwork):
        return trained
    raise TypeError(f"expected a SegmentationNetwork or an Ensemble, got {type(trained).__name__}")


def needs(name: str) -> frozenset[str]:
    """Return what the method `name` reads: some of what the package names.

    Raises:
        UnknownPluginError: if there is no such method.
    """
    declared: frozenset[str] = plugins.load("zspl.methods", name).NEEDS
    return declared
