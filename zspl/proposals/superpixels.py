"""Superpixels: segments without any weights, the floor that SAM has to beat."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from pydantic import Field

from zspl.records import SegmentProposals
from zspl.settings import Section


class Settings(Section):
    """Settings of scikit-image's SLIC and Felzenszwalb, with the library's defaults."""

    algorithm: Literal["slic", "felzenszwalb"] = "slic"
    segments: int = Field(100, gt=0, description="Aimed-at number of segments (slic).")
    compactness: float = Field(10.0, gt=0, description="Shape against colour (slic).")
    scale: float = Field(1.0, gt=0, description="Larger makes larger segments (felzenszwalb).")
    sigma: float | None = Field(
        None, ge=0, description="Gaussian smoothing; null: 0 for slic, 0.8 for felzenszwalb."
    )
    min_size: int = Field(20, gt=0, description="In pixels (felzenszwalb).")


class SuperpixelProposer:
    """Partitions an image; the segments cover it and do not overlap."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def propose(self, image: Image.Image) -> SegmentProposals:
        """Cut an RGB image into segments; every score is 1."""
        regions = self._partition(np.array(image.convert("RGB")))
        ids = np.unique(regions)
        scores = torch.ones(len(ids))
        return SegmentProposals(
            masks=torch.from_numpy(regions[None] == ids[:, None, None]),
            predicted_iou=scores,
            stability_score=scores.clone(),
        )

    def propose_batch(self, images: Sequence[Image.Image]) -> list[SegmentProposals]:
        """Cut several images, one after the other."""
        return [self.propose(image) for image in images]

    def _partition(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        from skimage import segmentation

        chosen = self._settings
        if chosen.algorithm == "slic":
            partition = segmentation.slic(
                pixels,
                n_segments=chosen.segments,
                compactness=chosen.compactness,
                sigma=chosen.sigma or 0.0,
                start_label=0,
            )
        else:
            partition = segmentation.felzenszwalb(
                pixels,
                scale=chosen.scale,
                sigma=0.8 if chosen.sigma is None else chosen.sigma,
                min_size=chosen.min_size,
            )
        return np.asarray(partition, np.int64)


def build(settings: Settings) -> SuperpixelProposer:
    """Return the proposer."""
    return SuperpixelProposer(settings)
