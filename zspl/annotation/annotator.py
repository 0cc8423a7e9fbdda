"""Segments, features and a labeling rule, put together: photos in, label maps out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool
from PIL import Image
from torch import Tensor

from zspl.annotation.facts import Facts
from zspl.annotation.photos import Photo
from zspl.features import Encoder
from zspl.io.classes import ClassTable
from zspl.io.images import Pixels
from zspl.labeling import Decision, Labeler, LabelInputs, Scored
from zspl.proposals import Proposer
from zspl.records import (
    DenseFeatures,
    PseudoLabel,
    SegmentProposals,
    SegmentRow,
    TextEmbeddings,
)

Confidence = npt.NDArray[np.float32]
Map = TypeVar("Map", Pixels, Confidence)

_SMOOTH = Image.Resampling.LANCZOS


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """A photo as the models see it: 8-bit RGB, upright, maybe shrunk.

    `size` is the (width, height) it had before, in pixels.
    """

    photo: Photo
    image: Image.Image
    size: tuple[int, int]

    @classmethod
    def of(cls, photo: Photo, image: Image.Image, max_side: int | None) -> "Seen":
        """Shrink an image whose longer side is above `max_side` pixels; None never shrinks."""
        small = shrunk_size(image.size, max_side)
        if small != image.size:
            return cls(photo=photo, image=image.resize(small, _SMOOTH), size=image.size)
        return cls(photo=photo, image=image, size=image.size)


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What the models found in a photo: its segments and scores."""

    proposals: SegmentProposals | None
    scored: Scored


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotation:
    """The label of one photo as it was seen; `coverage` and `conflict` are those of its facts."""

    seen: Seen
    made: PseudoLabel
    coverage: float | None
    conflict: float | None

    def label(self) -> Pixels:
        """Return the label map UInt8[H W] at the photo's own size."""
        return resized(self.made.label.numpy(), self.seen.size)

    def confidence(self) -> Confidence:
        """Return the confidence Float32[H W] in [0, 1] at the photo's own size."""
        values: Confidence = self.made.confidence.float().numpy()
        return resized(values, self.seen.size)

    def facts(self, label: Pixels, stat: tuple[int, int]) -> Facts:
        """Return the facts; `label` is the map of `label`, `stat` the file that was read."""
        photo, (width, height) = self.seen.photo, self.seen.size
        counts = np.bincount(label.reshape(-1), minlength=256)
        return Facts(
            name=photo.name,
            source=photo.source,
            width=width,
            height=height,
            pixels={int(class_id): int(counts[class_id]) for class_id in np.flatnonzero(counts)},
            coverage=self.coverage,
            conflict=self.conflict,
            doubt=max(0.0, float(1 - self.made.confidence.double().mean())),
            segments=_enlarged(self.made.segments, self.seen.image.size, (width, height)),
            stat=stat,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotator:
    """Labels photos; what it needs not is None. `text` belongs to `encoder`."""

    table: ClassTable
    labeler: Labeler
    proposer: Proposer | None
    encoder: Encoder | None
    text: TextEmbeddings | None

    def look(self, photos: Sequence[Seen]) -> list[View]:
        """Find segments and score classes; one pass of each network for all photos."""
        images = [seen.image for seen in photos]
        segments = self.proposer.propose_batch(images) if self.proposer else None
        features: Sequence[DenseFeatures | None] = [None] * len(images)
        if self.encoder:
            wanted = segments if self.encoder.sees_segments else None
            features = self.encoder.dense_batch(images, wanted)
        views = []
        for index, seen in enumerate(photos):
            proposals = segments[index] if segments else None
            inputs = LabelInputs(
                image_id=seen.photo.name,
                size=(seen.image.height, seen.image.width),
                table=self.table,
                proposals=proposals,
                features=features[index],
                text=self.text,
            )
            views.append(View(proposals=proposals, scored=self.labeler.score(inputs)))
        return views

    def annotate(self, photos: Sequence[Seen], decision: Decision) -> list[Annotation]:
        """Label photos."""
        annotations = []
        for seen, view in zip(photos, self.look(photos), strict=True):
            masks = None if view.proposals is None else view.proposals.masks
            annotations.append(
                Annotation(
                    seen=seen,
                    made=self.labeler.assign(view.scored, decision),
                    coverage=None if masks is None else _coverage(masks),
                    conflict=_conflict(masks, view.scored.segments),
                )
            )
        return annotations


def shrunk_size(size: tuple[int, int], max_side: int | None) -> tuple[int, int]:
    """Return (width, height) with the longer one at most `max_side`, the shorter one at least 1.

    Example:
        >>> shrunk_size((4000, 3000), 2000)
        (2000, 1500)
    """
    if max_side is None or max(size) <= max_side:
        return size
    width, height = (max(1, round(side * max_side / max(size))) for side in size)
    return width, height


def resized(pixels: Map, size: tuple[int, int]) -> Map:
    """Return a map at another (width, height), by the nearest pixel."""
    if pixels.shape == (size[1], size[0]):
        return pixels
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST))


def _coverage(masks: Bool[Tensor, "N H W"]) -> float:
    return float(masks.any(dim=0).float().mean()) if len(masks) else 0.0


def _conflict(
    masks: Bool[Tensor, "N H W"] | None, segments: tuple[SegmentRow, ...]
) -> float | None:
    """Return the share of pixels that lie in segments of two or more best classes."""
    if masks is None or len(masks) != len(segments):
        return None
    votes = torch.zeros(masks.shape[1:], dtype=torch.uint8)
    best = np.array([row.assigned for row in segments])
    for class_id in np.unique(best):
        votes += masks[torch.from_numpy(best == class_id)].any(dim=0)
    return float((votes > 1).float().mean())


def _enlarged(
    rows: tuple[SegmentRow, ...], seen: tuple[int, int], size: tuple[int, int]
) -> tuple[SegmentRow, ...]:
    """Return segments in the photo's own pixels; of a shrunk photo they are estimates."""
    if seen == size:
        return rows
    x, y = size[0] / seen[0], size[1] / seen[1]
    scaled = []
    for row in rows:
        left, top, width, height = row.bbox
        box = (round(left * x), round(top * y), round(width * x), round(height * y))
        scaled.append(replace(row, area=round(row.area * x * y), bbox=box))
    return tuple(scaled)
