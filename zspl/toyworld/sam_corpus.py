"""Pictures and clicks to pre-train the tiny SAM on."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from tqdm import tqdm

from zspl.toyworld import scene

FIRST_SEED = 5_000_000
"""Scenes of the corpus have the seeds from here on; none is a benchmark seed."""

CROWDED = replace(scene.PRETRAIN, apart=0.35)
"""Half of the pictures: objects touch more often, which is what segments fail at."""


MIRRORED, SHUFFLED = 0.5, 0.3
"""Shares of pictures that are mirrored and whose colour channels are permuted."""


@dataclass(frozen=True)
class Bank:
    """Pictures rendered once, kept on disk and mapped into memory.

    Attributes:
        images: RGB in [0, 255].
        instances: Number of the object at each pixel, 0 = background.
    """

    images: UInt8[np.ndarray, "N S S 3"]
    instances: UInt8[np.ndarray, "N S S"]


@dataclass(frozen=True)
class Clicks:
    """Pictures with clicks on them, ready for one training step.

    Attributes:
        image: RGB in [0, 255], as float.
        instances: Number of the object at each pixel, 0 = background.
        points: x and y of each click in pixels.
    """

    image: Float[Tensor, "B 3 S S"]
    instances: Int64[Tensor, "B S S"]
    points: Float[Tensor, "B P 2"]


def open_bank(folder: Path, *, count: int) -> Bank:
    """Open the pictures in a folder and render those that are missing.

    Args:
        folder: Where the pictures are kept; made if missing.
        count: How many pictures are wanted, with seeds from `FIRST_SEED` on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    images_file, instances_file = folder / "images.npy", folder / "instances.npy"
    done = folder / f"complete-{count}"
    if not done.is_file():
        side = scene.render(FIRST_SEED, spec=scene.PRETRAIN).image.shape[0]
        images = np.lib.format.open_memmap(
            images_file, mode="w+", dtype=np.uint8, shape=(count, side, side, 3)
        )
        instances = np.lib.format.open_memmap(
            instances_file, mode="w+", dtype=np.uint8, shape=(count, side, side)
        )
        for index in tqdm(range(count), desc="render", unit="picture", mininterval=10):
            spec = CROWDED if index % 2 else scene.PRETRAIN
            picture = scene.render(FIRST_SEED + index, spec=spec)
            images[index], instances[index] = picture.image, picture.instances
        images.flush()
        instances.flush()
        done.touch()
    return Bank(np.load(images_file, mmap_mode="r"), np.load(instances_file, mmap_mode="r"))


def batches(bank: Bank, *, first: int, seed: int, pictures: int, clicks: int) -> Iterator[Clicks]:
    """Draw training batches without end; batch number t depends on `seed` and t alone.

    Each picture is turned or mirrored, its channels are sometimes shuffled and their gain varies.

    Args:
        bank: Pictures to draw from.
        first: Number of the first batch, so that a resumed run goes on where it stopped.
        seed: Seed of the draws.
        pictures: Pictures per batch.
        clicks: Clicks per picture.
    """
    number = first
    while True:
        rng = np.random.default_rng([seed, number])
        rows = rng.integers(len(bank.images), size=pictures)
        drawn = [_augment(rng, bank.images[row], bank.instances[row]) for row in rows]
        images = np.stack([image for image, _ in drawn]).transpose(0, 3, 1, 2)
        points = np.stack([place_clicks(rng, regions, count=clicks) for _, regions in drawn])
        yield Clicks(
            torch.from_numpy(np.ascontiguousarray(images)),
            torch.from_numpy(np.stack([regions for _, regions in drawn]).astype(np.int64)),
            torch.from_numpy(points),
        )
        number += 1


def _augment(
    rng: np.random.Generator,
    image: UInt8[np.ndarray, "S S 3"],
    regions: UInt8[np.ndarray, "S S"],
) -> tuple[Float[np.ndarray, "S S 3"], UInt8[np.ndarray, "S S"]]:
    """Turn, mirror and recolour one picture."""
    turns = int(rng.integers(4))
    image, regions = np.rot90(image, turns), np.rot90(regions, turns)
    if rng.random() < MIRRORED:
        image, regions = image[:, ::-1], regions[:, ::-1]
    if rng.random() < SHUFFLED:
        image = image[..., rng.permutation(3)]
    gain = rng.uniform(0.85, 1.15, size=3).astype(np.float32)
    return np.clip(image * gain, 0.0, 255.0).astype(np.float32), regions


def place_clicks(
    rng: np.random.Generator, regions: UInt8[np.ndarray, "S S"], *, count: int
) -> Float[np.ndarray, "P 2"]:
    """Draw clicks: a third anywhere, the others on an object chosen with equal chances.

    Args:
        rng: Source of the draws.
        regions: Number of the object at each pixel, 0 = background.
        count: Number of clicks.

    Returns:
        x and y of each click in pixels.
    """
    flat = regions.ravel().astype(np.int64)
    areas = np.bincount(flat)
    each = np.where(areas > 0, 1.0 / np.maximum(areas, 1), 0.0)
    each[0] = 0.0
    objects = int((areas[1:] > 0).sum())
    chance = np.full(len(flat), 1.0 / (3 * len(flat)))
    chance += each[flat] * (2 / 3 / objects) if objects else 2 * chance
    ladder = np.cumsum(chance)
    at = np.searchsorted(ladder, rng.random(count) * ladder[-1], side="right")
    at = np.minimum(at, len(flat) - 1)
    return np.stack((at % regions.shape[1], at // regions.shape[1]), axis=-1).astype(np.float32)
