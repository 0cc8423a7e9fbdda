"""The figures of the report, from scores and label maps on disk."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zspl.evaluation.results import Results
from zspl.report.charts import Beside, Bins, Line, draw_beside, draw_lines, draw_reliability
from zspl.report.class_charts import draw_classes
from zspl.report.details import label_spreads
from zspl.report.label_tables import subset_of
from zspl.report.looks import Look, looks
from zspl.report.published import Pair
from zspl.report.roles import OURS, ROOM, method_of, series_name, shown_rows, smallest_split
from zspl.report.tables import Spread, heading, over_seeds
from zspl.settings import Settings

LEAST_SHARE = 0.005
"""Reliability bins with a smaller share of the pixels are not drawn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A drawn figure: `path` without suffix; `alt` says in words what it shows."""

    path: Path
    caption: str
    alt: str
    photos: bool = False


def lines_figure(
    settings: Settings, results: Results, found: Sequence[Pair], folder: Path
) -> Figure | None:
    """Draw mIoU against the number of labels; None where there is no number at all."""
    checkpoint = settings.tabulate.checkpoint
    ours = line_points(results, checkpoint)
    lines = [Line(name, points) for name, points in ours.items()]
    theirs: dict[str, list[tuple[int, float, float]]] = {}
    like: dict[str, str] = {}
    for pair in found:
        series = series_name(results, pair.row, pair.model)
        network = pair.backbone.partition(",")[0] or "network not named"
        name = f"published: {pair.method}, {network}"
        point = (results.labeled_images[pair.split], pair.published, float("nan"))
        theirs.setdefault(name, []).append(point)
        like.setdefault(name, series)
    lines += [Line(n, points, published=True, like=like[n]) for n, points in theirs.items()]
    if not any(not np.isnan(mean) for line in lines for _, mean, _ in line.points):
        return None
    path = folder / "miou_vs_labels"
    draw_lines(path, lines, ylabel="mIoU on val, %", known=_looks(settings, list(ours)))
    bars = "Bars: ± one standard deviation over seeds. " if len(settings.cells.seeds) > 1 else ""
    dashes = "Dashed with hollow markers: published, as printed. " if theirs else ""
    return Figure(
        path=path,
        caption=f"mIoU against the number of labeled images, {checkpoint} checkpoint. "
        f"{bars}{dashes}"
        "Points of one number of labels stand a little apart so that none hides another.",
        alt="Line chart of mIoU in percent against labeled images. " + _points_said(lines),
    )


def _looks(settings: Settings, series: Sequence[str]) -> dict[str, Look]:
    """Return the looks of lines and bars; those that figures choose first differ in colour."""
    return looks([*dict.fromkeys((*shown_rows(settings, series), *series))])


def line_points(results: Results, checkpoint: str) -> dict[str, list[tuple[int, float, float]]]:
    """Return (labeled images, mean, std) per method, and per model when there are several."""
    lines: dict[str, list[tuple[int, float, float]]] = {}
    for (row, model, split), runs in results.cells.groupby(["row", "model", "split"], sort=False):
        spread = over_seeds(runs[checkpoint])
        point = (results.labeled_images[str(split)], spread.mean, spread.std)
        lines.setdefault(series_name(results, str(row), str(model)), []).append(point)
    return lines


def _points_said(lines: Sequence[Line]) -> str:
    said = []
    for line in lines:
        points = [f"{mean:.1f} at {x}" for x, mean, _ in sorted(line.points) if not np.isnan(mean)]
        if points:
            said.append(f"{line.name}: {', '.join(points)}")
    return "; ".join(said) + "."


def beside_figure(results: Results, found: Sequence[Pair], folder: Path) -> Figure | None:
    """Draw ours and published as bars; None where nothing has a published number."""
    if not found:
        return None
    panels: dict[str, list[Beside]] = {}
    for pair in found:
        name = series_name(results, pair.row, pair.model)
        bar = Beside(name, pair.ours.mean, pair.ours.std, pair.published)
        panels.setdefault(heading(pair.split, results), []).append(bar)
    path = folder / "differences"
    draw_beside(path, panels)
    return Figure(
        path=path,
        caption="Ours and the nearest published number; the table below says what differs.",
        alt="Bar chart of our mIoU and the published one for "
        f"{len(found)} pairs of method and split; the table below holds the numbers.",
    )


def classes_figure(
    settings: Settings, results: Results, spreads: Mapping[str, Sequence[Spread]],
    names: Sequence[str], folder: Path,
) -> Figure | None:  # fmt: skip
    """Draw the classes' IoU at the smallest split, methods side by side."""
    split = smallest_split(settings, results)
    shown = shown_rows(settings, list(spreads))
    if not shown:
        return None
    ours = _shown_ours(settings, shown)
    path = folder / "classes"
    known = _looks(settings, list(line_points(results, settings.tabulate.checkpoint)))
    draw_classes(path, {n: spreads[n] for n in shown}, names, sort=ours, colours=known)
    left_out = len(spreads) - len(shown)
    rest = f" {left_out} other methods stand in classes.csv." if left_out else ""
    return Figure(
        path=path,
        caption=f"IoU of each class on val with {results.labeled_images[split]} labeled images "
        f"({split}), mean over seeds; the classes are ordered by {ours}.{rest}",
        alt=f"IoU of {len(names)} classes, one column each for {', '.join(shown)}. "
        + _extremes(ours, spreads[ours], names),
    )


def _shown_ours(settings: Settings, shown: Sequence[str]) -> str:
    """Return the recommended method where it is shown, else the last column."""
    return next((name for name in shown if method_of(settings, name) == OURS), shown[-1])


def _extremes(name: str, spreads: Sequence[Spread], names: Sequence[str]) -> str:
    known = sorted(
        (spread.mean, label) for spread, label in zip(spreads, names, strict=True) if spread.n
    )
    if not known:
        return ""
    (low, worst), (high, best) = known[0], known[-1]
    return f"{name}: from {worst} {low:.0f} % to {best} {high:.0f} %."


def label_classes_figure(
    settings: Settings, results: Results, names: Sequence[str], folder: Path
) -> Figure | None:
    """Draw the classes' IoU of every variant of pseudo labels."""
    shown = dict(list(label_spreads(results, names).items())[:ROOM])
    if not shown:
        return None
    sort = next((name for name in settings.cells.labels if name in shown), list(shown)[-1])
    where = {subset_of(results.label_scores[name]) for name in shown}
    images = "val images" if where == {"val"} else "the labeled images that calibrated them"
    path = folder / "label_classes"
    draw_classes(path, shown, names, sort=sort, colours={})
    return Figure(
        path=path,
        caption=f"IoU of each class of the pseudo labels on {images}; ordered by {sort}.",
        alt=f"IoU of {len(names)} classes, one column each for {', '.join(shown)}. "
        + _extremes(sort, shown[sort], names),
    )


def reliability_figure(results: Results, folder: Path) -> Figure | None:
    """Draw whether the pseudo labels' confidence can be believed."""
    panels = {
        name: _groups(scores) for name, scores in results.label_scores.items() if "audit" in scores
    }
    if not panels:
        return None
    path = folder / "reliability"
    draw_reliability(path, panels)
    return Figure(
        path=path,
        caption="Can the pseudo labels' confidence be believed? On the diagonal, yes; below it "
        "they claim too much. Cross-validated over the labeled images. A bigger marker holds more "
        f"pixels; bins with less than {LEAST_SHARE:.1%} of them are left out.",
        alt=f"Reliability diagrams of {', '.join(panels)}: share of right pixels against "
        "confidence; the table of pseudo labels holds the calibration errors.",
    )


def _groups(scores: Mapping[str, Any]) -> dict[str, Bins]:
    """Return the bins before and after calibration where there was one."""
    promised = scores.get("reliability")
    if promised is None:
        groups = {"as given": scores["audit"]}
    elif promised["before"] == promised["after"]:
        groups = {"before (raw)": promised["before"]}
    else:
        groups = {"before (raw)": promised["before"], "after calibration": promised["after"]}
    return {name: _bins(group) for name, group in groups.items()}


def _bins(group: Mapping[str, Any]) -> Bins:
    """Return the bins that hold enough pixels for their accuracy to mean something."""
    total = sum(entry["pixels"] for entry in group["reliability"])
    filled = [e for e in group["reliability"] if e["pixels"] > LEAST_SHARE * total]
    return [(e["confidence"], e["accuracy"], e["pixels"] / total) for e in filled]
