"""Measure how well the tiny SAM segments: `python -m zspl.toyworld.sam_probe`."""

import argparse
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from zspl.toyworld import scene
from zspl.toyworld.sam import GENERATOR_SETTINGS, WEIGHTS, load_sam

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

LOG = logging.getLogger("zspl.toyworld.sam_probe")
FIRST_SEED = 90_000
"""Benchmark-like scenes from this seed on are for the probe; the benchmark uses lower ones."""

LOOSE, TIGHT = 0.5, 0.75
"""IoUs from which on an object counts as found."""


@dataclass(frozen=True)
class Report:
    """How the masks of a set of pictures compare with the truth.

    Attributes:
        recall_50: Share of objects that some mask meets at IoU >= 0.5.
        recall_75: The same at 0.75.
        masks: Masks per picture.
        seconds: Seconds per picture.
        miou: Mean IoU when each mask gets the class that most of its pixels have.
    """

    recall_50: float
    recall_75: float
    masks: float
    seconds: float
    miou: float


def measure(
    sam: "Sam",
    seeds: Iterable[int],
    *,
    spec: scene.SceneSpec,
    settings: Mapping[str, Any] = GENERATOR_SETTINGS,
) -> Report:
    """Segment rendered pictures and compare the masks with the objects in them.

    Args:
        sam: The model.
        seeds: Which pictures of the corpus.
        spec: The corpus.
        settings: Arguments of `SamAutomaticMaskGenerator`.
    """
    from segment_anything import SamAutomaticMaskGenerator

    generator = SamAutomaticMaskGenerator(sam, **settings)
    classes = len(spec.class_names) + 1
    confusion = np.zeros((classes, classes), dtype=np.int64)
    best, counts, seconds = [], [], []
    for seed in seeds:
        picture = scene.render(seed, spec=spec)
        began = time.perf_counter()
        records = generator.generate(picture.image)
        seconds.append(time.perf_counter() - began)
        masks = np.array([record["segmentation"] for record in records], dtype=bool)
        masks = masks.reshape(-1, *picture.label.shape)
        counts.append(len(masks))
        best.append(best_ious(masks, picture.instances))
        painted = paint_majority(masks, picture.label)
        pair = picture.label.astype(np.int64) * classes + painted
        confusion += np.bincount(pair.ravel(), minlength=classes**2).reshape(classes, classes)
    ious = np.concatenate(best)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - confusion.diagonal()
    return Report(
        recall_50=float((ious >= LOOSE).mean()),
        recall_75=float((ious >= TIGHT).mean()),
        masks=float(np.mean(counts)),
        seconds=float(np.mean(seconds)),
        miou=float((confusion.diagonal() / np.maximum(union, 1))[union > 0].mean()),
    )


def best_ious(
    masks: Bool[np.ndarray, "N H W"], instances: UInt8[np.ndarray, "H W"]
) -> Float[np.ndarray, " K"]:
    """Give each visible object the IoU of the mask that fits it best.

    Args:
        masks: The masks of one picture.
        instances: Number of the object at each pixel, 0 = background.
    """
    best = []
    for number in np.unique(instances[instances > 0]):
        truth = instances == number
        union = (masks | truth).sum(axis=(1, 2))
        best.append(((masks & truth).sum(axis=(1, 2)) / union).max(initial=0.0))
    return np.array(best, dtype=np.float64)


def paint_majority(
    masks: Bool[np.ndarray, "N H W"], label: UInt8[np.ndarray, "H W"]
) -> UInt8[np.ndarray, "H W"]:
    """Paint every mask, large ones first, with the class that most of its pixels truly have.

    Args:
        masks: The masks of one picture.
        label: True class of each pixel, 0 = background.
    """
    painted = np.zeros_like(label)
    for index in np.argsort(-masks.sum(axis=(1, 2)), kind="stable"):
        painted[masks[index]] = np.bincount(label[masks[index]], minlength=1).argmax()
    return painted


def main() -> None:
    """Run the probe from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--corpus", choices=("benchmark", "pretrain"), default="benchmark")
    parser.add_argument("--points", type=int, default=GENERATOR_SETTINGS["points_per_side"])
    parser.add_argument("--iou", type=float, default=GENERATOR_SETTINGS["pred_iou_thresh"])
    parser.add_argument(
        "--stability", type=float, default=GENERATOR_SETTINGS["stability_score_thresh"]
    )
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    settings = {
        **GENERATOR_SETTINGS,
        "points_per_side": given.points,
        "pred_iou_thresh": given.iou,
        "stability_score_thresh": given.stability,
    }
    spec = scene.BENCHMARK if given.corpus == "benchmark" else scene.PRETRAIN
    first = FIRST_SEED if given.corpus == "benchmark" else spec.seeds.stop - 10_000
    seeds = range(first, first + given.pictures)
    report = measure(load_sam(given.weights), seeds, spec=spec, settings=settings)
    LOG.info(
        "%s iou %.2f stability %.2f: %s",
        given.corpus,
        given.iou,
        given.stability,
        report,
    )


if __name__ == "__main__":
    main()
