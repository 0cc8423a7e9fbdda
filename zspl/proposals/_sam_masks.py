"""From the decoder's small logits to masks of a photo, without its size in floats.

`segment_anything` enlarges the logits to the side that SAM sees, cuts the padding off and
resizes to the photo: three linear maps, separable, so together one matrix per axis with at most
three values in a row. A mask is made tile by tile, and its pixels are counted while a tile is in
the cache. n masks, y x low-resolution pixels, H W pixels of the photo or crop.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

Mask = npt.NDArray[np.bool_]

_TILE = (128, 512)  # rows and columns: 256 kB of float32, which stays in a CPU's cache
_BATCH_BYTES = 200 << 20  # of float32 masks that exist at once where masks are made together


class Outline(NamedTuple):
    """A mask as the bits of the rectangle outside of which it is empty."""

    top: int
    left: int
    height: int
    width: int
    bits: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, mask: Mask, *, top: int = 0, left: int = 0) -> "Outline":
        """Pack a mask that lies at `top`, `left` of the image."""
        return cls(top, left, mask.shape[0], mask.shape[1], np.packbits(mask))

    def moved(self, *, down: int, right: int) -> "Outline":
        """Return the same mask at another place."""
        return self._replace(top=self.top + down, left=self.left + right)

    def paint(self, image: Mask) -> None:
        """Set the pixels of the mask in an image that is empty there."""
        pixels = np.unpackbits(self.bits, count=self.height * self.width).view(np.bool_)
        bottom, right = self.top + self.height, self.left + self.width
        image[self.top : bottom, self.left : right] = pixels.reshape(self.height, self.width)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cutoffs:
    """Where logits become a mask, and the two cutoffs whose masks the stability compares.

    `least` is the stability below which a mask is of no use; not above 0: all are of use.
    """

    mask: float
    offset: float
    least: float

    @property
    def lowest(self) -> float:
        """The least of the three cutoffs."""
        return self.mask - abs(self.offset)

    def refuses(self, above: int, below: int) -> bool:
        """Whether a mask of so many pixels above either cutoff is below `least`, in float32."""
        if self.least <= 0:
            return False
        return below == 0 or not np.float32(above) / np.float32(below) >= np.float32(self.least)


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """Masks with their stability, in [0, 1] or NaN, and tight boxes (XYXY, inclusive pixels)."""

    index: Int64[Tensor, " n"]
    stability: Float[Tensor, " n"]
    boxes: Int64[Tensor, "n 4"]
    outlines: list[Outline]


class Canvas:
    """Draws masks of one size of photo or crop.

    Args:
        logits: Rows and columns of the decoder's logits.
        side: The square that SAM sees, in pixels.
        seen: Height and width of the photo in that square; the rest is padding.
        size: Height and width of the photo.
        device: Where the logits are. On a CPU masks are drawn one by one, elsewhere together.
    """

    def __init__(
        self,
        logits: tuple[int, int],
        *,
        side: int,
        seen: tuple[int, int],
        size: tuple[int, int],
        device: torch.device,
    ) -> None:
        self.size = size
        self._rows = _Axis(logits[0], side=side, seen=seen[0], size=size[0], device=device)
        self._columns = _Axis(logits[1], side=side, seen=seen[1], size=size[1], device=device)
        self._one_by_one = device.type == "cpu"

    @property
    def at_once(self) -> int:
        """How many masks are drawn together."""
        height, width = self.size
        return 1 if self._one_by_one else max(1, _BATCH_BYTES // (4 * height * width))

    @property
    def used_rows(self) -> int:
        """How many rows of logits matter; those below are padding."""
        return self._rows.used

    def draw(self, logits: Float[Tensor, "n y x"], cutoffs: Cutoffs) -> Drawn:
        """Draw masks and measure them; those below `least` may be left out."""
        if self._one_by_one:
            return self._draw_one_by_one(logits, cutoffs)
        return self._draw_together(logits, cutoffs)

    def _draw_one_by_one(self, logits: Float[Tensor, "n y x"], cutoffs: Cutoffs) -> Drawn:
        index, counts, boxes, outlines = [], [], [], []
        for k, low in enumerate(logits):
            mask, (top, left), count = self._measured(low, cutoffs)
            if cutoffs.refuses(*count):
                continue
            index.append(k)
            counts.append(count)
            boxes.append(_box(mask, top=top, left=left))
            outlines.append(Outline.of(mask, top=top, left=left))
        pixels = torch.tensor(counts, dtype=torch.int32).view(-1, 2)
        return Drawn(
            index=torch.tensor(index, dtype=torch.int64),
            stability=pixels[:, 0] / pixels[:, 1],
            boxes=torch.tensor(boxes, dtype=torch.int64).view(-1, 4),
            outlines=outlines,
        )

    def _measured(
        self, low: Float[Tensor, "y x"], cutoffs: Cutoffs
    ) -> tuple[Mask, tuple[int, int], tuple[int, int]]:
        """Return the mask where it can be, that place, and the pixels above either cutoff."""
        inside = (low[: self._rows.used, : self._columns.used] > cutoffs.lowest).numpy()
        top, bottom = self._rows.reached(np.any(inside, axis=1))
        left, right = self._columns.reached(np.any(inside, axis=0))
        mask = np.empty((bottom - top, right - left), np.bool_)
        above = below = 0
        for columns in _steps(left, right, _TILE[1]):
            taps = self._columns.taps(columns)
            wide = low[: self._rows.used, taps] @ self._columns.matrix[columns, taps].T
            for rows in _steps(top, bottom, _TILE[0]):
                taps = self._rows.taps(rows)
                tile = (self._rows.matrix[rows, taps] @ wide[taps]).numpy()
                above += int(np.count_nonzero(tile > cutoffs.mask + cutoffs.offset))
                below += int(np.count_nonzero(tile > cutoffs.mask - cutoffs.offset))
                mask[
                    rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
                ] = tile > cutoffs.mask
        return mask, (top, left), (above, below)

    def _draw_together(self, logits: Float[Tensor, "n y x"], cutoffs: Cutoffs) -> Drawn:
        height, width = self.size
        stability, boxes, bits = [], [], []
        for low in torch.split(logits, self.at_once):
            used = low[:, : self._rows.used, : self._columns.used]
            pixels = self._rows.used_matrix @ (used @ self._columns.used_matrix.T)
            above = (pixels > cutoffs.mask + cutoffs.offset).sum((1, 2), dtype=torch.int32)
            below = (pixels > cutoffs.mask - cutoffs.offset).sum((1, 2), dtype=torch.int32)
            masks = pixels > cutoffs.mask
            stability.append(above / below)
            boxes.append(boxes_of(masks))
            bits.append(_packed(masks))
        packed = torch.cat(bits).cpu().numpy()
        return Drawn(
            index=torch.arange(len(logits)),
            stability=torch.cat(stability).cpu(),
            boxes=torch.cat(boxes).cpu(),
            outlines=[Outline(0, 0, height, width, row) for row in packed],
        )


class _Axis:
    """The composite linear map of one axis: `size` pixels from at most three logits each."""

    def __init__(
        self, logits: int, *, side: int, seen: int, size: int, device: torch.device
    ) -> None:
        identity = torch.eye(logits)[None]
        enlarged = F.interpolate(identity, size=side, mode="linear", align_corners=False)
        resized = F.interpolate(enlarged[..., :seen], size=size, mode="linear", align_corners=False)
        matrix = resized[0].T.contiguous()
        taken = (matrix != 0).numpy()
        self._first = taken.argmax(axis=1)
        self._last = logits - 1 - taken[:, ::-1].argmax(axis=1)
        self.size = size
        self.used = int(self._last.max()) + 1
        self.matrix = matrix.to(device)
        self.used_matrix = self.matrix[:, : self.used]

    def reached(self, logits: Bool[np.ndarray, " used"]) -> tuple[int, int]:
        """Return the range of pixels that any of the marked logits reaches."""
        marked = np.flatnonzero(logits)
        if len(marked) == 0:
            return 0, 0
        begin = np.searchsorted(self._last, marked[0], side="left")
        end = np.searchsorted(self._first, marked[-1], side="right")
        return int(begin), int(end)

    def taps(self, pixels: slice) -> slice:
        """Return the range of logits that a range of pixels is made of."""
        return slice(int(self._first[pixels.start]), int(self._last[pixels.stop - 1]) + 1)


def boxes_of(masks: Bool[Tensor, "n H W"]) -> Int64[Tensor, "n 4"]:
    """Return tight boxes (XYXY, inclusive pixels); all zero for an empty mask."""
    edges = []
    for axis in (1, 2):
        reached = masks.any(dim=axis).to(torch.uint8)
        last = reached.shape[1] - 1 - reached.flip(1).argmax(dim=1)
        edges.append((reached.argmax(dim=1), last * reached.amax(dim=1)))
    (left, right), (top, bottom) = edges
    return torch.stack([left, top, right, bottom], dim=1)


def _box(mask: Mask, *, top: int, left: int) -> tuple[int, int, int, int]:
    rows = np.flatnonzero(mask.any(axis=1))
    if len(rows) == 0:
        return 0, 0, 0, 0
    columns = np.flatnonzero(mask.any(axis=0))
    return (
        left + int(columns[0]),
        top + int(rows[0]),
        left + int(columns[-1]),
        top + int(rows[-1]),
    )


def _packed(masks: Bool[Tensor, "n H W"]) -> Tensor:
    """Pack bits in the order of `numpy.packbits`."""
    pixels = masks.flatten(1).to(torch.uint8)
    pixels = F.pad(pixels, (0, -pixels.shape[1] % 8)).view(len(masks), -1, 8)
    places = 2 ** torch.arange(7, -1, -1, dtype=torch.uint8, device=masks.device)
    return (pixels * places).sum(dim=2, dtype=torch.uint8)


def _steps(begin: int, end: int, step: int) -> Iterator[slice]:
    for start in range(begin, end, step):
        yield slice(start, min(end, start + step))
