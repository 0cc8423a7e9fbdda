"""Pseudo labels from proposals and features, one plugin per rule.

A labeler works in two steps, so that a threshold can be chosen in between: `score` finds for every
pixel the one class that could be painted and how similar it is, `assign` keeps what is above the
threshold of a `Decision`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from zspl.io.classes import ClassTable
from zspl.labeling._decision import Decision
from zspl.labeling._scoring import Scored
from zspl.records import DenseFeatures, PseudoLabel, SegmentProposals, TextEmbeddings

__all__ = ["Decision", "LabelInputs", "Labeler", "Scored"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelInputs:
    """All that a labeler may read of one image; None for what its variant does not name.

    `size` is the image's (height, width) in pixels.
    """

    image_id: str
    size: tuple[int, int]
    table: ClassTable
    proposals: SegmentProposals | None = None
    features: DenseFeatures | None = None
    text: TextEmbeddings | None = None


@runtime_checkable
class Labeler(Protocol):
    """What `build` of a labeling plugin returns."""

    @property
    def needs(self) -> frozenset[str]:
        """What must be read for it: a subset of {"proposals", "features"}."""

    @property
    def threshold(self) -> float | Literal["calibrated", "calibrated_per_class"] | None:
        """The score that a class must exceed, how it is found, or None where none applies."""

    @property
    def confidence(self) -> Literal["raw", "calibrated"]:
        """Whether the confidence is fitted on the labeled images."""

    @property
    def unassigned(self) -> int:
        """The label below the threshold: 0 or 255."""

    def files(self, image_ids: Sequence[str]) -> list[Path]:
        """Return the files it reads by itself, or raise DataError if one is missing."""

    def score(self, inputs: LabelInputs) -> Scored:
        """Find the class that each pixel would get, and its score."""

    def assign(self, scored: Scored, decision: Decision) -> PseudoLabel:
        """Paint the classes whose score exceeds their threshold."""
