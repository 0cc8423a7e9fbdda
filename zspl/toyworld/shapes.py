"""Outlines of objects: smooth blobs, ellipses, polygons and their relatives."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

Angles = Float[np.ndarray, "H W"]
Outline = Callable[[Angles, np.random.Generator], Angles]


def _ellipse(angle: Angles, rng: np.random.Generator) -> Angles:
    aspect = rng.uniform(0.68, 1.0)
    turn = rng.uniform(0.0, np.pi)
    x, y = np.cos(angle - turn), np.sin(angle - turn)
    return np.asarray(aspect / np.sqrt((aspect * x) ** 2 + y**2))


def _blob(angle: Angles, rng: np.random.Generator) -> Angles:
    radius = np.ones_like(angle)
    for harmonic in (2, 3, 4):
        strength = rng.uniform(0.0, 0.26 / harmonic)
        radius = radius + strength * np.cos(harmonic * angle + rng.uniform(0.0, 2.0 * np.pi))
    return radius


def _polygon(angle: Angles, rng: np.random.Generator) -> Angles:
    sides = int(rng.integers(3, 8))
    turns = (np.arange(sides) + rng.uniform(-0.2, 0.2, sides)) * 2.0 * np.pi / sides
    turns = turns + rng.uniform(0.0, 2.0 * np.pi)
    reach = rng.uniform(0.72, 0.95, sides)
    facing = np.maximum(np.cos(angle[..., None] - turns), 0.05)
    return np.asarray(np.minimum((reach / facing).min(axis=-1), 1.4))


def _squircle(angle: Angles, rng: np.random.Generator) -> Angles:
    aspect = rng.uniform(0.65, 1.0)
    turned = angle - rng.uniform(0.0, np.pi)
    power = rng.uniform(2.6, 6.0)
    across, along = np.abs(np.cos(turned)), np.abs(np.sin(turned)) / aspect
    return np.asarray((across**power + along**power) ** (-1.0 / power))


def _lobed(angle: Angles, rng: np.random.Generator) -> Angles:
    lobes = int(rng.integers(3, 6))
    depth = rng.uniform(0.08, 0.2)
    return _ellipse(angle, rng) * (1.0 + depth * np.cos(lobes * angle + rng.uniform(0.0, 6.28)))


OUTLINES: dict[str, Outline] = {
    "ellipse": _ellipse,
    "blob": _blob,
    "polygon": _polygon,
    "squircle": _squircle,
    "lobed": _lobed,
}
"""Every shape kind: the radius, about 1, of a closed outline at each angle."""


def outline(
    kind: str, diameter: float, rng: np.random.Generator, *, margin: int
) -> Float[np.ndarray, "S S"]:
    """Draw one object's signed depth on a square patch.

    Args:
        kind: A key of `OUTLINES`.
        diameter: Diameter, in pixels, of a disc with the object's area.
        rng: Draws the outline.
        margin: Room around the object, in pixels.

    Returns:
        Depth below the outline, in pixels: positive inside, negative outside, float32.

    Raises:
        ValueError: if no shape has this name.
    """
    if kind not in OUTLINES:
        raise ValueError(f"shape must be one of {', '.join(OUTLINES)}, got {kind!r}")
    half = int(np.ceil(0.8 * diameter)) + margin
    axis = np.arange(-half, half + 1, dtype=np.float32)
    y, x = axis[:, None], axis[None, :]
    radius = OUTLINES[kind](np.arctan2(y, x), rng)
    rim = np.concatenate([radius[0], radius[-1], radius[:, 0], radius[:, -1]])
    radius = radius / np.sqrt(np.mean(rim**2))
    return np.asarray(0.5 * diameter * radius - np.hypot(x, y), np.float32)
