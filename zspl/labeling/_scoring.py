"""From similarities to a label map: scores, the threshold, and the confidence that goes along."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from pydantic import Field, field_validator
from torch import Tensor
from torch.nn import functional as F

from zspl.io.classes import ClassTable
from zspl.labeling._pooling import upsample
from zspl.records import DenseFeatures, SegmentRow, TextEmbeddings
from zspl.settings import Section

LOGIT_SCALE = 100.0
"""CLIP's own multiplier of the cosine before a softmax."""

_BAND_VALUES = 1 << 24
"""Cosines of pixels with texts that exist at once; 64 MB."""


class ScoreSettings(Section):
    """How a similarity becomes a class or none.

    The raw confidence of an assigned pixel is s, of an unassigned one 1 - s, where s in [0, 1] is
    the probability of its best class, or (1 + cosine) / 2.
    """

    score: Literal["cosine", "probability"] = Field(
        "probability",
        description="Eq. 2's cosine, or the softmax of 100 cosines over all texts; a class has "
        "the best of its synonyms.",
    )
    threshold: float | Literal["calibrated", "calibrated_per_class"] = Field(
        "calibrated",
        description="A class must score higher; calibrated: best mIoU on the labeled images; "
        "calibrated_per_class: also one of its own for each class where that holds up.",
    )
    confidence: Literal["raw", "calibrated"] = Field(
        "raw",
        description="raw: s or 1 - s; calibrated: the probability that the label is right, fitted "
        "on the labeled images. Label maps stay the same.",
    )
    unassigned: Literal[0, 255] = Field(
        0, description="The label without a class above the threshold: background or ignored."
    )

    @field_validator("threshold")
    @classmethod
    def _is_a_similarity(cls, threshold: float | str) -> float | str:
        if not isinstance(threshold, str) and not -1 <= threshold <= 1:
            raise ValueError("must be in [-1, 1], calibrated or calibrated_per_class")
        return threshold


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """One image before the threshold.

    `best` is the class id that a pixel would get, `score` how strong it is, `confidence` in
    [0, 1] belongs to `best`. The score is infinite where no threshold applies; that includes
    pixels and segments that a background text won: they are background, with a confidence of
    their own, and never `unassigned`. `segment_scores` go with `segments`, whose `assigned` is
    still the best class.
    """

    best: UInt8[Tensor, "H W"]
    score: Float[Tensor, "H W"]
    confidence: Float[Tensor, "H W"]
    segments: tuple[SegmentRow, ...] = ()
    segment_scores: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassTexts:
    """The unit vector of each text and the class id it speaks for; 0 is the background."""

    vectors: Float[Tensor, "P D"]
    classes: tuple[int, ...]

    @classmethod
    def of(cls, text: TextEmbeddings, table: ClassTable) -> "ClassTexts":
        """Join embeddings with the classes of their texts.

        Raises:
            ValueError: if they are not as many as the table's texts.
        """
        if len(text.vectors) != len(table.texts):
            raise ValueError(
                f"expected one embedding for each of {len(table.texts)} texts, "
                f"got {len(text.vectors)}"
            )
        return cls(vectors=F.normalize(text.vectors, dim=1), classes=table.text_classes)

    @property
    def ids(self) -> tuple[int, ...]:
        """The class ids that have a text, ascending: the columns of `by_class`."""
        return tuple(sorted(set(self.classes)))

    def cosines(self, vectors: Float[Tensor, "N D"]) -> Float[Tensor, "N P"]:
        """Return the cosine of every vector with every text (the paper's eq. 2)."""
        return F.normalize(vectors, dim=1) @ self.vectors.T

    def by_class(self, per_text: Float[Tensor, "*N P"]) -> Float[Tensor, "*N C"]:
        """Give each class the best of its texts, as the SCLIP family does."""
        if self.classes == self.ids:
            return per_text
        spoken = torch.tensor(self.classes)
        best = [per_text[..., spoken == class_id].amax(dim=-1) for class_id in self.ids]
        return torch.stack(best, dim=-1)


def scores(cosines: Float[Tensor, "*N P"], kind: str) -> Float[Tensor, "*N P"]:
    """Turn cosines into what the threshold is compared with; all texts on the last axis."""
    return (LOGIT_SCALE * cosines).softmax(dim=-1) if kind == "probability" else cosines


def certainty(score: Float[Tensor, "*N"], kind: str) -> Float[Tensor, "*N"]:
    """Map a score to [0, 1], as a confidence."""
    return (score if kind == "probability" else (1 + score) / 2).clamp(0, 1)


def settled(best: UInt8[Tensor, "H W"], score: Float[Tensor, "H W"], kind: str) -> Scored:
    """Add the confidence, and lift what is background by a text of its own above any threshold."""
    return Scored(
        best=best,
        score=score.masked_fill(best == 0, math.inf),
        confidence=certainty(score, kind),
    )


def dense_scored(features: DenseFeatures, texts: ClassTexts, kind: str) -> Scored:
    """Find the best class and its score at every pixel, without segments.

    The cosines are taken on the grid and interpolated bilinearly to the image's size, a band of
    rows at a time where there are many texts and pixels.
    """
    height, width = features.image_size
    maps = cosine_maps(features, texts)
    score = torch.empty(height, width)
    best = torch.empty(height, width, dtype=torch.uint8)
    classes = torch.tensor(texts.classes, dtype=torch.uint8)
    step = max(1, _BAND_VALUES // (len(maps) * width))
    for top in range(0, height, step):
        rows = slice(top, min(height, top + step))
        dense = upsample(maps, features.image_size, rows=rows)
        score[rows], found = scores(dense.movedim(0, -1), kind).max(dim=-1)
        best[rows] = classes[found]
    return settled(best, score, kind)


def cosine_maps(features: DenseFeatures, texts: ClassTexts) -> Float[Tensor, "P h w"]:
    """Return the cosine of every grid cell with every text."""
    cells = features.grid.flatten(1).T
    return texts.cosines(cells).T.reshape(-1, *features.grid.shape[1:])


def always(label: UInt8[Tensor, "H W"], confidence: Float[Tensor, "H W"]) -> Scored:
    """Return a finished label map as one that every threshold keeps."""
    return Scored(best=label, score=torch.full(label.shape, math.inf), confidence=confidence)
