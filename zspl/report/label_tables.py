"""The tables of labels and classes: how good, how sure, and what is taken for what."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from zspl.evaluation.results import Results, percent
from zspl.report.formats import ABSENT, Table
from zspl.report.tables import Spread

_SHOWN_CONFUSIONS = 3


def zero_shot_table(results: Results, *, calibration_split: str) -> Table:
    """Pseudo-label variants x their quality, before any training, and what was expected of it."""
    numbers = results.variants
    display = numbers.copy().astype(object)
    for column in numbers.columns[1:]:
        digits = 4 if column == "threshold" else 2
        display[column] = [ABSENT if math.isnan(v) else f"{v:.{digits}f}" for v in numbers[column]]
    bounds = (numbers["expected mIoU"], numbers["expected low"], numbers["expected high"])
    display["expected mIoU"] = [_expected(*row) for row in zip(*bounds, strict=True)]
    display = display.drop(columns=["expected low", "expected high"])
    return Table(
        name="zero_shot",
        title="Zero-shot pseudo labels (ablation), %",
        display=display,
        numbers=numbers,
        notes=(
            f"All but the val columns: on the labeled images of {calibration_split}, where "
            "thresholds are calibrated; val is untouched by any choice.",
            "Expected mIoU with its 90 % interval, and ECE (expected calibration error, 10 bins) "
            "before and after calibration: cross-validated over the labeled images.",
            "A pixel with no label counts as a miss. Precision and recall: mean over classes. "
            "Foreground: share of pixels labeled other than background.",
            *(f"{name}: {sentence}" for name, sentence in results.verdicts.items()),
        ),
    )


def _expected(value: float, low: float, high: float) -> str:
    if math.isnan(value):
        return ABSENT
    return f"{value:.1f}" if math.isnan(low) else f"{value:.1f} ({low:.1f}-{high:.1f})"


def subset_of(scores: Mapping[str, Any]) -> str:
    """Return where label quality is looked up: val, which no choice has seen, if it was scored."""
    return "val" if scores.get("val", {}).get("iou") else "audit"


def label_classes_table(
    results: Results, names: Sequence[str], *, calibration_split: str
) -> Table | None:
    """Classes x pseudo-label variants, IoU in percent; None where no variant has classes."""
    columns = {}
    for variant, scores in results.label_scores.items():
        subset = subset_of(scores)
        found = scores.get(subset, {}).get("iou", {})
        where = "val" if subset == "val" else f"labeled images of {calibration_split}"
        if found:
            columns[f"{variant} ({where})"] = [percent(found.get(name)) for name in names]
    if not columns:
        return None
    numbers = pd.DataFrame({"class": list(names), **columns})
    return Table(
        name="label_classes",
        title="Pseudo labels: IoU of each class, %",
        display=_rounded(numbers, digits=1),
        numbers=numbers,
        notes=("A dash: the class is neither in the masks nor in the labels.",),
    )


def classes_table(
    ious: Mapping[str, Sequence[Spread]], names: Sequence[str], *, split: str, images: int
) -> Table | None:
    """Classes x methods at one split, IoU in percent, mean ± std over seeds."""
    if not ious:
        return None
    shown = {"class": list(names)}
    raw: dict[str, Sequence[str | float]] = {"class": list(names)}
    for method, spreads in ious.items():
        shown[method] = [_spread(spread) for spread in spreads]
        for key in ("mean", "std", "n"):
            raw[f"{method} {key}"] = [getattr(spread, key) for spread in spreads]
    return Table(
        name="classes",
        title=f"IoU of each class with {images} labeled images ({split}), %",
        display=pd.DataFrame(shown),
        numbers=pd.DataFrame(raw),
        notes=("Mean ± std over seeds; a dash: the class is neither in truth nor predicted.",),
    )


def _spread(spread: Spread) -> str:
    if spread.n == 0:
        return ABSENT
    return f"{spread.mean:.1f}" + ("" if math.isnan(spread.std) else f" ± {spread.std:.1f}")


def confusions_table(groups: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table | None:
    """What costs each label variant or training the most mIoU; None where nobody counted.

    Args:
        groups: Confusions as `dearest_confusions` returns them, under the name of what errs.
    """
    rows: list[dict[str, str | float]] = [
        {
            "in": name,
            "truth": str(entry["truth"]),
            "called": str(entry["called"]),
            "% of its pixels": 100 * float(entry["share"]),
            "costs (points)": 100 * float(entry["gain"]),
        }
        for name, entries in groups.items()
        for entry in entries[:_SHOWN_CONFUSIONS]
    ]
    if not rows:
        return None
    numbers = pd.DataFrame(rows)
    return Table(
        name="confusions",
        title="What is taken for what",
        display=_rounded(numbers, digits=1),
        numbers=numbers,
        notes=(
            "Costs: by how many points mIoU would rise if these pixels alone were right. The "
            f"{_SHOWN_CONFUSIONS} dearest of each.",
        ),
        headings=3,
    )


def _rounded(numbers: pd.DataFrame, *, digits: int) -> pd.DataFrame:
    display = numbers.astype(object)
    for column in numbers.select_dtypes("number").columns:
        display[column] = [
            ABSENT if math.isnan(value) else f"{value:.{digits}f}" for value in numbers[column]
        ]
    return display
