"""CLIP on crops: every segment is cut out of the photo and embedded as a picture of its own.

The idea of SaLIP (Aleem et al., "Test-Time Adaptation with SaLIP", CVPR workshops 2024). Unlike the
paper, no class picks its best segments: every segment gets its embedding, and the labeler names it.
Pixels in no segment keep plain CLIP's dense tokens.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from PIL import Image, ImageFilter
from pydantic import Field
from torch import Tensor

from zspl.features._open_clip import ClipEncoder, ClipSettings
from zspl.records import DenseFeatures, SegmentProposals

_CROPS_PER_PASS = 64
_BLUR = 0.05
"""Standard deviation of the blur, relative to the photo's longer side."""

Mask = npt.NDArray[np.bool_]
Window = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are the first ones outside."""


class Settings(ClipSettings):
    """Settings of CLIP on crops; `image_size` is that of the dense tokens between segments."""

    margin: float = Field(
        0.1, ge=0, description="Added on each side of a segment's box, relative to its longer side."
    )
    square: bool = Field(
        default=True, description="Widen the shorter side, so that a crop is not stretched."
    )
    outside: Literal["keep", "mean", "blur"] = Field(
        "blur",
        description="A crop's pixels outside of the segment: as they are, in the photo's mean "
        "colour, or blurred.",
    )


class CropEncoder(ClipEncoder):
    """Embeds photos patch by patch, and their segments crop by crop.

    Args:
        settings: The model, and how segments are cut out.
    """

    sees_segments = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._cutting = settings

    @torch.inference_mode()
    def dense_batch(
        self,
        images: Sequence[Image.Image],
        proposals: Sequence[SegmentProposals] | None = None,
    ) -> list[DenseFeatures]:
        """Embed several images, and the crops of all their segments; nothing is normalised.

        An empty segment has no crop: its embedding is zero.

        Raises:
            ValueError: if there are no proposals, or they are of another size than their image.
        """
        grids = super().dense_batch(images, proposals)
        if not grids:
            return []
        masks = [found.masks.numpy() for found in proposals or ()]
        crops = (c for pair in zip(images, masks, strict=True) for c in self._crops(*pair))
        none = torch.zeros(0, len(grids[0].grid))
        embedded = iter(torch.cat([none, *self._embed(crops)]))
        found = []
        for dense, own in zip(grids, masks, strict=True):
            rows = [next(embedded) if mask.any() else none.new_zeros(none.shape[1]) for mask in own]
            found.append(replace(dense, segments=torch.stack(rows) if rows else none))
        return found

    def _crops(self, image: Image.Image, masks: npt.NDArray[np.bool_]) -> Iterator[Tensor]:
        """Yield every segment that is not empty as the network's input, Float[3 S S]."""
        if masks.shape[1:] != (image.height, image.width):
            raise ValueError(
                f"masks are of {masks.shape[1:]} pixels, their image of "
                f"{(image.height, image.width)}"
            )
        side = self.model.visual.image_size[0]
        outside = _outside(image, self._cutting.outside)
        for mask in masks:
            if mask.any():
                window = crop_window(mask, margin=self._cutting.margin, square=self._cutting.square)
                segment = Image.fromarray(mask).crop(window)
                crop = Image.composite(image.crop(window), outside.crop(window), segment)
                yield self.pixels(crop, side)

    def _embed(self, crops: Iterator[Tensor]) -> Iterator[Float[Tensor, "M D"]]:
        """Yield the image embeddings of some crops at a time."""
        while some := list(islice(crops, _CROPS_PER_PASS)):
            pixels = torch.stack(some).to(self.device, self._dtype)
            yield self.model.encode_image(pixels).float().cpu()


def build(settings: Settings) -> CropEncoder:
    """Return the encoder.

    Raises:
        SettingsError: if open_clip has no such model or weights.
        WeightsError: if the weights cannot be had.
    """
    return CropEncoder(settings)


def crop_window(mask: Mask, *, margin: float, square: bool) -> Window:
    """Return what to cut out of a photo for one segment.

    The segment's box grows by the margin on every side, and to a square if asked for. A part that
    lies beyond the photo is moved to the other side, as far as there is room.

    Args:
        mask: Bool[H W], not empty.
        margin: Relative to the longer side of the box.
        square: Whether the shorter side grows to the longer one.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    extents = [(int(inside[0]), int(inside[-1]) + 1) for inside in (columns, rows)]
    longer = max(end - start for start, end in extents)
    sides = [longer if square else end - start for start, end in extents]
    height, width = mask.shape
    (left, right), (top, bottom) = (
        _widened(extent, side + 2 * margin * longer, room)
        for extent, side, room in zip(extents, sides, (width, height), strict=True)
    )
    return left, top, right, bottom


def _widened(extent: tuple[int, int], length: float, room: int) -> tuple[int, int]:
    """Widen an extent around its centre to whole pixels, inside of 0..room."""
    centre = sum(extent) / 2
    start, end = math.floor(centre - length / 2), math.ceil(centre + length / 2)
    start, end = min(start, start - (end - room)), max(end, end - start)
    return max(start, 0), min(end, room)


def _outside(image: Image.Image, kind: str) -> Image.Image:
    """Return the picture that shows where a segment is not."""
    if kind == "blur":
        return image.filter(ImageFilter.GaussianBlur(_BLUR * max(image.size)))
    if kind == "mean":
        red, green, blue = np.asarray(image).reshape(-1, 3).mean(axis=0).round().astype(int)
        return Image.new("RGB", image.size, (int(red), int(green), int(blue)))
    return image
