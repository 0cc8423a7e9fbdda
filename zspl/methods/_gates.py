"""Gates between the model's label and the zero-shot label: what a method may set, and the rule.

Each gate leaves some zero-shot labels out, counts them less, or weighs them against the model;
they combine. With all of them open the rule is the paper's (eq. 7).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import Field, model_validator
from torch import Tensor

from zspl.losses import confidence_and_label
from zspl.methods import Facts
from zspl.methods._streams import SmoothedSettings
from zspl.records import IGNORE_INDEX, UnlabeledBatch


class GateSettings(SmoothedSettings):
    """The paper's values, and gates that are all open."""

    unsure: Literal["zero_shot", "nobody"] = Field(
        default="zero_shot",
        description="Who teaches where the model is unsure: the zero-shot label, if it passes the "
        "gates, or nobody, which goes with `evidence`.",
    )
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
    evidence: float | None = Field(
        default=None,
        ge=0,
        description="Weighs the zero-shot label as a witness: so many times its log-likelihood "
        "under each class, known from the labeled images, is added to the model's "
        "log-probabilities before its confidence is taken. 1: Bayes' rule; null: not heard.",
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

    @model_validator(mode="after")
    def _nothing_set_in_vain(self) -> "GateSettings":
        if self.unsure == "nobody":
            gates = ("min_zero_shot_confidence", "min_precision", "agreement")
            for name in (*gates, "zero_shot_weight", "final_zero_shot_weight"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} is without effect while unsure is nobody")
        return self

    @property
    def reads_confidence(self) -> bool:
        """Whether a gate asks how sure the zero-shot labels are."""
        return self.min_zero_shot_confidence > 0 or self.min_precision is not None

    @property
    def reads_quality(self) -> bool:
        """Whether a gate asks how right the zero-shot labels of labeled images are."""
        return self.evidence is not None or self.min_precision is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Gates:
    """The settings, with what they ask for found out from the labeled images.

    Attributes:
        settings: Of the method.
        asked: The confidence [C] that a zero-shot label of each class must reach, 2 for never;
            None: none is asked for.
        witness: [C+1 C]: the log-likelihood of a zero-shot label (255 last) under each true
            class, times `evidence`; None: the label is no witness.
    """

    settings: GateSettings
    asked: Float[Tensor, " C"] | None = None
    witness: Float[Tensor, "D C"] | None = None

    def label(
        self, batch: UnlabeledBatch, logits: Float[Tensor, "U C S S"]
    ) -> tuple[Int64[Tensor, "U S S"], Bool[Tensor, "U S S"]]:
        """Return who teaches what: class ids, 255 for nobody, and where the zero-shot label does.

        The model, after it has heard the witness, teaches where its probability reaches
        `min_confidence`. Elsewhere the zero-shot label does, if it passes the gates.

        Args:
            batch: With zero-shot labels, and their confidence if it is asked for.
            logits: On its weak view.

        Raises:
            ValueError: if it lacks them.
        """
        if batch.zero_shot is None:
            raise ValueError("this method needs batches with zero-shot labels")
        if self.witness is not None:
            logits = logits.log_softmax(dim=1) + heard(self.witness, batch.zero_shot)
        confidence, label = confidence_and_label(logits)
        unsure = confidence < self.settings.min_confidence
        admitted = unsure & (batch.zero_shot != IGNORE_INDEX)
        if self.settings.unsure == "nobody":
            return label.masked_fill(unsure, IGNORE_INDEX), torch.zeros_like(admitted)
        target = batch.zero_shot.masked_fill(~admitted, 0)
        if self.asked is not None:
            admitted &= _confidence(batch) >= self.asked[target]
        if self.settings.agreement is not None:
            likeliest = logits.topk(min(self.settings.agreement, logits.shape[1]), dim=1).indices
            admitted &= (likeliest == target[:, None]).any(dim=1)
        taught = torch.where(admitted, batch.zero_shot, label)
        return taught.masked_fill(unsure & ~admitted, IGNORE_INDEX), admitted


def heard(
    witness: Float[Tensor, "D C"], zero_shot: Int64[Tensor, "U S S"]
) -> Float[Tensor, "U C S S"]:
    """Return what the witness says of each pixel, by class; 255 reads the last row."""
    claim = zero_shot.clamp(max=len(witness) - 1)
    return witness[claim].permute(0, 3, 1, 2)


def _confidence(batch: UnlabeledBatch) -> Float[Tensor, "U S S"]:
    if batch.zero_shot_confidence is None:
        raise ValueError("this gate needs batches with the confidence of zero-shot labels")
    return batch.zero_shot_confidence


def asked_of(settings: GateSettings, facts: Facts) -> Float[Tensor, " C"] | None:
    """Return the confidence that zero-shot labels of each class must reach, if any is asked for.

    Raises:
        ValueError: if `min_precision` is set and the facts hold no label quality.
    """
    if not settings.reads_confidence:
        return None
    asked = torch.full((len(facts.class_names),), settings.min_zero_shot_confidence)
    if settings.min_precision is None:
        return asked
    if facts.label_quality is None:
        raise ValueError("min_precision needs facts with the quality of the zero-shot labels")
    return asked.maximum(facts.label_quality.min_confidences(settings.min_precision))


def witness_of(settings: GateSettings, facts: Facts) -> Float[Tensor, "D C"] | None:
    """Return what a zero-shot label says about each class, if it is heard.

    Raises:
        ValueError: if `evidence` is set and the facts hold no label quality.
    """
    if settings.evidence is None:
        return None
    if facts.label_quality is None:
        raise ValueError("evidence needs facts with the quality of the zero-shot labels")
    return settings.evidence * facts.label_quality.log_likelihood()
