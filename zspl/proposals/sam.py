"""Segment Anything with its automatic masks: a grid of points, three masks each."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from pydantic import Field

from zspl.io import devices
from zspl.proposals._sam_generator import Generator, GeneratorSettings
from zspl.proposals._sam_segments import Segments
from zspl.proposals._sam_weights import CheckpointSettings, load
from zspl.records import SegmentProposals

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

_Mask = npt.NDArray[np.bool_]


class Settings(CheckpointSettings, GeneratorSettings):
    """The model, its precision, and the knobs of its mask generator."""

    dtype: Literal["float32", "bfloat16", "float16", "auto"] = Field(
        "float32",
        description="Precision of the networks; scores and masks are decided in float32. Less "
        "than float32 gives somewhat other masks.",
    )
    max_side: int | None = Field(
        1024,
        gt=0,
        description="Larger images are shrunk to this side for mask generation; SAM itself sees "
        "1024 pixels. Unlike the library, whose masks have the image's size; null: as there.",
    )


class SamProposer:
    """Makes the same masks as `SamAutomaticMaskGenerator`, several times faster."""

    def __init__(self, sam: "Sam", settings: Settings) -> None:
        self.device = devices.chosen()
        self._max_side = settings.max_side
        self.generator = Generator(sam.to(self.device), settings, devices.dtype(settings.dtype))

    def propose(self, image: Image.Image) -> SegmentProposals:
        """Cut an RGB image into segments at its own size, by descending predicted IoU."""
        return self.propose_batch([image])[0]

    def propose_batch(self, images: Sequence[Image.Image]) -> list[SegmentProposals]:
        """Cut several images of any sizes; on a GPU they share passes of the image encoder."""
        seen = [np.array(_shrunk(image.convert("RGB"), self._max_side)) for image in images]
        found = self.generator.generate(seen)
        return [
            _proposals(segments, seen=(pixels.shape[0], pixels.shape[1]), size=image.size)
            for segments, pixels, image in zip(found, seen, images, strict=True)
        ]


def build(settings: Settings) -> SamProposer:
    """Load SAM and return the proposer.

    Raises:
        WeightsError: if the checkpoint is missing, has a wrong checksum or does not fit.
        SettingsError: if the device does not compute in `dtype`.
    """
    return SamProposer(load(settings), settings)


def _proposals(
    segments: Segments, *, seen: tuple[int, int], size: tuple[int, int]
) -> SegmentProposals:
    width, height = size
    masks = np.zeros((len(segments.outlines), height, width), np.bool_)
    for mask, outline in zip(masks, segments.outlines, strict=True):
        if seen == (height, width):
            outline.paint(mask)
        else:
            small = np.zeros(seen, np.bool_)
            outline.paint(small)
            mask[:] = _enlarged(small, size)
    return SegmentProposals(
        masks=torch.from_numpy(masks),
        predicted_iou=segments.scores,
        stability_score=segments.stability,
    )


def _shrunk(image: Image.Image, max_side: int | None) -> Image.Image:
    if max_side is None or max(image.size) <= max_side:
        return image
    scale = max_side / max(image.size)
    width, height = (max(1, int(side * scale + 0.5)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR)


def _enlarged(mask: _Mask, size: tuple[int, int]) -> _Mask:
    resized = Image.fromarray(mask.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    return np.array(resized, dtype=bool)
