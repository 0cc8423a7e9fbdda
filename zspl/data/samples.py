"""One unlabeled sample, and the bytes that batches are under `train.views: tensor`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from zspl.data.colour_rows import rows
from zspl.data.strong import Colours
from zspl.records import LabeledCrops, UnlabeledCrops

Picture = UInt8[np.ndarray, "S S 3"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One unlabeled sample before it is batched.

    `strong` are the two strong views, or what both are to be made with.
    """

    weak: Picture
    strong: tuple[Picture | Colours, Picture | Colours]
    padding: Bool[np.ndarray, "S S"]
    boxes: tuple[Bool[Tensor, "S S"], Bool[Tensor, "S S"]]
    zero_shot: UInt8[np.ndarray, "S S"] | None
    confidence: UInt8[np.ndarray, "S S"] | None


def labeled_crops(
    images: Sequence[Picture], labels: Sequence[UInt8[np.ndarray, "S S"]]
) -> LabeledCrops:
    """Return a labeled batch as bytes."""
    return LabeledCrops(image=_stacked(images), label=_stacked(labels))


def unlabeled_crops(samples: Sequence[Sample]) -> UnlabeledCrops:
    """Return an unlabeled batch as bytes; its samples hold the draws of their strong views."""
    labels = [sample.zero_shot for sample in samples if sample.zero_shot is not None]
    confidences = [sample.confidence for sample in samples if sample.confidence is not None]
    drawn = [view for sample in samples for view in sample.strong if isinstance(view, Colours)]
    return UnlabeledCrops(
        image=_stacked([sample.weak for sample in samples]),
        marks=_stacked([_marks(sample) for sample in samples]),
        colours=torch.unflatten(rows(drawn), 0, (len(samples), 2)),
        zero_shot=_stacked(labels) if labels else None,
        zero_shot_confidence=_stacked(confidences) if confidences else None,
    )


def _marks(sample: Sample) -> UInt8[np.ndarray, "S S"]:
    first, second = (box.numpy().view(np.uint8) for box in sample.boxes)
    marks: np.ndarray = sample.padding.view(np.uint8) | first << 1 | second << 2
    return marks


def _stacked(maps: Sequence[UInt8[np.ndarray, "S S *C"]]) -> UInt8[Tensor, "B S S *C"]:
    return torch.from_numpy(np.stack(maps))
