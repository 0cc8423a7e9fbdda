"""What UniMatch and the paper's methods share (methods.md 2.3): forward passes, CutMix, the sum."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from zspl.data.cutmix import paste
from zspl.losses import CrossEntropy, LabeledLoss, count_classes, pixels
from zspl.methods import Method
from zspl.models import SegmentationNetwork
from zspl.models.statistics import uncounted
from zspl.records import IGNORE_INDEX, LabeledBatch, StepLoss, UnlabeledBatch
from zspl.settings import Section


class StreamSettings(Section):
    """Settings of every method that runs UniMatch's streams."""

    feature_dropout: float = Field(default=0.5, ge=0, lt=1)
    labeled_loss: LabeledLoss = Field(
        default=CrossEntropy(), description="ce, or ohem as published for Cityscapes."
    )
    streams: Literal["published", "lean"] = Field(
        default="published",
        description="lean leaves out what the loss does not read (the decoding of perturbed "
        "labeled features, gradients of the weak view): a fifth faster, with other batch norms.",
    )
    statistics: Literal["all", "clean"] = Field(
        default="all",
        description="What counts in batch norm's running statistics: all that is passed in "
        "training mode, as published, or labeled and weak crops in the encoder and weak ones in "
        "the decoder alone, as photos look in evaluation; clean needs lean streams.",
    )

    @model_validator(mode="after")
    def _clean_streams_are_lean(self) -> "StreamSettings":
        if self.statistics == "clean" and self.streams != "lean":
            raise ValueError("statistics is clean, which needs streams: lean")
        return self


class SmoothedSettings(StreamSettings):
    """Settings of the paper's rule, with its values; what it leaves open is in methods.md 2.6."""

    min_confidence: float = Field(
        default=0.7, ge=0, le=1, description="The model is believed from here on (eq. 7)."
    )
    smoothing: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Label smoothing (eq. 8); null is 1 / classes. Of 2 classes that leaves no "
        "trace of the label: set a number.",
    )
    smoothing_target: Literal["others", "all"] = Field(
        default="others",
        description="Smoothing s spreads s/(C-1) over the other classes, or s/C over all "
        "(as PyTorch's label_smoothing does); at s = 1/C they differ by a factor (C-1)/C in s.",
    )

    def rate(self, classes: int) -> float:
        """Return the probability that smoothing takes off the label, in [0, 1)."""
        smoothing = 1 / classes if self.smoothing is None else self.smoothing
        if self.smoothing_target == "all":
            smoothing *= (classes - 1) / classes
        return smoothing


@dataclass(frozen=True, kw_only=True, slots=True)
class Streams:
    """Logits of every stream of one step; `weak` and `partner` carry no gradient.

    `labeled` Float[B C S S]; the others Float[U C S S]: the weak view, the weak view decoded
    from perturbed features, the two strong views after CutMix, and the partner's weak view, None
    where CutMix pastes within the batch.
    """

    labeled: Float[Tensor, "B C S S"]
    weak: Float[Tensor, "U C S S"]
    feature: Float[Tensor, "U C S S"]
    strong1: Float[Tensor, "U C S S"]
    strong2: Float[Tensor, "U C S S"]
    partner: Float[Tensor, "U C S S"] | None


@runtime_checkable
class StreamLoss(Protocol):
    """The loss of one step out of its streams."""

    def __call__(
        self,
        streams: Streams,
        labeled: LabeledBatch,
        unlabeled: UnlabeledBatch,
        partner: UnlabeledBatch | None,
    ) -> StepLoss:
        """Return the loss of one step."""


class StreamMethod(Method):
    """A method that runs all streams and then only differs in their loss."""

    def __init__(self, loss: StreamLoss, settings: StreamSettings) -> None:
        self._loss = loss
        self._settings = settings

    def __call__(
        self,
        model: SegmentationNetwork,
        labeled: LabeledBatch,
        unlabeled: UnlabeledBatch | None,
        partner: UnlabeledBatch | None,
    ) -> StepLoss:
        """Return the loss of one step.

        Raises:
            ValueError: if there is no unlabeled batch.
        """
        unlabeled = present(unlabeled)
        streams = forward_streams(model, labeled, unlabeled, partner, settings=self._settings)
        loss = self._loss(streams, labeled, unlabeled, partner)
        return watched(loss, streams.weak, unlabeled)


def present(unlabeled: UnlabeledBatch | None) -> UnlabeledBatch:
    """Return an unlabeled batch.

    Raises:
        ValueError: if there is none.
    """
    if unlabeled is None:
        raise ValueError("this method needs an unlabeled batch")
    return unlabeled


def turned(maps: Shaped[Tensor, "U *rest"]) -> Shaped[Tensor, "U *rest"]:
    """Return a batch in which every image is another one: what CutMix pastes within it.

    From the last to the first, as in UniMatch V2; turned by one where their number is odd, since
    the one in the middle would meet itself.
    """
    return maps.flip(0) if len(maps) % 2 == 0 else maps.roll(1, 0)


def forward_streams(
    model: SegmentationNetwork,
    labeled: LabeledBatch,
    unlabeled: UnlabeledBatch,
    partner: UnlabeledBatch | None,
    *,
    settings: StreamSettings,
    teacher: SegmentationNetwork | None = None,
) -> Streams:
    """Run every stream in the official order, so that batch norm sees the official batches.

    The partner goes through in evaluation mode without gradient. Labeled and weak crops form
    one training batch; both are also decoded from perturbed features in the same batch. The
    labeled half of those logits is thrown away, but its statistics enter the batch norm. Lean
    streams leave that half out and decode the weak view by itself, in training mode too; with
    clean statistics, that pass and the encoder's of the clean crops are the ones that count.

    Args:
        model: The network; left in training mode.
        labeled: B labeled crops.
        unlabeled: U unlabeled crops.
        partner: The U crops that CutMix pastes from; None: those of the batch, turned.
        settings: How the streams are run.
        teacher: In the model's place, predicts the weak views of both batches, evaluating.
    """
    model.eval()
    judge = model if teacher is None else teacher.eval()
    with torch.no_grad():
        partner_logits = None if partner is None else judge(partner.weak)
        taught = None if teacher is None else teacher(unlabeled.weak)
    model.train()
    size = (labeled.image.shape[-2], labeled.image.shape[-1])
    counts = [len(labeled.image), len(unlabeled.weak)]
    clean = model.encode(torch.cat([labeled.image, unlabeled.weak]))
    rate = settings.feature_dropout
    perturbed = partial(uncounted, model) if settings.statistics == "clean" else nullcontext
    if settings.streams == "lean":
        parts = [torch.split(level, counts) for level in clean]
        both = [torch.cat([own, F.dropout2d(other, rate)]) for own, other in parts]
        with perturbed():
            on_labeled, feature = torch.split(model.decode(both, size), counts)
        if taught is None or settings.statistics == "clean":
            with torch.no_grad():
                weak = model.decode([other.detach() for _, other in parts], size)
    else:
        both = [torch.cat([level, F.dropout2d(level, rate)]) for level in clean]
        on_labeled, weak, _, feature = torch.split(model.decode(both, size), counts * 2)
    taught = weak.detach() if taught is None else taught
    with perturbed():
        strong1, strong2 = model(torch.cat(mixed_strong_views(unlabeled, partner))).chunk(2)
    return Streams(
        labeled=on_labeled,
        weak=taught,
        feature=feature,
        strong1=strong1,
        strong2=strong2,
        partner=partner_logits,
    )


def mixed_strong_views(unlabeled: UnlabeledBatch, partner: UnlabeledBatch | None) -> list[Tensor]:
    """Return both strong views after CutMix with the partner's, or within the batch."""
    first, second = unlabeled.strong1, unlabeled.strong2
    if partner is None:
        sources = [turned(first), turned(second)]
    else:
        sources = [partner.strong1, partner.strong2]
    boxes = (unlabeled.box1, unlabeled.box2)
    return [paste(*views) for views in zip((first, second), sources, boxes, strict=True)]


Maps = tuple[Tensor, ...]
"""Maps [U S S] that were found on weak views, such as labels and confidences."""


def found_on_both(
    streams: Streams,
    unlabeled: UnlabeledBatch,
    partner: UnlabeledBatch | None,
    find: Callable[[UnlabeledBatch, Tensor], Maps],
) -> tuple[Maps, Maps | None]:
    """Return what `find` makes of a batch and its logits, and the same of the partner, if any."""
    weak = find(unlabeled, streams.weak)
    if partner is None or streams.partner is None:
        return weak, None
    return weak, find(partner, streams.partner)


def lessons(
    streams: Streams,
    unlabeled: UnlabeledBatch,
    *,
    weak: Maps,
    source: Maps | None,
) -> Iterator[tuple[str, Float[Tensor, "U C S S"], Maps]]:
    """Yield the name of each stream that learns without masks, its logits, and what teaches it.

    Args:
        streams: Of the step.
        unlabeled: Whose boxes CutMix used.
        weak: What was found on the weak view.
        source: The same maps of the partner, which show inside the boxes; None: of the batch.
    """
    source = tuple(turned(maps) for maps in weak) if source is None else source
    strong = (
        ("strong1", streams.strong1, unlabeled.box1),
        ("strong2", streams.strong2, unlabeled.box2),
    )
    for name, logits, box in strong:
        yield name, logits, tuple(paste(a, b, box) for a, b in zip(weak, source, strict=True))
    yield "feature", streams.feature, weak


def step_loss(losses: Mapping[str, Float[Tensor, ""]], **shares: Float[Tensor, ""]) -> StepLoss:
    """Return L = (L_x + L_s1 / 4 + L_s2 / 4 + L_fp / 2) / 2 (eq. 9, 10), reported by its parts.

    Args:
        losses: Of `labeled`, `strong1`, `strong2` and `feature`.
        **shares: What else is reported.
    """
    unlabeled = 0.25 * (losses["strong1"] + losses["strong2"]) + 0.5 * losses["feature"]
    parts = {name: loss.detach() for name, loss in losses.items()}
    return StepLoss(total=(losses["labeled"] + unlabeled) / 2, parts={**parts, **shares})


def share(selected: Tensor, *, among: Tensor) -> Float[Tensor, ""]:
    """Return the share of `selected` pixels, in [0, 1], among the pixels where `among` holds."""
    return (selected & among).sum() / pixels(among)


def watched(loss: StepLoss, weak: Float[Tensor, "U C S S"], unlabeled: UnlabeledBatch) -> StepLoss:
    """Return a loss that also tells what labels the model gave, padding left out.

    The part `disagreement` is the share of the pixels with a zero-shot label where the model's
    own differs.

    Args:
        loss: Of the step.
        weak: The logits that label the weak views.
        unlabeled: The crops.
    """
    label = weak.detach().max(dim=1).indices
    found = count_classes(label, ~unlabeled.padding, classes=weak.shape[1])
    if unlabeled.zero_shot is None:
        return replace(loss, found=found)
    claimed = ~unlabeled.padding & (unlabeled.zero_shot != IGNORE_INDEX)
    differs = share(label != unlabeled.zero_shot, among=claimed)
    return replace(loss, found=found, parts={**loss.parts, "disagreement": differs})
