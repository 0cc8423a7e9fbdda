"""Resize, crop and flip as one object, so that an image and its label maps share them.

S is the side of the crop; W and H are the image's size and w and h the resized one, in pixels.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Int, UInt8
from PIL import Image, ImageOps

from zspl.records import IGNORE_INDEX

FLIP_PROBABILITY = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Geometry:
    """One draw of the random geometry (UniMatch: resize, pad right and bottom, crop, flip).

    Attributes:
        size: (W, H) of the image it is for.
        resized: (w, h) after the resize, before padding.
        origin: (x, y) of the crop's corner in the resized image; never beyond it.
        side: S, the side of the crop.
        flip: Whether the crop is mirrored left to right.
    """

    size: tuple[int, int]
    resized: tuple[int, int]
    origin: tuple[int, int]
    side: int
    flip: bool

    @property
    def covered(self) -> tuple[int, int]:
        """The (width, height) of the crop's part that shows the image, from its corner."""
        (w, h), (x, y) = self.resized, self.origin
        return min(self.side, w - x), min(self.side, h - y)

    def image(self, image: Image.Image) -> UInt8[np.ndarray, "S S 3"]:
        """Return the crop of an RGB image, bilinear; the padding is black."""
        self._check(image.size)
        (width, height), (x, y) = self.covered, self.origin
        whole = image.resize(self.resized, Image.Resampling.BILINEAR)
        return self._placed(whole.crop((x, y, x + width, y + height)))

    def window(self, image: Image.Image) -> UInt8[np.ndarray, "S S 3"]:
        """Return the crop of an RGB image as `image` does, but resize no more than it shows.

        The work follows the crop's size and no longer the photo's. Pillow rounds between its two
        passes, whose order depends on what is resized, and places a window in float32: a value
        can differ from that of `image` by 2 grey levels, and few do by more than 1.
        """
        self._check(image.size)
        (width, height), (x, y) = self.covered, self.origin
        across, down = (of / to for of, to in zip(self.size, self.resized, strict=True))
        right = min(self.size[0], (x + width) * across)
        lower = min(self.size[1], (y + height) * down)
        box = (x * across, y * down, right, lower)
        return self._placed(image.resize((width, height), Image.Resampling.BILINEAR, box=box))

    def _placed(self, part: Image.Image) -> UInt8[np.ndarray, "S S 3"]:
        width, height = part.size
        canvas = np.zeros((self.side, self.side, 3), np.uint8)
        if self.flip:
            # numpy mirrors three channels several times slower than Pillow.
            canvas[:height, self.side - width :] = np.asarray(ImageOps.mirror(part))
        else:
            canvas[:height, :width] = np.asarray(part)
        return canvas

    def label(
        self, label: UInt8[np.ndarray, "H W"], *, fill: int = IGNORE_INDEX
    ) -> UInt8[np.ndarray, "S S"]:
        """Return the crop of a label map, nearest neighbour; the padding is `fill`."""
        self._check((label.shape[1], label.shape[0]))
        (width, height), (x, y) = self.covered, self.origin
        columns = _nearest(self.size[0], self.resized[0])[x : x + width]
        rows = _nearest(self.size[1], self.resized[1])[y : y + height]
        canvas = np.full((self.side, self.side), fill, np.uint8)
        canvas[:height, :width] = label.take(rows, axis=0).take(columns, axis=1)
        return canvas[:, ::-1] if self.flip else canvas

    def padding(self) -> Bool[np.ndarray, "S S"]:
        """Return True where the crop reaches beyond the image."""
        width, height = self.covered
        canvas = np.ones((self.side, self.side), np.bool_)
        canvas[:height, :width] = False
        return canvas[:, ::-1] if self.flip else canvas

    def _check(self, size: tuple[int, int]) -> None:
        if size != self.size:
            raise ValueError(f"geometry drawn for {self.size} (width, height), got {size}")


def draw(
    size: tuple[int, int],
    rng: np.random.Generator,
    *,
    side: int,
    scale_range: tuple[float, float],
) -> Geometry:
    """Draw a resize, a crop and a flip (as in UniMatch's `dataset/transform.py`).

    The long side becomes a whole number, uniform over `scale_range` times the long side; the
    crop's corner is uniform; a flip has probability 1/2.

    Args:
        size: (W, H) of the image, in pixels.
        rng: Where the random numbers come from.
        side: S, the side of the crop, in pixels.
        scale_range: Smallest and largest scale.
    """
    width, height = size
    longest = max(size)
    # A tiny image at a small scale would be resized to nothing.
    low = max(1, int(scale_range[0] * longest))
    long = int(rng.integers(low, max(low, int(scale_range[1] * longest)), endpoint=True))
    if height > width:
        resized = (max(1, int(width * long / height + 0.5)), long)
    else:
        resized = (long, max(1, int(height * long / width + 0.5)))
    x = int(rng.integers(0, max(resized[0], side) - side, endpoint=True))
    y = int(rng.integers(0, max(resized[1], side) - side, endpoint=True))
    return Geometry(
        size=size,
        resized=resized,
        origin=(x, y),
        side=side,
        flip=bool(rng.random() < FLIP_PROBABILITY),
    )


@lru_cache(maxsize=4096)
def _nearest(length: int, resized: int) -> Int[np.ndarray, " resized"]:
    """Return the source index of each resized pixel, asked from Pillow to be equal to it."""
    line = Image.fromarray(np.arange(length, dtype=np.int32)[None])
    indices: np.ndarray = np.asarray(line.resize((resized, 1), Image.Resampling.NEAREST))[0]
    return indices
