"""From similarities to a label map: scores, the threshold, and the confidence that goes along."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool, Float, UInt8
from pydantic import Field, field_validator
from torch import Tensor
from torch.nn import functional as F

from zspl.labeling._pooling import upsample
from zspl.records import DenseFeatures, PseudoLabel, SegmentRow, TextEmbeddings
from zspl.settings import Section

LOGIT_SCALE = 100.0
"""CLIP's own multiplier of the cosine before a softmax."""


class ScoreSettings(Section):
    """How a similarity becomes a class or none.

    The confidence of an assigned pixel is s, of an unassigned one 1 - s, where s in [0, 1] is the
    probability of its best class, or (1 + cosine) / 2.
    """

    score: Literal["cosine", "probability"] = Field(
        "probability",
        description="Eq. 2's cosine, or the softmax of 100 cosines over the foreground classes.",
    )
    threshold: float | Literal["calibrated"] = Field(
        "calibrated",
        description="A class must score higher; calibrated: best mIoU on the labeled images.",
    )
    unassigned: Literal[0, 255] = Field(
        0, description="The label without a class above the threshold: background or ignored."
    )

    @field_validator("threshold")
    @classmethod
    def _is_a_similarity(cls, threshold: float | str) -> float | str:
        if not isinstance(threshold, str) and not -1 <= threshold <= 1:
            raise ValueError("must be in [-1, 1] or the word calibrated")
        return threshold


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """One image before the threshold.

    `best` is the class id that a pixel would get, `score` how strong it is (infinite where no
    threshold applies), `confidence` in [0, 1] belongs to `best`. `segment_scores` go with
    `segments`, whose `assigned` is still the best class.
    """

    best: UInt8[Tensor, "H W"]
    score: Float[Tensor, "H W"]
    confidence: Float[Tensor, "H W"]
    segments: tuple[SegmentRow, ...] = ()
    segment_scores: tuple[float, ...] = ()


class Thresholded:
    """The part of a labeler that a threshold of the user or a calibrated one controls."""

    def __init__(self, settings: ScoreSettings) -> None:
        self._score_settings = settings

    @property
    def threshold(self) -> float | Literal["calibrated"] | None:
        """The score that a class must exceed, or "calibrated"."""
        return self._score_settings.threshold

    @property
    def unassigned(self) -> int:
        """The label below the threshold: 0 or 255."""
        return self._score_settings.unassigned

    def files(self, image_ids: Sequence[str]) -> list[Path]:  # noqa: ARG002 - of the protocol
        """Return no files: proposals and features are read by the caller."""
        return []

    def assign(self, scored: Scored, threshold: float) -> PseudoLabel:
        """Paint the classes whose score exceeds `threshold`."""
        return assign(scored, threshold, unassigned=self.unassigned)


def assign(scored: Scored, threshold: float, *, unassigned: int) -> PseudoLabel:
    """Keep the classes whose score is higher than `threshold`; the rest gets `unassigned`."""
    keep = scored.score > threshold
    confidence = torch.where(keep, scored.confidence, 1 - scored.confidence)
    rows = tuple(
        row if score > threshold else replace(row, assigned=unassigned)
        for row, score in zip(scored.segments, scored.segment_scores, strict=True)
    )
    return PseudoLabel(
        label=torch.where(keep, scored.best, unassigned), confidence=confidence, segments=rows
    )


def similarities(vectors: Float[Tensor, "N D"], text: TextEmbeddings) -> Float[Tensor, "N K"]:
    """Return the cosine of every vector with every class text (the paper's eq. 2)."""
    return F.normalize(vectors, dim=1) @ F.normalize(text.vectors, dim=1).T


def scores(cosines: Float[Tensor, "*N K"], kind: str) -> Float[Tensor, "*N K"]:
    """Turn cosines into what the threshold is compared with; classes on the last axis."""
    return (LOGIT_SCALE * cosines).softmax(dim=-1) if kind == "probability" else cosines


def certainty(score: Float[Tensor, "*N"], kind: str) -> Float[Tensor, "*N"]:
    """Map a score to [0, 1], as a confidence."""
    return (score if kind == "probability" else (1 + score) / 2).clamp(0, 1)


def dense_scores(
    features: DenseFeatures, text: TextEmbeddings, kind: str
) -> tuple[UInt8[Tensor, "H W"], Float[Tensor, "H W"]]:
    """Return the best class id (1, 2, ...) and its score at every pixel, without segments.

    The cosines are taken on the grid and interpolated bilinearly to the image's size.
    """
    cells = features.grid.flatten(1).T
    cosines = similarities(cells, text).T.reshape(-1, *features.grid.shape[1:])
    dense = upsample(cosines, features.image_size)
    score, best = scores(dense.movedim(0, -1), kind).max(dim=-1)
    return (best + 1).to(torch.uint8), score


def segment_rows(
    masks: Bool[Tensor, "N H W"],
    cosines: Float[Tensor, "N K"],
    quality: tuple[Float[Tensor, " N"], Float[Tensor, " N"]],
) -> tuple[SegmentRow, ...]:
    """Describe each segment with its three best classes; `quality` is SAM's two scores."""
    best_cosines, order = cosines.topk(min(3, cosines.shape[1]), dim=1)
    probabilities = scores(cosines, "probability").gather(1, order)
    columns = zip(
        masks.sum(dim=(1, 2)).tolist(),
        _boxes(masks),
        quality[0].tolist(),
        quality[1].tolist(),
        (order + 1).tolist(),
        best_cosines.tolist(),
        probabilities.tolist(),
        strict=True,
    )
    return tuple(
        SegmentRow(
            area=area,
            bbox=box,
            predicted_iou=iou,
            stability_score=stability,
            classes=tuple(classes),
            cosines=tuple(cosine),
            probabilities=tuple(probability),
            assigned=classes[0],
        )
        for area, box, iou, stability, classes, cosine, probability in columns
    )


def always(label: UInt8[Tensor, "H W"], confidence: Float[Tensor, "H W"]) -> Scored:
    """Return a finished label map as one that every threshold keeps."""
    return Scored(best=label, score=torch.full(label.shape, math.inf), confidence=confidence)


def _boxes(masks: Bool[Tensor, "N H W"]) -> list[tuple[int, int, int, int]]:
    """Return XYWH boxes in pixels; an empty mask gets zeros."""
    left, width = _extent(masks.any(dim=1))
    top, height = _extent(masks.any(dim=2))
    return list(zip(left, top, width, height, strict=True))


def _extent(occupied: Bool[Tensor, "N L"]) -> tuple[list[int], list[int]]:
    marks = occupied.to(torch.uint8)
    first = marks.argmax(dim=1)
    beyond = marks.shape[1] - marks.flip(1).argmax(dim=1)
    length = (beyond - first) * occupied.any(dim=1)
    return first.tolist(), length.tolist()
