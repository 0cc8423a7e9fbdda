"""UniMatch's streams, taught by the model and the zero-shot labels that pass the gates."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from zspl.losses import pixels, smoothed_per_pixel
from zspl.methods import Ensemble, Facts, Method, Moment, Round
from zspl.methods._gates import Gates, GateSettings, asked_of, witness_of
from zspl.methods._streams import (
    Maps,
    Streams,
    forward_streams,
    found_on_both,
    lessons,
    present,
    share,
    step_loss,
    watched,
)
from zspl.models import SegmentationNetwork
from zspl.records import IGNORE_INDEX, LabeledBatch, StepLoss, UnlabeledBatch

NEEDS = frozenset({"labeled", "unlabeled", "labels"})


@dataclass(frozen=True, slots=True)
class GatedLoss:
    """L = (L_s + L_fp / 2 + L_s1 / 4 + L_s2 / 4) / 2 with smoothed unlabeled losses (eq. 9, 10).

    Attributes:
        gates: Say who teaches what.
        weight: Of a pixel that the zero-shot label teaches.
    """

    gates: Gates
    weight: float = 1.0

    def __call__(
        self,
        streams: Streams,
        labeled: LabeledBatch,
        unlabeled: UnlabeledBatch,
        partner: UnlabeledBatch | None,
    ) -> StepLoss:
        """Return the loss of one step.

        Raises:
            ValueError: if a batch carries no zero-shot label, or no confidence that is asked for.
        """
        weak, source = found_on_both(streams, unlabeled, partner, self._found)
        label, zero_shot, _ = weak
        settings = self.gates.settings
        losses = {"labeled": settings.labeled_loss(streams.labeled, labeled.label)}
        for name, logits, maps in lessons(streams, unlabeled, weak=weak, source=source):
            losses[name] = self._loss(logits, *maps)
        return step_loss(
            losses,
            zero_shot_share=share(zero_shot, among=~unlabeled.padding),
            untaught_share=share(label == IGNORE_INDEX, among=~unlabeled.padding),
        )

    def _found(self, batch: UnlabeledBatch, logits: Tensor) -> Maps:
        return (*self.gates.label(batch, logits), ~batch.padding)

    def _loss(
        self,
        logits: Float[Tensor, "U C S S"],
        label: Int64[Tensor, "U S S"],
        zero_shot: Bool[Tensor, "U S S"],
        valid: Bool[Tensor, "U S S"],
    ) -> Float[Tensor, ""]:
        settings = self.gates.settings
        per_pixel = smoothed_per_pixel(logits, label, smoothing=settings.rate(logits.shape[1]))
        teaches = valid & (label != IGNORE_INDEX)
        counted = teaches if settings.counted == "labeled" else valid
        # The weight is not counted: else it would cancel where all labels are zero-shot ones.
        weight = torch.where(zero_shot, self.weight, 1.0)
        return (per_pixel * weight * teaches).sum() / pixels(counted)


class Guided(Ensemble):
    """The network, who predicts its weak views, and what is known of zero-shot labels.

    `teacher` is None where the network predicts them itself; `asked` and `witness` are those of
    the `Gates`.
    """

    asked: Float[Tensor, " C"] | None
    witness: Float[Tensor, "D C"] | None

    def __init__(
        self,
        student: SegmentationNetwork,
        *,
        averaged: bool,
        asked: Float[Tensor, " C"] | None = None,
        witness: Float[Tensor, "D C"] | None = None,
    ) -> None:
        super().__init__(student)
        self.teacher = copy.deepcopy(student).requires_grad_(False) if averaged else None
        self.register_buffer("asked", asked)
        self.register_buffer("witness", witness)


class GatedMethod(Method):
    """UniMatch's streams with labels from the model and from zero-shot labels."""

    def __init__(self, settings: GateSettings, *, done: float = 0.0) -> None:
        self._settings = settings
        self._done = done

    @property
    def _weight(self) -> float:
        """Of a pixel that the zero-shot label teaches, w0 + (w1 - w0) t / T."""
        first, last = self._settings.zero_shot_weight, self._settings.final_zero_shot_weight
        return first if last is None else first + (last - first) * self._done

    def rounds(self) -> tuple[Round, ...]:
        """Return the one training, which reads confidences if a gate asks for them."""
        needs = NEEDS | {"confidence"} if self._settings.reads_confidence else NEEDS
        quality = {"label_quality"} if self._settings.reads_quality else set()
        return (Round(needs=needs | quality),)

    def prepare(
        self,
        network: SegmentationNetwork,
        another: Callable[[], SegmentationNetwork],  # noqa: ARG002 - part of the Method protocol
        facts: Facts,
    ) -> Guided:
        """Return the network with its teacher and what is asked of zero-shot labels.

        Raises:
            ValueError: if a gate needs the label quality and the facts hold none.
        """
        return Guided(
            network,
            averaged=self._settings.teacher_ratio is not None,
            asked=asked_of(self._settings, facts),
            witness=witness_of(self._settings, facts),
        )

    def at(self, moment: Moment) -> "GatedMethod":
        """Return the method with its weights at a step, t of T."""
        return GatedMethod(self._settings, done=moment.iteration / moment.total)

    def __call__(
        self,
        model: Guided,
        labeled: LabeledBatch,
        unlabeled: UnlabeledBatch | None,
        partner: UnlabeledBatch | None,
    ) -> StepLoss:
        """Return the loss of one step.

        Raises:
            ValueError: if there is no unlabeled batch, or a batch lacks what is read.
        """
        unlabeled = present(unlabeled)
        streams = forward_streams(
            model.deployed,
            labeled,
            unlabeled,
            partner,
            settings=self._settings,
            teacher=model.teacher,
        )
        gates = Gates(settings=self._settings, asked=model.asked, witness=model.witness)
        loss = GatedLoss(gates, weight=self._weight)
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
