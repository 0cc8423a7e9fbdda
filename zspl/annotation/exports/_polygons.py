"""A region as one polygon, its holes cut out through a seam of no width."""

import numpy as np
import numpy.typing as npt

SMALLEST = 9
"""In pixels: smaller regions have no polygon and smaller holes are filled."""

_TOLERANCE = 0.45
"""In pixels: how far the polygon may run from the edge; at 0.5 a thin line is half lost."""

Points = npt.NDArray[np.float64]


def polygon(inside: npt.NDArray[np.bool_]) -> Points | None:
    """Return Float64[P 2] points (x, y) around a region, None if it has under 9 pixels.

    A hole is joined to the outline by a seam that runs there and back, so that it stays a hole
    when the polygon is filled by the even-odd rule, as OpenCV's fillPoly does.

    Args:
        inside: Bool[h w], one connected region; (0, 0) is the outer corner of its first pixel.
    """
    from skimage import measure

    if int(inside.sum()) < SMALLEST:
        return None
    # A border of pixels outside closes the outlines of regions that reach the edge.
    padded = np.pad(inside, 1).astype(np.float64)
    found = measure.find_contours(padded, 0.5, fully_connected="high")  # type: ignore[no-untyped-call]
    rings = sorted((_simple(ring[:, ::-1] - 0.5) for ring in found), key=_area, reverse=True)
    outline = rings[0]
    for hole in rings[1:]:
        if _area(hole) >= SMALLEST:
            outline = _joined(outline, hole)
    return outline.clip(0, (inside.shape[1], inside.shape[0]))


def _simple(ring: Points) -> Points:
    """Return a closed ring with fewer points (Douglas and Peucker, 1973), the last not repeated."""
    from skimage import measure

    kept: Points = measure.approximate_polygon(ring, _TOLERANCE)  # type: ignore[no-untyped-call]
    return kept[:-1]


def _area(ring: Points) -> float:
    x, y = ring.T
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)


def _joined(outline: Points, hole: Points) -> Points:
    """Return one ring: along the outline, over to the hole, around it and back."""
    near = int(np.argmin(((outline - hole[0]) ** 2).sum(axis=1)))
    return np.concatenate((outline[: near + 1], hole, hole[:1], outline[near:]))
