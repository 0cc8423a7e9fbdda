"""The paper's annotation: average the features inside each SAM segment, then name the segment."""

import math
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from pydantic import Field
from torch import Tensor

from zspl.labeling import LabelInputs
from zspl.labeling._pooling import pool
from zspl.labeling._scoring import (
    Scored,
    ScoreSettings,
    Thresholded,
    certainty,
    dense_scores,
    scores,
    segment_rows,
    similarities,
)
from zspl.records import IGNORE_INDEX


class Settings(ScoreSettings):
    """Settings of SAM-based pooling; the paper leaves the rules for overlaps and gaps open."""

    overlap: Literal["area", "score", "predicted_iou", "mean"] = Field(
        "area",
        description="Who wins where segments overlap: the smallest, the most similar, the one SAM "
        "trusts most; mean: the class with the best mean score of all segments there. A segment "
        "on top hides those below even when it is left unassigned.",
    )
    uncovered: Literal["dense", "background", "ignore"] = Field(
        "dense", description="Pixels in no segment: the dense label, 0, or 255."
    )
    normalise_tokens: bool = Field(
        default=False, description="Pool unit vectors instead of eq. 1's raw features."
    )


class RegionPool(Thresholded):
    """Names segments by the similarity of their pooled features with the class texts."""

    needs = frozenset({"proposals", "features"})

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._settings = settings

    def score(self, inputs: LabelInputs) -> Scored:
        """Find the class that each pixel would get, and its score (eq. 1 and 2).

        Raises:
            ValueError: if `inputs` lack proposals, features or texts.
        """
        if inputs.proposals is None or inputs.features is None or inputs.text is None:
            raise ValueError("region_pool needs proposals, features and texts")
        chosen = self._settings
        masks = inputs.proposals.masks
        vectors = pool(inputs.features.grid, masks, normalise=chosen.normalise_tokens)
        cosines = similarities(vectors, inputs.text)
        segment_scores = scores(cosines, chosen.score)
        best, score = _painted(masks, segment_scores, chosen.overlap)
        confidence = certainty(score, chosen.score)
        covered = masks.any(dim=0)
        if not bool(covered.all()):
            dense = self._uncovered(inputs)
            best = torch.where(covered, best, dense.best)
            score = torch.where(covered, score, dense.score)
            confidence = torch.where(covered, confidence, dense.confidence)
        quality = (inputs.proposals.predicted_iou, inputs.proposals.stability_score)
        return Scored(
            best=best,
            score=score,
            confidence=confidence,
            segments=segment_rows(masks, cosines, quality),
            segment_scores=tuple(segment_scores.amax(dim=1).tolist()),
        )

    def _uncovered(self, inputs: LabelInputs) -> Scored:
        """Score the pixels in no segment; a fixed label has infinite score and confidence 0."""
        chosen = self._settings
        if chosen.uncovered == "dense" and inputs.features is not None and inputs.text is not None:
            best, score = dense_scores(inputs.features, inputs.text, chosen.score)
            return Scored(best=best, score=score, confidence=certainty(score, chosen.score))
        value = 0 if chosen.uncovered == "background" else IGNORE_INDEX
        return Scored(
            best=torch.full(inputs.size, value, dtype=torch.uint8),
            score=torch.full(inputs.size, math.inf),
            confidence=torch.zeros(inputs.size),
        )


def build(settings: Settings) -> RegionPool:
    """Return the labeler."""
    return RegionPool(settings)


def _painted(
    masks: Bool[Tensor, "N H W"], segment_scores: Float[Tensor, "N K"], overlap: str
) -> tuple[UInt8[Tensor, "H W"], Float[Tensor, "H W"]]:
    """Return the best class id and its score at every pixel; 0 and 0 outside all segments."""
    if not len(masks):
        size = masks.shape[1:]
        return torch.zeros(size, dtype=torch.uint8), torch.zeros(size)
    if overlap == "mean":
        covering = masks.flatten(1).float()
        mean = segment_scores.T @ covering / covering.sum(dim=0).clamp(min=1)
        score, best = mean.max(dim=0)
        return (best + 1).to(torch.uint8).view(masks.shape[1:]), score.view(masks.shape[1:])
    score, best = segment_scores.max(dim=1)
    on_top = np.zeros(masks.shape[1:], np.int64)
    pixels = masks.numpy()
    for segment in _bottom_to_top(masks, score, overlap):
        on_top[pixels[segment]] = segment
    index = torch.from_numpy(on_top)
    return (best + 1).to(torch.uint8)[index], score[index]


def _bottom_to_top(
    masks: Bool[Tensor, "N H W"], score: Float[Tensor, " N"], overlap: str
) -> list[int]:
    """Return the painting order; among equals the one with the better predicted IoU is on top."""
    later_first = torch.arange(len(masks) - 1, -1, -1)
    if overlap == "predicted_iou":
        return later_first.tolist()
    key = -masks.sum(dim=(1, 2)) if overlap == "area" else score
    return later_first[key[later_first].argsort(stable=True)].tolist()
