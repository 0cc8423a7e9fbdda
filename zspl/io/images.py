"""Reading photos and label maps, and writing palette PNGs."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from zspl.errors import DataError
from zspl.io import atomic

Pixels = npt.NDArray[np.uint8]


def _open(path: Path, *, what: str) -> Image.Image:
    try:
        image = _loaded(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such {what}; check the data folder and the split") from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: {what} is not readable ({reason}); replace the file") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: {what} is too large ({error}); shrink it") from error
    return image


def _loaded(path: Path) -> Image.Image:
    image = Image.open(path)
    try:
        image.load()
    except BaseException:
        image.close()
        raise
    return image


def read_image(path: Path) -> Image.Image:
    """Read a photo as 8-bit RGB, upright.

    Raises:
        DataError: if the file is missing, truncated, no image, or has over 8 bits per grey pixel.
    """
    image = _open(path, what="image")
    if image.mode.startswith(("I", "F")):
        # Pillow would clip these values to 255, which is white nearly everywhere.
        raise DataError(
            f"{path}: image has mode {image.mode}, expected 8 bits per channel; convert to 8 bit"
        )
    return ImageOps.exif_transpose(image).convert("RGB")


def read_label(path: Path, *, size: tuple[int, int] | None = None) -> Pixels:
    """Read a label map as UInt8[H W] ids, palette or greyscale.

    Args:
        path: A PNG with one id per pixel; never converted through its colours.
        size: The (width, height) of the photo, in pixels, to check against.

    Raises:
        DataError: if the file is missing, unreadable, not one id per pixel, or of another size.
    """
    image = _open(path, what="mask")
    if image.mode not in {"P", "L", "1"}:
        raise DataError(
            f"{path}: mask has mode {image.mode}, expected one id per pixel (palette or "
            "greyscale PNG); convert the colours to class ids"
        )
    if size is not None and image.size != size:
        raise DataError(
            f"{path}: mask is {image.width}x{image.height}, its image {size[0]}x{size[1]} "
            "pixels; they must be equal"
        )
    return np.array(image, dtype=np.uint8)


def voc_palette() -> list[int]:
    """Return the 256-colour VOC palette as flat RGB: bit 3k+c of the id is bit 7-k of channel c.

    Example:
        >>> voc_palette()[3:6]
        [128, 0, 0]
    """
    return [
        sum(((index >> (3 * k + channel)) & 1) << (7 - k) for k in range(8))
        for index in range(256)
        for channel in range(3)
    ]


def write_label(path: Path, label: Pixels) -> None:
    """Write class ids as a palette PNG, atomically."""
    image = Image.fromarray(label, mode="L")
    image.putpalette(voc_palette())
    atomic.write(path, lambda temporary: image.save(temporary, format="PNG", compress_level=1))


def write_confidence(path: Path, confidence: npt.NDArray[np.floating]) -> None:
    """Write confidences in [0, 1] as an 8-bit greyscale PNG (value = round(255 c)), atomically."""
    image = Image.fromarray(np.round(np.clip(confidence, 0, 1) * 255).astype(np.uint8))
    atomic.write(path, lambda temporary: image.save(temporary, format="PNG", compress_level=1))
