"""The forward passes that UniMatch and the paper's method share (methods.md 2.3, steps 1-4)."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from zspl.data.cutmix import paste
from zspl.methods import Method
from zspl.models import SegmentationNetwork
from zspl.records import LabeledBatch, StepLoss, UnlabeledBatch


@dataclass(frozen=True, kw_only=True, slots=True)
class Streams:
    """Logits of every stream of one step; `weak` and `partner` carry no gradient.

    `labeled` Float[B C S S]; the others Float[U C S S]: the weak view, the weak view decoded
    from perturbed features, the two strong views after CutMix, and the partner's weak view.
    """

    labeled: Float[Tensor, "B C S S"]
    weak: Float[Tensor, "U C S S"]
    feature: Float[Tensor, "U C S S"]
    strong1: Float[Tensor, "U C S S"]
    strong2: Float[Tensor, "U C S S"]
    partner: Float[Tensor, "U C S S"]


@runtime_checkable
class StreamLoss(Protocol):
    """Turns the streams of one step into its loss."""

    def __call__(
        self,
        streams: Streams,
        labeled: LabeledBatch,
        unlabeled: UnlabeledBatch,
        partner: UnlabeledBatch,
    ) -> StepLoss:
        """Return the loss of one step."""


class StreamMethod(Method):
    """A method that runs all streams and then only differs in their loss."""

    def __init__(self, loss: StreamLoss, *, feature_dropout: float) -> None:
        self._loss = loss
        self._feature_dropout = feature_dropout

    def __call__(
        self,
        model: SegmentationNetwork,
        labeled: LabeledBatch,
        unlabeled: UnlabeledBatch | None,
        partner: UnlabeledBatch | None,
    ) -> StepLoss:
        """Return the loss of one step.

        Raises:
            ValueError: if there is no unlabeled batch or no partner.
        """
        if unlabeled is None or partner is None:
            raise ValueError("this method needs an unlabeled batch and its CutMix partner")
        streams = forward_streams(
            model, labeled, unlabeled, partner, feature_dropout=self._feature_dropout
        )
        return self._loss(streams, labeled, unlabeled, partner)


def forward_streams(
    model: SegmentationNetwork,
    labeled: LabeledBatch,
    unlabeled: UnlabeledBatch,
    partner: UnlabeledBatch,
    *,
    feature_dropout: float,
) -> Streams:
    """Run every stream in the official order, so that batch norm sees the official batches.

    The partner goes through in evaluation mode without gradient. Labeled and weak crops form
    one training batch; both are also decoded from perturbed features in the same batch. The
    labeled half of those logits is thrown away, but its statistics enter the batch norm.

    Args:
        model: The network; left in training mode.
        labeled: B labeled crops.
        unlabeled: U unlabeled crops.
        partner: The U crops that CutMix pastes from.
        feature_dropout: Probability of dropping a channel of a feature map.
    """
    model.eval()
    with torch.no_grad():
        partner_logits = model(partner.weak)
    model.train()
    size = (labeled.image.shape[-2], labeled.image.shape[-1])
    clean = model.encode(torch.cat([labeled.image, unlabeled.weak]))
    both = [torch.cat([level, F.dropout2d(level, feature_dropout)]) for level in clean]
    counts = [len(labeled.image), len(unlabeled.weak)]
    decoded = model.decode(both, size)
    on_labeled, weak, _, feature = torch.split(decoded, [*counts, *counts])
    strong1, strong2 = model(torch.cat(_mixed_strong_views(unlabeled, partner))).chunk(2)
    return Streams(
        labeled=on_labeled,
        weak=weak.detach(),
        feature=feature,
        strong1=strong1,
        strong2=strong2,
        partner=partner_logits,
    )


def _mixed_strong_views(unlabeled: UnlabeledBatch, partner: UnlabeledBatch) -> list[Tensor]:
    return [
        paste(unlabeled.strong1, partner.strong1, unlabeled.box1),
        paste(unlabeled.strong2, partner.strong2, unlabeled.box2),
    ]


def share(selected: Tensor, *, among: Tensor) -> Float[Tensor, ""]:
    """Return the share of `selected` pixels, in [0, 1], among the pixels where `among` holds."""
    return (selected & among).sum() / among.sum().clamp(min=1)
