"""Textures: a pattern, its palette, and the variation one object of a class may show."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from zspl.toyworld.noise import NoiseBank
from zspl.toyworld.patterns import PATTERNS, Grid

Colour = tuple[float, float, float]

# Hue, saturation and value in [0, 1]; the ground first, then one colour per layer of the pattern.
PALETTES: dict[str, tuple[Colour, ...]] = {
    "zebra": ((0.10, 0.03, 0.95), (0.10, 0.10, 0.10)),
    "leopard": ((0.11, 0.50, 0.88), (0.08, 0.75, 0.62), (0.07, 0.75, 0.20)),
    "brick": ((0.03, 0.78, 0.72), (0.02, 0.80, 0.50), (0.09, 0.12, 0.85)),
    "chessboard": ((0.12, 0.05, 0.94), (0.60, 0.10, 0.12)),
    "ladybird": ((0.99, 0.90, 0.85), (0.00, 0.40, 0.08)),
    "watermelon": ((0.27, 0.65, 0.78), (0.24, 0.60, 0.88), (0.36, 0.85, 0.32)),
    "bee": ((0.14, 0.92, 0.95), (0.08, 0.50, 0.10), (0.12, 0.60, 0.60)),
    "honeycomb": ((0.11, 0.95, 0.88), (0.12, 0.70, 1.00), (0.07, 0.90, 0.42)),
    "marble": ((0.58, 0.04, 0.95), (0.60, 0.10, 0.74), (0.62, 0.18, 0.38)),
    "grass": ((0.29, 0.80, 0.52), (0.32, 0.85, 0.25), (0.24, 0.72, 0.80)),
    "tiger": ((0.07, 0.88, 0.93), (0.05, 0.60, 0.10)),
    "toadstool": ((0.98, 0.88, 0.78), (0.10, 0.06, 0.96)),
    "giraffe": ((0.12, 0.30, 0.92), (0.07, 0.75, 0.55), (0.06, 0.80, 0.38)),
    "cow": ((0.08, 0.06, 0.94), (0.06, 0.35, 0.16)),
    "wood": ((0.08, 0.55, 0.72), (0.07, 0.70, 0.42), (0.08, 0.60, 0.58)),
    "water": ((0.57, 0.75, 0.62), (0.54, 0.65, 0.85), (0.52, 0.15, 0.98)),
    "tartan": ((0.99, 0.80, 0.62), (0.40, 0.75, 0.28), (0.14, 0.70, 0.90)),
    "basket": ((0.10, 0.45, 0.80), (0.09, 0.55, 0.58), (0.07, 0.70, 0.26)),
    "fish": ((0.50, 0.65, 0.70), (0.46, 0.55, 0.88), (0.56, 0.80, 0.30)),
    "strawberry": ((0.97, 0.85, 0.84), (0.97, 0.95, 0.55), (0.14, 0.60, 0.96)),
    "lava": ((0.03, 0.35, 0.16), (0.02, 0.95, 0.80), (0.13, 0.85, 1.00)),
    "knit": ((0.80, 0.45, 0.80), (0.79, 0.65, 0.48), (0.78, 0.70, 0.30)),
    "corn": (
        (0.13, 0.82, 0.92),
        (0.11, 0.90, 0.82),
        (0.14, 0.40, 1.00),
        (0.09, 0.85, 0.48),
    ),
    "peacock": (
        (0.42, 0.75, 0.45),
        (0.13, 0.70, 0.72),
        (0.50, 0.80, 0.72),
        (0.66, 0.90, 0.35),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Variation:
    """How far objects of one class may differ from each other.

    Attributes:
        period: Smallest and largest period of the pattern, in pixels.
        hue: Largest shift of the hue, as a fraction of the colour circle.
        light: Largest relative change of brightness across an object and between objects.
    """

    period: tuple[float, float]
    hue: float
    light: float


def rgb(colour: Colour) -> Float[np.ndarray, "3"]:
    """Turn hue, saturation and value in [0, 1] into red, green and blue in [0, 1]."""
    hue, saturation, value = colour
    wheel = (np.array([5.0, 3.0, 1.0]) + hue * 6.0) % 6.0
    drop = np.clip(np.minimum(wheel, 4.0 - wheel), 0.0, 1.0)
    return np.asarray(value * (1.0 - saturation * drop), np.float32)


def _palette(name: str, rng: np.random.Generator, variation: Variation) -> list[np.ndarray]:
    shift = rng.uniform(-variation.hue, variation.hue)
    strength = rng.uniform(0.65, 1.10)
    tint = rng.uniform(0.0, 0.10)
    gain = 1.0 + variation.light * rng.uniform(-1.0, 0.4)
    jittered = []
    for hue, saturation, value in PALETTES[name]:
        h = (hue + shift + rng.uniform(-0.015, 0.015)) % 1.0
        s = min(1.0, saturation * strength + tint)
        v = min(1.0, value * gain * rng.uniform(0.9, 1.1) + 0.03)
        jittered.append(rgb((h, s, v)))
    return jittered


def paint(
    name: str,
    size: tuple[int, int],
    rng: np.random.Generator,
    *,
    variation: Variation,
    noise: NoiseBank,
) -> Float[np.ndarray, "H W 3"]:
    """Fill a rectangle with one random example of a texture.

    Args:
        name: A key of `patterns.PATTERNS`.
        size: Height and width, in pixels.
        rng: Draws period, rotation, phase, colours and light.
        variation: Ranges of these draws.
        noise: The bank that perturbs the pattern.

    Returns:
        Red, green and blue, about [0, 1], float32; not clipped.

    Raises:
        ValueError: if no texture has this name.
    """
    if name not in PATTERNS:
        raise ValueError(f"texture must be one of {', '.join(PATTERNS)}, got {name!r}")
    period = rng.uniform(*variation.period)
    angle = rng.uniform(0.0, 2.0 * np.pi)
    squeeze = rng.uniform(0.85, 1.18)
    u0, v0 = rng.uniform(0.0, 64.0, size=2)
    cos, sin = np.cos(angle) / period, np.sin(angle) / period
    y = np.arange(size[0], dtype=np.float32)[:, None]
    x = np.arange(size[1], dtype=np.float32)[None, :]
    grid = Grid(
        u=(np.float32(cos) * x + np.float32(sin) * y) * np.float32(squeeze) + np.float32(u0),
        v=np.float32(cos) * y - np.float32(sin) * x + np.float32(v0),
        soft=float(1.0 / period),
        noise=noise,
    )
    palette = _palette(name, rng, variation)
    painted = np.broadcast_to(palette[0], (*size, 3))
    for layer, colour in zip(PATTERNS[name](grid), palette[1:], strict=True):
        painted = painted + layer.astype(np.float32)[..., None] * (colour - painted)
    slope = rng.uniform(-variation.light, variation.light, size=2) / max(size)
    ramp = 1.0 + slope[0] * (y - size[0] / 2) + slope[1] * (x - size[1] / 2)
    return np.asarray(painted * ramp.astype(np.float32)[..., None], np.float32)
