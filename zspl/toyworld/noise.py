"""Smooth random fields that tile, drawn once per bank seed.

A bank belongs to a corpus: two corpora with different bank seeds share no noise.
"""

import functools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

TILE = 128
"""Side of one noise tile, in samples; a power of two, so that indices wrap with a mask."""

SAMPLES_PER_WAVE = 16
"""Samples of the tile per unit of texture coordinates."""

_NUM_TILES = 6
_CELLS = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class NoiseBank:
    """Tiles of smooth noise and a table of per-cell random numbers.

    Attributes:
        tiles: Noise of zero mean and unit variance, one wave about 16 samples long.
        cells: Uniform numbers in [0, 1), four per cell of a wrapped 64 x 64 grid.
    """

    tiles: Float[np.ndarray, "N T T"]
    cells: Float[np.ndarray, "G G 4"]

    def smooth(
        self, u: Float[np.ndarray, "#H #W"], v: Float[np.ndarray, "#H #W"], *, tile: int = 0
    ) -> Float[np.ndarray, "H W"]:
        """Read smooth noise, about one wave per unit of the coordinates, values near [-2, 2]."""
        mask = TILE - 1
        rows = np.floor(v * SAMPLES_PER_WAVE).astype(np.int32) & mask
        cols = np.floor(u * SAMPLES_PER_WAVE).astype(np.int32) & mask
        return np.asarray(self.tiles[tile % len(self.tiles), rows, cols])

    def cell(
        self, i: Int[np.ndarray, "#H #W"], j: Int[np.ndarray, "#H #W"]
    ) -> Float[np.ndarray, "H W 4"]:
        """Read the four random numbers, in [0, 1), of integer cells (i, j)."""
        return np.asarray(self.cells[i & (_CELLS - 1), j & (_CELLS - 1)])


@functools.lru_cache(maxsize=8)
def bank(seed: int) -> NoiseBank:
    """Draw the noise bank of a seed; the same seed always gives the same bank."""
    rng = np.random.default_rng([seed, 77])
    frequency = np.fft.fftfreq(TILE) * SAMPLES_PER_WAVE
    radius = np.hypot(frequency[:, None], frequency[None, :])
    band = np.exp(-(((radius - 0.7) / 0.45) ** 2))
    band[0, 0] = 0.0
    tiles = np.empty((_NUM_TILES, TILE, TILE), np.float32)
    for k in range(_NUM_TILES):
        field = np.fft.ifft2(np.fft.fft2(rng.standard_normal((TILE, TILE))) * band).real
        tiles[k] = field / field.std()
    return NoiseBank(tiles=tiles, cells=rng.random((_CELLS, _CELLS, 4), dtype=np.float32))
