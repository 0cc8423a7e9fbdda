"""How much the tiny CLIP knows of places: dense mIoU of plain CLIP and of GEM.

The background threshold is chosen on one set of benchmark scenes and applied to another.
Run as `python -m zspl.toyworld.probe`, or with `--checkpoint` during pre-training.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from zspl.features.gem import gem_tokens
from zspl.toyworld import clip_weights
from zspl.toyworld.scene import BENCHMARK, BENCHMARK_SEEDS, render

CALIBRATION_SEEDS = BENCHMARK_SEEDS[90_000:90_100]
"""Scenes that choose the threshold."""

UNTOUCHED_SEEDS = BENCHMARK_SEEDS[91_000:91_150]
"""Scenes that are scored with it; no choice is made on them."""

_THRESHOLDS = np.linspace(-0.4, 1.0, 141)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Scores of one way to read the tokens.

    Attributes:
        threshold: Cosine above which a pixel is an object, from the calibration scenes.
        calibration: mIoU on the calibration scenes, over background and classes.
        untouched: mIoU on the untouched scenes at the same threshold.
        regions: The same on true regions with averaged tokens: what perfect masks would give.
        object_accuracy: Share of object pixels whose best class is right, threshold aside.
    """

    threshold: float
    calibration: float
    untouched: float
    regions: float
    object_accuracy: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """Cosines and truth of a set of scenes; `region` holds cosines averaged over true regions."""

    pixel: Float[Tensor, "N K H W"]
    region: Float[Tensor, "N K H W"]
    label: Int64[Tensor, "N H W"]


def _scenes(seeds: range) -> tuple[UInt8[np.ndarray, "N H W 3"], Tensor, Tensor]:
    scenes = [render(seed, spec=BENCHMARK) for seed in seeds]
    label = torch.from_numpy(np.stack([s.label for s in scenes])).long()
    instances = torch.from_numpy(np.stack([s.instances for s in scenes])).long()
    return np.stack([s.image for s in scenes]), label, instances


def _by_region(tokens: Tensor, text: Tensor, instances: Tensor) -> Tensor:
    """Average up-sampled tokens over every true region and spread its cosines over its pixels."""
    wide = F.interpolate(tokens, size=instances.shape[-2:], mode="bilinear", align_corners=False)
    out = torch.empty(len(tokens), len(text), *instances.shape[-2:])
    for k in range(len(tokens)):
        for region in torch.unique(instances[k]):
            inside = instances[k] == region
            mean = F.normalize(wide[k][:, inside].mean(1), dim=0)
            out[k][:, inside] = (text @ mean)[:, None]
    return out


@torch.no_grad()
def score(
    model: torch.nn.Module,
    seeds: range,
    *,
    size: int,
    temperature: float | None,
    depth: int,
) -> dict[str, Scored]:
    """Compare every token of every scene with the class prompts, for plain CLIP and for GEM.

    Args:
        model: The tiny CLIP.
        seeds: Benchmark scenes.
        size: Side the pictures are resized to, in pixels.
        temperature: GEM's self-attention temperature.
        depth: GEM's depth.

    Returns:
        Cosines by reading, "plain" and "gem".
    """
    images, label, instances = _scenes(seeds)
    prompts = [f"a photo of a {name}" for name in BENCHMARK.class_names]
    text = F.normalize(model.encode_text(clip_weights.tokenizer_once()(prompts)), dim=1)  # type: ignore[operator]
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255.0
    pixels = F.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)
    pixels = (pixels - clip_weights.MEAN) / clip_weights.STD
    found: dict[str, list[Tensor]] = {"gem": [], "plain": []}
    for chunk in torch.split(pixels, 25):
        gem, plain = gem_tokens(model, chunk, depth=depth, ss_attn_temp=temperature)
        found["gem"].append(gem[:, 1:])
        found["plain"].append(plain[:, 1:])
    grid = size // 8
    scored = {}
    for name, parts in found.items():
        tokens = torch.cat(parts).transpose(1, 2).reshape(len(images), -1, grid, grid)
        cosine = torch.einsum("nchw,kc->nkhw", F.normalize(tokens, dim=1), text)
        wide = F.interpolate(cosine, size=label.shape[-2:], mode="bilinear", align_corners=False)
        region = _by_region(tokens, text, instances)
        scored[name] = Scored(pixel=wide, region=region, label=label)
    return scored


def _miou(cosine: Tensor, label: Tensor, thresholds: np.ndarray) -> np.ndarray:
    best, winner = cosine.max(1)
    classes = cosine.shape[1] + 1
    bins = torch.bucketize(best.flatten(), torch.from_numpy(thresholds).float(), right=True)
    cell = (label.flatten() * classes + winner.flatten() + 1) * (len(thresholds) + 1) + bins
    counts = torch.bincount(cell, minlength=classes * classes * (len(thresholds) + 1))
    counts = counts.view(classes, classes, -1).double()
    total = counts.sum(2)
    scores = []
    for k in range(len(thresholds)):
        confusion = counts[..., k + 1 :].sum(2)
        confusion[:, 0] = (total - confusion).sum(1)
        hit = confusion.diag()
        scores.append(
            (hit / (confusion.sum(0) + confusion.sum(1) - hit).clamp_min(1)).mean().item()
        )
    return np.array(scores)


def read(calibration: Scored, untouched: Scored) -> Reading:
    """Choose the threshold on one set and score the other."""
    curve = _miou(calibration.pixel, calibration.label, _THRESHOLDS)
    region_curve = _miou(calibration.region, calibration.label, _THRESHOLDS)
    chosen, region_chosen = (
        _THRESHOLDS[[curve.argmax()]],
        _THRESHOLDS[[region_curve.argmax()]],
    )
    objects = untouched.label > 0
    right = (untouched.pixel.argmax(1) + 1 == untouched.label)[objects].float().mean()
    return Reading(
        threshold=float(chosen[0]),
        calibration=float(curve.max()),
        untouched=float(_miou(untouched.pixel, untouched.label, chosen)[0]),
        regions=float(_miou(untouched.region, untouched.label, region_chosen)[0]),
        object_accuracy=right.item(),
    )


def _from_checkpoint(path: Path) -> torch.nn.Module:
    folder = path.parent / "exported"
    clip_weights.write(torch.load(path, weights_only=True)["model"], folder)
    model: torch.nn.Module = clip_weights.read(folder)[0]
    return model


def main() -> None:
    """Print the readings, one JSON line per setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--checkpoint", type=Path, help="a pre-training checkpoint; else the shipped"
    )
    parser.add_argument("--size", type=int, nargs="+", default=[96])
    parser.add_argument("--temperature", type=float, nargs="+", default=[20.0])
    parser.add_argument("--depth", type=int, nargs="+", default=[5])
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.checkpoint:
        model = _from_checkpoint(given.checkpoint)
    else:
        model = clip_weights.read(clip_weights.FOLDER)[0]
    for size in given.size:
        for temperature in given.temperature:
            for depth in given.depth:
                setting = {"size": size, "temperature": temperature, "depth": depth}
                sets = [
                    score(model, seeds, size=size, temperature=temperature, depth=depth)
                    for seeds in (CALIBRATION_SEEDS, UNTOUCHED_SEEDS)
                ]
                for name in ("plain", "gem"):
                    line = setting | {"reading": name} | vars(read(sets[0][name], sets[1][name]))
                    sys.stdout.write(json.dumps(line) + "\n")
                    sys.stdout.flush()


if __name__ == "__main__":
    main()
