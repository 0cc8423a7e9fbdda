"""The paper's rule with gates between the model's label and the zero-shot label, as settings.

As it stands it is the method `paper`, bit for bit: the model where it is sure, the zero-shot
label elsewhere. With few labels the model is seldom sure, so the raw zero-shot labels teach nearly
alone, and a poor one pulls the model down to it (methods.md 2.6). Each gate leaves some zero-shot
labels out or counts them less; they combine.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import Field
from torch import Tensor

from zspl.losses import confidence_and_label, pixel_cross_entropy, pixels, smoothed_per_pixel
from zspl.methods import Ensemble, Facts, Method, Moment, Round
from zspl.methods._streams import (
    SmoothedSettings,
    Streams,
    both_batches,
    forward_streams,
    lessons,
    share,
    step_loss,
    watched,
)
from zspl.models import SegmentationNetwork
from zspl.records import IGNORE_INDEX, LabeledBatch, StepLoss, UnlabeledBatch

NEEDS = frozenset({"labeled", "unlabeled", "labels"})


class Settings(SmoothedSettings):
    """Settings of the method: the paper's values, and gates that are all open."""

    min_zero_shot_confidence: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="A zero-shot label counts from its own confidence on; calibrate that one.",
    )
    min_precision: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Zero-shot labels of a class count from the confidence on at which this share "
        "of them is right on the labeled images; null: from any.",
    )
    agreement: int | None = Field(
        default=None,
        ge=1,
        description="A zero-shot label must be among the model's so many likeliest classes.",
    )
    zero_shot_weight: float = Field(
        default=1.0, ge=0, description="Of a pixel that the zero-shot label teaches, at the start."
    )
    final_zero_shot_weight: float | None = Field(
        default=None,
        ge=0,
        description="The same at the end, linear between; null: as at the start.",
    )
    counted: Literal["labeled", "all"] = Field(
        default="labeled",
        description="Losses are divided by the pixels with a label (the paper) or by all that are "
        "no padding (UniMatch), so that few labels give a small loss.",
    )
    teacher_ratio: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="An average of the model's weights, which keeps this share of itself at each "
        "step, predicts the weak views; null: the model itself. UniMatch V2: 0.996.",
    )

    @property
    def reads_confidence(self) -> bool:
        """Whether a gate asks how sure the zero-shot labels are."""
        return self.min_zero_shot_confidence > 0 or self.min_precision is not None


@dataclass(frozen=True, slots=True)
class EnhancedLoss:
    """L = (L_s + L_fp / 2 + L_s1 / 4 + L_s2 / 4) / 2 with smoothed unlabeled losses (eq. 9, 10).

    Attributes:
        settings: Of the method.
        asked: The confidence [C] that a zero-shot label of each class must reach; None: none.
        weight: Of a pixel that the zero-shot label teaches.
    """

    settings: Settings
    asked: Float[Tensor, " C"] | None = None
    weight: float = 1.0

    def __call__(
        self,
        streams: Streams,
        labeled: LabeledBatch,
        unlabeled: UnlabeledBatch,
        partner: UnlabeledBatch,
    ) -> StepLoss:
        """Return the loss of one step.

        Raises:
            ValueError: if a batch carries no zero-shot label, or no confidence that is asked for.
        """
        label, zero_shot = self.label(unlabeled, streams.weak)
        weak = (label, zero_shot, ~unlabeled.padding)
        source = (*self.label(partner, streams.partner), ~partner.padding)
        losses = {"labeled": pixel_cross_entropy(streams.labeled, labeled.label)}
        for name, logits, maps in lessons(streams, unlabeled, weak=weak, source=source):
            losses[name] = self._loss(logits, *maps)
        return step_loss(
            losses,
            zero_shot_share=share(zero_shot, among=~unlabeled.padding),
            untaught_share=share(label == IGNORE_INDEX, among=~unlabeled.padding),
        )

    def label(
        self, batch: UnlabeledBatch, logits: Float[Tensor, "U C S S"]
    ) -> tuple[Int64[Tensor, "U S S"], Bool[Tensor, "U S S"]]:
        """Return who teaches what: class ids, 255 for nobody, and where the zero-shot label does.

        The model teaches where its probability reaches `min_confidence`. Elsewhere the zero-shot
        label does, if it passes the gates.

        Args:
            batch: With zero-shot labels, and their confidence if it is asked for.
            logits: On its weak view.

        Raises:
            ValueError: if it lacks them.
        """
        if batch.zero_shot is None:
            raise ValueError("the enhanced method needs batches with zero-shot labels")
        confidence, label = confidence_and_label(logits)
        unsure = confidence < self.settings.min_confidence
        admitted = unsure & (batch.zero_shot != IGNORE_INDEX)
        target = batch.zero_shot.masked_fill(~admitted, 0)
        if self.asked is not None:
            admitted &= _confidence(batch) >= self.asked[target]
        if self.settings.agreement is not None:
            likeliest = logits.topk(min(self.settings.agreement, logits.shape[1]), dim=1).indices
            admitted &= (likeliest == target[:, None]).any(dim=1)
        taught = torch.where(admitted, batch.zero_shot, label)
        return taught.masked_fill(unsure & ~admitted, IGNORE_INDEX), admitted

    def _loss(
        self,
        logits: Float[Tensor, "U C S S"],
        label: Int64[Tensor, "U S S"],
        zero_shot: Bool[Tensor, "U S S"],
        valid: Bool[Tensor, "U S S"],
    ) -> Float[Tensor, ""]:
        per_pixel = smoothed_per_pixel(logits, label, smoothing=self.settings.rate(logits.shape[1]))
        teaches = valid & (label != IGNORE_INDEX)
        counted = teaches if self.settings.counted == "labeled" else valid
        # The weight is not counted: else it would cancel where all labels are zero-shot ones.
        weight = torch.where(zero_shot, self.weight, 1.0)
        return (per_pixel * weight * teaches).sum() / pixels(counted)


def _confidence(batch: UnlabeledBatch) -> Float[Tensor, "U S S"]:
    if batch.zero_shot_confidence is None:
        raise ValueError("this gate needs batches with the confidence of zero-shot labels")
    return batch.zero_shot_confidence


class Guided(Ensemble):
    """The network, who predicts its weak views, and how sure zero-shot labels must be.

    `teacher` is None where the network predicts them itself. `asked` is [C], in [0, 1], or 2 for
    a class whose zero-shot labels are never believed; None where no gate asks.
    """

    asked: Float[Tensor, " C"] | None

    def __init__(
        self,
        student: SegmentationNetwork,
        *,
        averaged: bool,
        asked: Float[Tensor, " C"] | None,
    ) -> None:
        super().__init__(student)
        self.teacher = copy.deepcopy(student).requires_grad_(False) if averaged else None
        self.register_buffer("asked", asked)


class Enhanced(Method):
    """UniMatch's streams with labels from the model and from zero-shot labels."""

    def __init__(self, settings: Settings, *, weight: float | None = None) -> None:
        self._settings = settings
        self._weight = settings.zero_shot_weight if weight is None else weight

    def rounds(self) -> tuple[Round, ...]:
        """Return the one training, which reads confidences if a gate asks for them."""
        needs = NEEDS | {"confidence"} if self._settings.reads_confidence else NEEDS
        quality = {"label_quality"} if self._settings.min_precision is not None else set()
        return (Round(needs=needs | quality),)

    def prepare(
        self,
        network: SegmentationNetwork,
        another: Callable[[], SegmentationNetwork],  # noqa: ARG002 - part of the Method protocol
        facts: Facts,
    ) -> Guided:
        """Return the network with its teacher and what is asked of zero-shot labels.

        Raises:
            ValueError: if `min_precision` is set and the facts hold no label quality.
        """
        averaged = self._settings.teacher_ratio is not None
        return Guided(network, averaged=averaged, asked=self._asked(facts))

    def _asked(self, facts: Facts) -> Float[Tensor, " C"] | None:
        settings = self._settings
        if not settings.reads_confidence:
            return None
        asked = torch.full((len(facts.class_names),), settings.min_zero_shot_confidence)
        if settings.min_precision is None:
            return asked
        if facts.label_quality is None:
            raise ValueError("min_precision needs facts with the quality of the zero-shot labels")
        return asked.maximum(facts.label_quality.min_confidences(settings.min_precision))

    def at(self, moment: Moment) -> "Enhanced":
        """Return the method with the weight of zero-shot labels at a step, w0 + (w1 - w0) t / T."""
        first, last = self._settings.zero_shot_weight, self._settings.final_zero_shot_weight
        if last is None:
            return self
        done = moment.iteration / moment.total
        return Enhanced(self._settings, weight=first + (last - first) * done)

    def __call__(
        self,
        model: Guided,
        labeled: LabeledBatch,
        unlabeled: UnlabeledBatch | None,
        partner: UnlabeledBatch | None,
    ) -> StepLoss:
        """Return the loss of one step.

        Raises:
            ValueError: if there is no unlabeled batch or no partner, or one lacks what is read.
        """
        unlabeled, partner = both_batches(unlabeled, partner)
        streams = forward_streams(
            model.deployed,
            labeled,
            unlabeled,
            partner,
            feature_dropout=self._settings.feature_dropout,
            teacher=model.teacher,
        )
        loss = EnhancedLoss(self._settings, asked=model.asked, weight=self._weight)
        return watched(loss(streams, labeled, unlabeled, partner), streams.weak, unlabeled)

    def after_step(self, model: Guided, moment: Moment) -> None:
        """Move the teacher: weights and buffers keep min(1 - 1 / (t + 1), ratio) of themselves."""
        if model.teacher is None or self._settings.teacher_ratio is None:
            return
        ratio = min(1 - 1 / (moment.iteration + 1), self._settings.teacher_ratio)
        student = model.deployed.state_dict()
        for name, mean in model.teacher.state_dict().items():
            if mean.is_floating_point():
                mean.mul_(ratio).add_(student[name], alpha=1 - ratio)
            else:
                mean.copy_(student[name])


def build(settings: Settings) -> Method:
    """Build the method."""
    return Enhanced(settings)
