"""What to expect of pseudo labels before anything is trained: mIoU, its uncertainty, a verdict.

Every image is labeled by a decision fitted on other images, so the numbers hold for images that
have no mask.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from zspl.labeling._calibration_counts import (
    Confusion,
    Floats,
    mean_over_classes,
    resamples,
)

LEVEL = 0.9
"""The share of resamples inside an interval."""

FEW_IMAGES = 5
"""With fewer images the verdict is never better than caution."""

GO = 0.50
"""Go needs this much at the low end; dense GEM labels at 46 % of VOC went with a collapse."""

NO_GO = 0.30
"""No-go if even the high end is lower; the weakest published baseline on COCO has 31.9 %."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A share in [0, 1] and the 90 % interval of its estimate, None with a single image."""

    value: float
    low: float | None = None
    high: float | None = None

    def as_json(self, key: str) -> dict[str, float | None]:
        """Return the number under `key` beside `low` and `high`."""
        return {
            key: None if math.isnan(self.value) else self.value,
            "low": self.low,
            "high": self.high,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Expectation:
    """The quality that pseudo labels of new images will have.

    `miou` is the mean over the classes that are true somewhere in the labeled images (NaN if
    none is); `iou` has those by class id, and `unmeasured` the ids of the rest. `held_out` is False
    if the only image had to serve for fitting and for judging.
    """

    images: int
    miou: Interval
    iou: Mapping[int, Interval]
    unmeasured: tuple[int, ...]
    held_out: bool

    def as_json(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the expectation as JSON values, classes by name."""
        return {
            **self.miou.as_json("miou"),
            "level": LEVEL,
            "images": self.images,
            "held_out": self.held_out,
            "iou": {names[c]: found.as_json("iou") for c, found in self.iou.items()},
            "unmeasured": [names[c] for c in self.unmeasured],
        }


Verdict = Literal["Go", "Caution", "No-go"]


def expect(found: Confusion, *, held_out: bool, random: np.random.Generator) -> Expectation:
    """Estimate mIoU and IoU with percentile intervals of a bootstrap over images.

    Args:
        found: Counts per image [N K].
        held_out: Whether each image was labeled by a decision fitted on others.
        random: Draws the resamples.
    """
    images = len(found.truth)
    iou = _true_only(found.pooled(np.ones((1, images))))[0]
    spread = None
    if images > 1:
        spread = _true_only(found.pooled(resamples(images, random)))
    measured = [int(c) for c in np.flatnonzero(~np.isnan(iou))]
    means = None if spread is None else mean_over_classes(spread)
    return Expectation(
        images=images,
        miou=_interval(float(mean_over_classes(iou)), means, images=images),
        iou={
            c: _interval(float(iou[c]), None if spread is None else spread[:, c], images=images)
            for c in measured
        },
        unmeasured=tuple(c for c in range(len(iou)) if c not in measured),
        held_out=held_out,
    )


def judge(expected: Expectation, *, than: float | None = None) -> Verdict:
    """Tell whether training with these labels promises a gain.

    Training with pseudo labels pulls the model towards them, so they help when they are better
    than what the model reaches alone. With `than`, the mIoU of a model trained without them, the
    verdict is Go if the whole interval is above it, No-go if all of it is below, else Caution.
    Without it, Go needs a low end of at least `GO`, and No-go is a high end below `NO_GO`: on VOC
    with 92 labels the paper's method fell to 65.3 from UniMatch's 75.2 with labels of the quality
    of GEM (46 on VOC), while on COCO with 232 labels, where UniMatch reaches 31.9, it gained 14.
    Fewer than `FEW_IMAGES` images never give a Go.
    """
    low = expected.miou.value if expected.miou.low is None else expected.miou.low
    high = expected.miou.value if expected.miou.high is None else expected.miou.high
    go, no_go = (GO, NO_GO) if than is None else (than, than)
    if np.isnan(expected.miou.value):
        return "Caution"
    if high < no_go:
        return "No-go"
    return "Go" if low >= go and expected.images >= FEW_IMAGES else "Caution"


def sentence(expected: Expectation, names: Sequence[str], *, than: float | None = None) -> str:
    """Return the verdict, the number and its uncertainty, and the weakest class, for people."""
    if not expected.iou:
        return "Caution: nothing could be measured, no labeled image has a pixel with a class."
    interval = expected.miou
    if interval.low is None or interval.high is None:
        spread = "1 image: fitted and judged on the same one, no interval"
    else:
        low, high = round(100 * interval.low), round(100 * interval.high)
        spread = f"{LEVEL:.0%} interval {low}-{high}, {expected.images} images".replace("%", " %")
    verdict = judge(expected, than=than)
    basis = " by rule of thumb" if than is None else ""
    text = f"{verdict}{basis}: expected mIoU {_percent(interval.value)} ({spread})"
    if than is not None:
        text += f", a model without these labels has {_percent(than)}"
    weakest = min(expected.iou, key=lambda c: expected.iou[c].value)
    text += f"; weakest: {names[weakest]} {_percent(expected.iou[weakest].value)}"
    if expected.unmeasured:
        text += "; not in the labeled images: " + ", ".join(names[c] for c in expected.unmeasured)
    return text + "."


def _percent(share: float) -> str:
    return f"{round(100 * share)} %"


def _true_only(pooled: Confusion) -> Floats:
    """Return the IoU, NaN also for a class that is painted but nowhere true."""
    result: Floats = np.where(pooled.truth > 0, pooled.iou(), np.nan)
    return result


def _interval(value: float, resamples: Floats | None, *, images: int) -> Interval:
    if resamples is None or np.isnan(resamples).all():
        return Interval(value=value)
    tail = _tail(images)
    low, high = np.nanquantile(resamples, (tail, 1 - tail))
    return Interval(value=value, low=float(low), high=float(high))


def _tail(images: int) -> float:
    """Return the share of resamples below the interval, smaller for few images.

    Percentile intervals are too narrow then: the expanded percentile of Hesterberg, "What
    teachers should know about the bootstrap", 2015, looks up sqrt(n / (n - 1)) t(n - 1) instead
    of z. The quantile of t is its expansion in 1 / (n - 1).
    """
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    free = images - 1
    t = z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
    return NormalDist().cdf(-t * math.sqrt(images / free))
