"""Captioned pictures for the tiny CLIP: rendered once to disk, then drawn with flips.

No mask and no attribute leaves this module; a picture comes with one sentence.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from zspl.toyworld.scene import PRETRAIN, SceneSpec, captions, render

CLIP_CORPUS: SceneSpec = dataclasses.replace(
    PRETRAIN,
    size=64,
    layouts=(("objects", 0.40), ("filled", 0.15), ("half", 0.25), ("empty", 0.20)),
    objects=(1, 3),
    diameter=(18.0, 46.0),
)
"""Pictures the tiny CLIP learns from; a fifth show background only, which decides what it
knows of backgrounds."""

_SMALLEST_SHARE = 0.015


@dataclass(frozen=True, kw_only=True, eq=False)
class Bank:
    """Rendered pictures and the names of what is visible in each.

    Attributes:
        images: Red, green, blue in 0..255.
        names: Texture names per picture; empty for background only.
    """

    images: UInt8[np.ndarray, "N H W 3"]
    names: list[tuple[str, ...]]

    def draw(
        self, count: int, rng: np.random.Generator
    ) -> tuple[UInt8[np.ndarray, "B H W 3"], list[str]]:
        """Draw pictures, each flipped and transposed at random, with their captions."""
        chosen = rng.integers(len(self.names), size=count)
        turns = rng.integers(8, size=count)
        batch = np.stack(
            [_turn(self.images[i], int(t)) for i, t in zip(chosen, turns, strict=True)]
        )
        return batch, [captions(self.names[i], rng) for i in chosen]


def _turn(image: np.ndarray, turn: int) -> np.ndarray:
    if turn & 1:
        image = image[::-1]
    if turn & 2:
        image = image[:, ::-1]
    return image.swapaxes(0, 1) if turn & 4 else image


def build(folder: Path, *, count: int, spec: SceneSpec = CLIP_CORPUS) -> Bank:
    """Render the corpus into a folder, or read it if it is already there.

    Args:
        folder: Holds `images.npy` and `names.json`; made if missing.
        count: Number of pictures.
        spec: What they look like.

    Returns:
        The bank; images are memory-mapped.
    """
    folder.mkdir(parents=True, exist_ok=True)
    images_path, names_path = (
        folder / f"images_{count}.npy",
        folder / f"names_{count}.json",
    )
    if not names_path.exists():
        images = np.lib.format.open_memmap(
            images_path,
            mode="w+",
            dtype=np.uint8,
            shape=(count, spec.size, spec.size, 3),
        )
        names = []
        for i in tqdm(range(count), desc="render", mininterval=5.0):
            scene = render(spec.seeds[i], spec=spec)
            images[i] = scene.image
            share = np.bincount(scene.label.ravel(), minlength=256) / scene.label.size
            names.append(
                [spec.class_names[k - 1] for k in scene.class_ids if share[k] > _SMALLEST_SHARE]
            )
        images.flush()
        names_path.write_text(json.dumps(names), encoding="utf-8")
    stored = json.loads(names_path.read_text(encoding="utf-8"))
    return Bank(images=np.load(images_path, mmap_mode="r"), names=[tuple(row) for row in stored])
