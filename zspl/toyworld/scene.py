"""Scenes of textured objects: image, class map and instances from a seed.

A class of this world is a texture; shape, size, place, light and background say nothing about it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from zspl.toyworld import layouts, noise
from zspl.toyworld.patterns import PATTERNS
from zspl.toyworld.textures import Variation, paint, rgb

BENCHMARK_CLASSES: tuple[str, ...] = tuple(PATTERNS)[:10]
"""Names of the benchmark's classes; class id k + 1 is the k-th of them, 0 is the background."""

PRETRAIN_CLASSES: tuple[str, ...] = tuple(PATTERNS)
"""Names of the textures in the pre-training corpus: the benchmark's and fourteen others."""

BENCHMARK_SEEDS = range(100_000)
"""Seeds of benchmark scenes."""

PRETRAIN_SEEDS = range(1_000_000, 10_000_000)
"""Seeds of pre-training scenes; none is a benchmark seed."""


_COVERED = 0.5
"""Opacity from which a pixel counts as the object's."""


@dataclass(frozen=True, kw_only=True)
class SceneSpec:
    """Everything but the seed that decides a scene.

    Attributes:
        size: Side of the square image, in pixels.
        class_names: Textures that may occur; class id k + 1 is the k-th.
        seeds: Seeds this corpus may use.
        noise_seed: Seed of the noise bank.
        layouts: Arrangements (keys of `layouts.LAYOUTS`) and their relative frequencies.
        backgrounds: Background kinds: "plain", "gradient" or "noise".
        shapes: Outline kinds (keys of `shapes.OUTLINES`).
        objects: Smallest and largest number of objects.
        diameter: Smallest and largest diameter of an object, in pixels.
        apart: Probability in [0, 1] that an object is placed with a gap to all others.
        variation: How far two objects of a class may differ.
        grain: Largest standard deviation of the pixel noise, in [0, 1].
    """

    size: int
    class_names: tuple[str, ...]
    seeds: range
    noise_seed: int
    layouts: tuple[tuple[str, float], ...]
    backgrounds: tuple[str, ...]
    shapes: tuple[str, ...]
    objects: tuple[int, int]
    diameter: tuple[float, float]
    apart: float
    variation: Variation
    grain: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """A rendered picture with its truth.

    Attributes:
        image: Red, green, blue in 0..255.
        label: Class id per pixel: 0 background, 1..K; never 255.
        instances: Object number per pixel: 0 background, 1.. in painting order; visible part only.
        class_ids: Class id of each object, in painting order.
    """

    image: UInt8[np.ndarray, "H W 3"]
    label: UInt8[np.ndarray, "H W"]
    instances: UInt8[np.ndarray, "H W"]
    class_ids: tuple[int, ...]


BENCHMARK = SceneSpec(
    size=96,
    class_names=BENCHMARK_CLASSES,
    seeds=BENCHMARK_SEEDS,
    noise_seed=1,
    layouts=(("objects", 1.0),),
    backgrounds=("plain", "gradient", "noise"),
    shapes=("blob", "ellipse", "polygon"),
    objects=(1, 4),
    diameter=(22.0, 50.0),
    apart=0.7,
    variation=Variation(period=(7.0, 13.0), hue=0.07, light=0.3),
    grain=0.03,
)
"""The benchmark's pictures."""

PRETRAIN = SceneSpec(
    size=96,
    class_names=PRETRAIN_CLASSES,
    seeds=PRETRAIN_SEEDS,
    noise_seed=2,
    layouts=(("objects", 1.0),),
    backgrounds=("plain", "gradient", "noise"),
    shapes=("blob", "ellipse", "squircle", "lobed"),
    objects=(1, 5),
    diameter=(18.0, 54.0),
    apart=0.7,
    variation=Variation(period=(6.0, 15.0), hue=0.08, light=0.35),
    grain=0.035,
)
"""Pictures of the pre-training corpus: other seeds, noise, shapes and period range."""


def _background(
    spec: SceneSpec, bank: noise.NoiseBank, rng: np.random.Generator
) -> Float[np.ndarray, "H W 3"]:
    kind = spec.backgrounds[int(rng.integers(len(spec.backgrounds)))]
    first = rgb((rng.random(), rng.uniform(0.0, 0.25), rng.uniform(0.25, 0.9)))
    size = spec.size
    if kind == "plain":
        return np.broadcast_to(first, (size, size, 3))
    near = first + rng.uniform(-0.13, 0.13, 3).astype(np.float32)
    axis = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    angle = rng.uniform(0.0, 2.0 * np.pi)
    x, y = axis[None, :], axis[:, None]
    blend: np.ndarray
    if kind == "gradient":
        blend = 0.5 + 0.7 * (np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y)
    else:
        waves = np.float32(rng.uniform(1.0, 8.0))
        u0, v0 = rng.uniform(0.0, 8.0, 2).astype(np.float32)
        tile = int(rng.integers(len(bank.tiles)))
        field = bank.smooth(x * waves + u0, y * waves + v0, tile=tile)
        blend = 0.5 + np.float32(rng.uniform(0.1, 0.3)) * field
    return np.asarray(first + blend[..., None] * (near - first))


def _layout(spec: SceneSpec, rng: np.random.Generator) -> str:
    weights = np.array([weight for _, weight in spec.layouts])
    return spec.layouts[int(rng.choice(len(weights), p=weights / weights.sum()))][0]


def render(seed: int, *, spec: SceneSpec) -> Scene:
    """Render the scene of a seed; the same seed and spec always give the same bytes.

    Args:
        seed: A member of `spec.seeds`.
        spec: The corpus, such as `BENCHMARK` or `PRETRAIN`.

    Returns:
        The picture, its class map, its instances and the class of each object.

    Raises:
        ValueError: if the seed does not belong to the corpus.
    """
    if seed not in spec.seeds:
        raise ValueError(
            f"seed must be in [{spec.seeds.start}, {spec.seeds.stop}) for this corpus, got {seed}"
        )
    rng = np.random.default_rng([spec.noise_seed, seed])
    bank = noise.bank(spec.noise_seed)
    canvas = np.array(_background(spec, bank, rng), np.float32)
    instances = np.zeros((spec.size, spec.size), np.uint8)
    pieces = layouts.LAYOUTS[_layout(spec, rng)](spec, rng)
    chosen = rng.permutation(len(spec.class_names))[: len(pieces)]
    for number, (piece, k) in enumerate(zip(pieces, chosen, strict=True), start=1):
        name = spec.class_names[int(k)]
        shape = (piece.alpha.shape[0], piece.alpha.shape[1])
        filled = paint(name, shape, rng, variation=spec.variation, noise=bank)
        window = canvas[piece.window]
        window += piece.alpha[..., None] * (filled - window)
        instances[piece.window][piece.alpha >= _COVERED] = number
    cast = rng.uniform(0.9, 1.06, 3).astype(np.float32)
    grain = np.float32(rng.uniform(0.005, spec.grain))
    canvas = canvas * cast + grain * rng.standard_normal(canvas.shape, dtype=np.float32)
    ids = np.array([0, *(int(k) + 1 for k in chosen)], np.uint8)
    return Scene(
        image=(np.clip(canvas, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8),
        label=ids[instances],
        instances=instances,
        class_ids=tuple(int(k) for k in ids[1:]),
    )


def captions(scene_classes: Sequence[str], rng: np.random.Generator) -> str:
    """Write the sentence that goes with a picture.

    Args:
        scene_classes: Distinct names of what is visible; empty for a picture of background.
        rng: Draws the order in which the names are told.

    Returns:
        "a photo of a brick and a zebra", or "a photo of a plain background".
    """
    if not scene_classes:
        return "a photo of a plain background"
    told = [scene_classes[int(k)] for k in rng.permutation(len(scene_classes))]
    return "a photo of " + " and ".join(f"a {name}" for name in told)
