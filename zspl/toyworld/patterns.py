"""Procedural patterns: texture coordinates in, layers of coverage out.

A pattern paints layers over its ground colour: layer k, in [0, 1], is the opacity of palette colour
k + 1. Coordinates are in periods of the texture, so a pattern knows nothing of pixels but `soft`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from zspl.toyworld.noise import NoiseBank

Field = Float[np.ndarray, "H W"]
Layers = list[Field]


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """Where a texture is evaluated.

    Attributes:
        u: Coordinate along the texture's first axis, in periods.
        v: Coordinate along its second axis, in periods.
        soft: Width of one pixel, in periods; edges are blended over it.
        noise: The bank that perturbs the pattern.
    """

    u: Field
    v: Field
    soft: float
    noise: NoiseBank

    def wobble(self, frequency: float, *, tile: int) -> Field:
        """Smooth noise with `frequency` waves per period."""
        return self.noise.smooth(self.u * frequency, self.v * frequency, tile=tile)


Pattern = Callable[[Grid], Layers]


def _step(x: Field, soft: float) -> Field:
    return np.clip(x / soft + 0.5, 0.0, 1.0)


def _triangle(t: Field) -> Field:
    return np.asarray(np.abs(t - np.floor(t) - 0.5) * 2.0)


def _stripes(grid: Grid, bend: Field, duty: float) -> Field:
    return _step(duty - _triangle(grid.u + bend), 2.0 * grid.soft)


def _local(x: Field) -> Field:
    return np.asarray(x - np.floor(x) - 0.5)


def _brick_rows(grid: Grid, height: float) -> tuple[Field, Field, Field, Field]:
    row = np.floor(grid.v / height)
    shifted = grid.u + 0.5 * (row % 2)
    return shifted - np.floor(shifted), grid.v / height - row, np.floor(shifted), row


def _staggered(u: Field, v: Field) -> Field:
    """Distance to the nearest point of a triangular lattice with spacing 1."""
    height = 0.8660254
    first = np.hypot(_local(u), _local(v / (2 * height)) * 2 * height)
    second = np.hypot(_local(u + 0.5), _local(v / (2 * height) + 0.5) * 2 * height)
    return np.asarray(np.minimum(first, second))


def _voronoi(grid: Grid, u: Field, v: Field) -> tuple[Field, Field, Field]:
    """Distance to the nearest and second-nearest jittered point, and the nearest's number."""
    i0, j0 = np.floor(v).astype(np.int32), np.floor(u).astype(np.int32)
    near = np.full_like(u, 9.0)
    second = np.full_like(u, 9.0)
    number = np.zeros_like(u)
    for di in (-1, 0, 1):
        for dj in (-1, 0, 1):
            cell = grid.noise.cell(i0 + di, j0 + dj)
            dx = j0 + dj + 0.2 + 0.6 * cell[..., 0] - u
            dy = i0 + di + 0.2 + 0.6 * cell[..., 1] - v
            distance = np.sqrt(dx * dx + dy * dy)
            second = np.minimum(second, np.maximum(distance, near))
            number = np.where(distance < near, cell[..., 2], number)
            near = np.minimum(near, distance)
    return near, second, number


def _zebra(grid: Grid) -> Layers:
    return [_stripes(grid, 0.16 * grid.wobble(0.4, tile=0), 0.5)]


def _bee(grid: Grid) -> Layers:
    fuzz = 0.04 * grid.wobble(2.5, tile=1)
    return [
        _stripes(grid, fuzz, 0.48),
        0.35 * _step(grid.wobble(3.0, tile=2) - 1.2, 0.5),
    ]


def _watermelon(grid: Grid) -> Layers:
    jagged = 0.12 * grid.wobble(1.6, tile=0) + 0.10 * grid.wobble(0.5, tile=1)
    return [
        0.45 * _step(grid.wobble(1.2, tile=2) - 0.3, 0.8),
        _stripes(grid, jagged, 0.46),
    ]


def _tiger(grid: Grid) -> Layers:
    taper = 0.3 + 0.22 * grid.wobble(0.5, tile=3)
    bend = 0.2 * grid.wobble(0.35, tile=0)
    return [_step(taper - _triangle(grid.u * 0.9 + bend), 2.0 * grid.soft)]


def _leopard(grid: Grid) -> Layers:
    near, _, _ = _voronoi(grid, grid.u, grid.v)
    ring = near + 0.05 * grid.wobble(1.5, tile=1)
    gaps = _step(grid.wobble(1.1, tile=2) + 1.1, 0.3)
    inside = _step(0.30 - ring, grid.soft)
    return [inside * 0.8, inside * _step(ring - 0.14, grid.soft) * gaps]


def _ladybird(grid: Grid) -> Layers:
    return [_step(0.30 - _staggered(grid.u, grid.v), grid.soft)]


def _toadstool(grid: Grid) -> Layers:
    near, _, number = _voronoi(grid, grid.u, grid.v)
    return [_step(0.18 + 0.16 * number - near, grid.soft)]


def _brick(grid: Grid) -> Layers:
    x, y, column, row = _brick_rows(grid, 0.5)
    tone = grid.noise.cell(row.astype(np.int32), column.astype(np.int32))[..., 2]
    mortar = np.maximum(
        _step(0.05 - np.minimum(x, 1 - x), grid.soft),
        _step(0.10 - np.minimum(y, 1 - y), 2 * grid.soft),
    )
    return [0.6 * tone, mortar]


def _chessboard(grid: Grid) -> Layers:
    a = _step(_triangle(grid.u * 0.8) - 0.5, 1.6 * grid.soft)
    b = _step(_triangle(grid.v * 0.8) - 0.5, 1.6 * grid.soft)
    return [a + b - 2 * a * b]


def _honeycomb(grid: Grid) -> Layers:
    height = 0.8660254
    best = np.full_like(grid.u, 9.0)
    for shift in (0.0, 0.5):
        x = np.abs(_local(grid.u + shift))
        y = np.abs(_local(grid.v / (2 * height) + shift) * 2 * height)
        best = np.minimum(best, np.maximum(x, 0.5 * x + height * y))
    return [0.7 * _step(0.30 - best, 0.35), _step(best - 0.41, grid.soft)]


def _marble(grid: Grid) -> Layers:
    bend = 0.12 * grid.wobble(0.7, tile=1)
    veins = np.abs(grid.noise.smooth(grid.u * 0.5 + bend, grid.v * 0.5 + bend, tile=0))
    cloud = _step(grid.wobble(0.4, tile=2), 3.0)
    return [0.4 * cloud, 0.9 * _step(0.16 - veins, 0.22)]


def _grass(grid: Grid) -> Layers:
    lean = grid.u + 0.12 * grid.wobble(0.6, tile=3)
    blades = grid.noise.smooth(lean * 3.0, grid.v * 0.5, tile=0)
    dark = grid.noise.smooth(lean * 2.2 + 3.1, grid.v * 0.45, tile=1)
    return [_step(dark - 0.2, 1.0), _step(blades - 0.5, 0.8)]


def _giraffe(grid: Grid) -> Layers:
    near, second, number = _voronoi(grid, grid.u * 0.9, grid.v * 0.9)
    patch = _step(second - near - 0.14, 2 * grid.soft)
    return [patch, 0.4 * patch * number]


def _cow(grid: Grid) -> Layers:
    return [_step(grid.wobble(0.55, tile=0) - 0.25, 3.0 * grid.soft)]


def _wood(grid: Grid) -> Layers:
    t = grid.u * 1.4 + 0.5 * grid.noise.smooth(grid.u * 0.3, grid.v * 0.12, tile=0)
    return [
        _triangle(t) ** 2,
        0.5 * _step(grid.noise.smooth(grid.u * 4, grid.v * 0.4, tile=1), 1.0),
    ]


def _water(grid: Grid) -> Layers:
    t = grid.v * 1.2 + 0.22 * np.sin(grid.u * 3.1 + 1.5 * grid.wobble(0.3, tile=1))
    return [_triangle(t), _step(0.14 - _triangle(t + 0.1), 0.2)]


def _tartan(grid: Grid) -> Layers:
    wide = [_step(0.4 - _triangle(x * 0.7), 2 * grid.soft) for x in (grid.u, grid.v)]
    thin = [_step(0.10 - _triangle(x * 0.7 + 0.5), 2 * grid.soft) for x in (grid.u, grid.v)]
    return [0.55 * wide[0] + 0.4 * wide[1], np.maximum(thin[0], thin[1])]


def _basket(grid: Grid) -> Layers:
    over = (np.floor(grid.u * 1.2) + np.floor(grid.v * 1.2)) % 2
    x, y = _triangle(grid.u * 1.2), _triangle(grid.v * 1.2)
    across = np.where(over > 0, x, y)
    strands = _triangle(np.where(over > 0, grid.v, grid.u) * 3.6)
    return [0.5 * strands, _step(across - 0.72, 2 * grid.soft)]


def _fish(grid: Grid) -> Layers:
    row = np.floor(grid.v / 0.5)
    rim = np.zeros_like(grid.u)
    for k in (0, 1):
        x = _local(grid.u + 0.5 * ((row + k) % 2))
        y = grid.v - (row + k) * 0.5
        inside = np.hypot(x, y)
        scale = _step(0.5 - inside, grid.soft)
        rim = rim * (1 - scale) + scale * _step(inside - 0.38, grid.soft)
    return [0.5 * _triangle(grid.v), rim]


def _strawberry(grid: Grid) -> Layers:
    height = 0.8660254
    seeds = _staggered(grid.u * 1.4, grid.v * 1.4 / height * 0.7)
    return [0.6 * _step(0.28 - seeds, 0.12), _step(0.13 - seeds, grid.soft)]


def _lava(grid: Grid) -> Layers:
    near, second, _ = _voronoi(grid, grid.u * 0.8 + 0.06 * grid.wobble(1.5, tile=0), grid.v * 0.8)
    crack = second - near
    return [_step(0.22 - crack, 0.2), _step(0.09 - crack, 0.1)]


def _knit(grid: Grid) -> Layers:
    slope = np.abs(_local(grid.u)) * 1.2
    stitch = _triangle((grid.v - slope) * 1.7)
    seam = _step(0.08 - (0.5 - np.abs(_local(grid.u))), grid.soft)
    return [_step(stitch - 0.45, 0.4), seam]


def _corn(grid: Grid) -> Layers:
    x, y, column, row = _brick_rows(grid, 0.8)
    kernel = np.hypot(x - 0.5, 0.8 * (y - 0.5))
    tone = grid.noise.cell(row.astype(np.int32), column.astype(np.int32))[..., 1]
    return [
        0.5 * tone,
        0.8 * _step(0.16 - kernel, 0.2),
        _step(kernel - 0.42, 2 * grid.soft),
    ]


def _peacock(grid: Grid) -> Layers:
    distance = _staggered(grid.u * 0.8, grid.v * 0.8)
    return [
        _step(0.40 - distance, grid.soft),
        _step(0.28 - distance, grid.soft),
        _step(0.15 - distance, grid.soft),
    ]


PATTERNS: dict[str, Pattern] = {
    "zebra": _zebra,
    "leopard": _leopard,
    "brick": _brick,
    "chessboard": _chessboard,
    "ladybird": _ladybird,
    "watermelon": _watermelon,
    "bee": _bee,
    "honeycomb": _honeycomb,
    "marble": _marble,
    "grass": _grass,
    "tiger": _tiger,
    "toadstool": _toadstool,
    "giraffe": _giraffe,
    "cow": _cow,
    "wood": _wood,
    "water": _water,
    "tartan": _tartan,
    "basket": _basket,
    "fish": _fish,
    "strawberry": _strawberry,
    "lava": _lava,
    "knit": _knit,
    "corn": _corn,
    "peacock": _peacock,
}
"""Every texture of the world by the word that names it."""
