"""From segments with class scores to a label map: overlaps, gaps and the table of segments."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from pydantic import Field
from torch import Tensor

from zspl.labeling import LabelInputs
from zspl.labeling._masks import areas, as_float, bands, windows
from zspl.labeling._scoring import ClassTexts, Scored, ScoreSettings, dense_scored, settled
from zspl.records import IGNORE_INDEX, DenseFeatures, SegmentProposals, SegmentRow

_LISTED = 3
"""Classes in the table of segments."""


class RegionSettings(ScoreSettings):
    """What all labelers of segments let one choose; the paper leaves these rules open."""

    overlap: Literal["area", "score", "predicted_iou", "mean"] = Field(
        "area",
        description="Who wins where segments overlap: the smallest, the most similar, the one SAM "
        "trusts most; mean: the class with the best mean score of all segments there. A segment "
        "on top hides those below even when it is left unassigned.",
    )
    uncovered: Literal["dense", "background", "ignore"] = Field(
        "dense", description="Pixels in no segment: the dense label, 0, or 255."
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class RegionInputs:
    """What a labeler of segments reads, complete."""

    proposals: SegmentProposals
    features: DenseFeatures
    texts: ClassTexts

    @classmethod
    def of(cls, inputs: LabelInputs, *, labeler: str) -> "RegionInputs":
        """Take them from what is known of an image.

        Raises:
            ValueError: if proposals, features or texts are missing, or texts lack an embedding.
        """
        if inputs.proposals is None or inputs.features is None or inputs.text is None:
            raise ValueError(f"{labeler} needs proposals, features and texts")
        return cls(
            proposals=inputs.proposals,
            features=inputs.features,
            texts=ClassTexts.of(inputs.text, inputs.table),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class RegionScores:
    """What speaks for each class in each segment; columns as `ClassTexts.ids`.

    `votes` choose the class, `score` is how strong it is in the unit of the threshold; `cosines`
    in [-1, 1] and `probabilities` in [0, 1] are for the table and break ties of the votes.
    """

    votes: Float[Tensor, "N C"]
    score: Float[Tensor, "N C"]
    cosines: Float[Tensor, "N C"]
    probabilities: Float[Tensor, "N C"]

    def ranked(self) -> Int64[Tensor, "N C"]:
        """Return the columns of each segment, best first."""
        by_cosine = self.cosines.argsort(dim=1, descending=True, stable=True)
        votes = self.votes.gather(1, by_cosine)
        return by_cosine.gather(1, votes.argsort(dim=1, descending=True, stable=True))


def label_regions(inputs: RegionInputs, regions: RegionScores, settings: RegionSettings) -> Scored:
    """Paint the segments by the rules of `settings`, and describe each of them."""
    masks = inputs.proposals.masks
    ranked = regions.ranked()
    ids = torch.tensor(inputs.texts.ids, dtype=torch.uint8)
    if settings.overlap == "mean":
        column, score, covered = _averaged(masks, regions)
    else:
        column, score, covered = _stacked(inputs.proposals, regions, ranked, settings.overlap)
    painted = settled(ids[column], score, settings.score)
    rows = _segment_rows(inputs.proposals, regions, ranked, inputs.texts.ids)
    best_scores = regions.score.gather(1, ranked[:, :1])[:, 0].tolist()
    if not bool(covered.all()):
        painted = _merged(covered, painted, _uncovered(inputs, settings))
    return Scored(
        best=painted.best,
        score=painted.score,
        confidence=painted.confidence,
        segments=rows,
        segment_scores=tuple(
            score if row.assigned else math.inf
            for row, score in zip(rows, best_scores, strict=True)
        ),
    )


def _stacked(
    proposals: SegmentProposals,
    regions: RegionScores,
    ranked: Int64[Tensor, "N C"],
    overlap: str,
) -> tuple[Int64[Tensor, "H W"], Float[Tensor, "H W"], Bool[Tensor, "H W"]]:
    """Return the column and score of the segment on top of every pixel, and where there is one."""
    masks = proposals.masks
    best = ranked[:, 0]
    score = regions.score.gather(1, ranked[:, :1])[:, 0]
    on_top = np.zeros(masks.shape[1:], np.int64)
    pixels, boxes = masks.numpy(), windows(masks)
    for segment in _bottom_to_top(masks, score, overlap):
        top, bottom, left, right = boxes[segment]
        inside = pixels[segment, top:bottom, left:right]
        # 0 stays for no segment, the last row below.
        on_top[top:bottom, left:right][inside] = segment + 1
    index = torch.from_numpy(on_top)
    nothing = torch.zeros(1)
    return (
        torch.cat([nothing.long(), best])[index],
        torch.cat([nothing, score])[index],
        index > 0,
    )


def _bottom_to_top(
    masks: Bool[Tensor, "N H W"], score: Float[Tensor, " N"], overlap: str
) -> list[int]:
    """Return the painting order; among equals the one with the better predicted IoU is on top."""
    later_first = torch.arange(len(masks) - 1, -1, -1)
    if overlap == "predicted_iou":
        return later_first.tolist()
    key = -torch.tensor(areas(masks), dtype=torch.int64) if overlap == "area" else score
    return later_first[key[later_first].argsort(stable=True)].tolist()


def _averaged(
    masks: Bool[Tensor, "N H W"], regions: RegionScores
) -> tuple[Int64[Tensor, "H W"], Float[Tensor, "H W"], Bool[Tensor, "H W"]]:
    """Return the column with the best mean votes of all segments at every pixel, and its score."""
    size = masks.shape[1:]
    column = torch.zeros(size, dtype=torch.int64)
    score, number = torch.zeros(size), torch.zeros(size)
    for rows, inside in bands(masks):
        covering = as_float(masks[inside, rows])
        number[rows] = covering.sum(dim=0)
        shares = covering.flatten(1) / number[rows].flatten().clamp(min=1)
        votes = regions.votes[inside].T @ shares
        best = votes.argmax(dim=0, keepdim=True)
        same = regions.votes is regions.score
        strength = votes if same else regions.score[inside].T @ shares
        column[rows] = best.view(-1, size[1])
        score[rows] = strength.gather(0, best).view(-1, size[1])
    return column, score, number > 0


def _uncovered(inputs: RegionInputs, settings: RegionSettings) -> Scored:
    """Score the pixels in no segment; a fixed label has infinite score and confidence 0."""
    if settings.uncovered == "dense":
        return dense_scored(inputs.features, inputs.texts, settings.score)
    size = inputs.proposals.masks.shape[1:]
    value = 0 if settings.uncovered == "background" else IGNORE_INDEX
    return Scored(
        best=torch.full(size, value, dtype=torch.uint8),
        score=torch.full(size, math.inf),
        confidence=torch.zeros(size),
    )


def _merged(covered: Bool[Tensor, "H W"], inside: Scored, outside: Scored) -> Scored:
    return Scored(
        best=torch.where(covered, inside.best, outside.best),
        score=torch.where(covered, inside.score, outside.score),
        confidence=torch.where(covered, inside.confidence, outside.confidence),
    )


def _segment_rows(
    proposals: SegmentProposals,
    regions: RegionScores,
    ranked: Int64[Tensor, "N C"],
    ids: tuple[int, ...],
) -> tuple[SegmentRow, ...]:
    """Describe each segment with its three best classes."""
    listed = ranked[:, :_LISTED]
    boxes = [
        (left, top, right - left, bottom - top)
        for top, bottom, left, right in windows(proposals.masks)
    ]
    columns = zip(
        areas(proposals.masks),
        boxes,
        proposals.predicted_iou.tolist(),
        proposals.stability_score.tolist(),
        torch.tensor(ids)[listed].tolist(),
        regions.cosines.gather(1, listed).tolist(),
        regions.probabilities.gather(1, listed).tolist(),
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
