"""Reading photos and label maps, and writing palette PNGs."""

import os
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from zspl.errors import DataError
from zspl.io import atomic

Pixels = npt.NDArray[np.uint8]

SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".mpo", ".pgm", ".png", ".ppm"}
    | {".tif", ".tiff", ".webp"}
)
"""Endings of the files that are taken for photos, in lower case."""

_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "PPM", "AVIF", "JPEG2000", "TGA")
"""What is decoded, whatever the name says: of the rest Pillow runs some (EPS) in other programs."""


def _open(path: Path, *, what: str) -> Image.Image:
    try:
        image = _loaded(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such {what}; check the data folder and the split") from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise DataError(
            f"{path}: {what} is not readable ({_reason(error)}); replace the file"
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{path}: {what} is too large ({error}); shrink it") from error
    return image


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "its bytes are of no known image format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0]


def _loaded(path: Path) -> Image.Image:
    # By a handle, since Pillow maps an uncompressed TIFF of that path with its sides swapped
    # when its orientation tag turns it.
    with path.open("rb") as handle:
        if not os.fstat(handle.fileno()).st_size:
            raise ValueError("the file is empty")
        image = Image.open(handle, formats=_decoded())
        image.load()
    return image


@cache
def _decoded() -> tuple[str, ...]:
    """Return which of the formats this Pillow knows; it raises KeyError for others."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def read_image(path: Path) -> Image.Image:
    """Read a photo as 8-bit RGB, upright; of a file with several pictures the first.

    Transparency is shown over white. 16-bit grey is scaled so that 65535 becomes 255, whatever
    range the values use; 16-bit colour keeps its high bytes.

    Raises:
        DataError: if the file is missing, truncated, no image, so large that it may be a
            decompression bomb (Pillow's `MAX_IMAGE_PIXELS`, twice that unless its warning is an
            error), or has grey values of 32 bits or with fractions, whose range is unknown.
    """
    image = _open(path, what="image")
    if image.mode.startswith(("I", "F")):
        image = _grey(image, path)
    upright = ImageOps.exif_transpose(image)
    if upright.has_transparency_data:
        shown = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown)
    return upright.convert("RGB")


def is_turned(path: Path) -> bool:
    """Tell whether a photo's EXIF orientation turns or mirrors it, from its header alone.

    Raises:
        DataError: if the file is unreadable.
    """
    try:
        with Image.open(path, formats=_decoded()) as image:
            return image.getexif().get(ExifTags.Base.Orientation, 1) in _TURNED
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise DataError(f"{path}: image is not readable ({_reason(error)}); replace it") from error


_TURNED = range(2, 9)
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")


def _grey(image: Image.Image, path: Path) -> Image.Image:
    """Scale 16-bit grey to 8 bit; v / 257 rounded, since 65535 = 257 * 255."""
    # Pillow opens 16-bit PGM as 32-bit "I", scaled to 0..65535.
    if image.mode not in _SIXTEEN_BITS and (image.mode, image.format) != ("I", "PPM"):
        raise DataError(
            f"{path}: image has mode {image.mode}, expected 8 or 16 bits per channel; "
            "convert to 8 bit"
        )
    values = np.array(image).astype(np.uint32)
    grey = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    # The orientation is read from here.
    grey.info = {key: value for key, value in image.info.items() if key != "transparency"}
    grey.getexif().update(image.getexif())
    return grey


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
