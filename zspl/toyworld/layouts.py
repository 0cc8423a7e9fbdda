"""Arrangements of textured pieces in a picture.

A layout sees the spec and a generator, and returns the pieces in painting order.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from zspl.toyworld.shapes import outline

_GAP = 4
_TRIES = 16
_VISIBLE = 0.5


@runtime_checkable
class Room(Protocol):
    """What a layout needs to know of a scene's spec."""

    @property
    def size(self) -> int:
        """Side of the square image, in pixels."""

    @property
    def shapes(self) -> tuple[str, ...]:
        """Outline kinds."""

    @property
    def objects(self) -> tuple[int, int]:
        """Smallest and largest number of objects."""

    @property
    def diameter(self) -> tuple[float, float]:
        """Smallest and largest diameter, in pixels."""

    @property
    def apart(self) -> float:
        """Probability that an object keeps a gap to all others."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """One textured region of a picture.

    Attributes:
        window: Rows and columns of the image it covers.
        alpha: Opacity in [0, 1] over that window.
    """

    window: tuple[slice, slice]
    alpha: Float[np.ndarray, "H W"]


Layout = Callable[[Room, np.random.Generator], list[Piece]]


def _cut(
    depth: np.ndarray, centre: np.ndarray, size: int
) -> tuple[tuple[slice, slice], np.ndarray]:
    """The part of a patch that lies inside the image, when its middle is put at `centre`."""
    half = depth.shape[0] // 2
    low = np.maximum(centre - half, 0)
    high = np.minimum(centre + half + 1, size)
    inner = tuple(
        slice(int(a), int(b))
        for a, b in zip(low - centre + half, high - centre + half, strict=True)
    )
    window = (slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1])))
    return window, depth[inner[0], inner[1]]


def _fits(taken: np.ndarray, areas: list[int], depth: np.ndarray, *, apart: bool) -> bool:
    """Whether a place is free, or, for an overlap, leaves enough of the objects below."""
    if apart:
        return not taken[depth > -_GAP].any()
    hidden = np.bincount(taken[depth > 0], minlength=len(areas) + 1)
    visible = np.bincount(taken.ravel(), minlength=len(areas) + 1)
    return all(
        hidden[k] <= (1 - _VISIBLE) * min(visible[k], areas[k - 1])
        for k in range(1, len(areas) + 1)
    )


def _objects(room: Room, rng: np.random.Generator) -> list[Piece]:
    taken = np.zeros((room.size, room.size), np.int64)
    pieces: list[Piece] = []
    areas: list[int] = []
    for _ in range(int(rng.integers(room.objects[0], room.objects[1] + 1))):
        kind = room.shapes[int(rng.integers(len(room.shapes)))]
        diameter = rng.uniform(*room.diameter)
        depth = outline(kind, diameter, rng, margin=_GAP)
        apart = bool(rng.random() < room.apart)
        reach = 0.32 * diameter
        for centre in rng.uniform(reach, room.size - reach, (_TRIES, 2)).astype(np.int64):
            window, part = _cut(depth, centre, room.size)
            if not areas or _fits(taken[window], areas, part, apart=apart):
                pieces.append(Piece(window=window, alpha=np.clip(part + 0.5, 0.0, 1.0)))
                areas.append(int((part > 0).sum()))
                taken[window][part > 0] = len(areas)
                break
    return pieces


def _whole(size: int) -> tuple[slice, slice]:
    return slice(0, size), slice(0, size)


def _half_plane(size: int, offset: float, rng: np.random.Generator) -> np.ndarray:
    """Signed depth, in pixels, behind a slightly bent line through the picture."""
    axis = np.arange(size, dtype=np.float32) - (size - 1) / 2
    angle = rng.uniform(0.0, 2.0 * np.pi)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along = cos * axis[:, None] - sin * axis[None, :]
    bend = np.float32(rng.uniform(0.0, 0.08) * size) * np.sin(along * np.float32(5.0 / size))
    return np.asarray(cos * axis[None, :] + sin * axis[:, None] + bend - np.float32(offset))


def _filled(room: Room, rng: np.random.Generator) -> list[Piece]:
    pieces = [Piece(window=_whole(room.size), alpha=np.ones((room.size, room.size), np.float32))]
    for _ in range(int(rng.integers(0, 3))):
        depth = _half_plane(room.size, rng.uniform(0.05, 0.3) * room.size, rng)
        pieces.append(Piece(window=_whole(room.size), alpha=np.clip(depth + 0.5, 0.0, 1.0)))
    return pieces


def _half(room: Room, rng: np.random.Generator) -> list[Piece]:
    depth = _half_plane(room.size, rng.uniform(-0.2, 0.25) * room.size, rng)
    return [Piece(window=_whole(room.size), alpha=np.clip(depth + 0.5, 0.0, 1.0))]


def _empty(room: Room, rng: np.random.Generator) -> list[Piece]:
    del room, rng
    return []


LAYOUTS: dict[str, Layout] = {
    "objects": _objects,
    "filled": _filled,
    "half": _half,
    "empty": _empty,
}
"""Objects on a background; one to three textures that fill the frame; a half; background only."""
