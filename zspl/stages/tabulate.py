"""tabulate: put all scores of a benchmark into tables, figures and one page."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from zspl.errors import SettingsError
from zspl.evaluation import METRICS
from zspl.evaluation.plot_data import write_plot_data
from zspl.evaluation.results import Results, read_published, read_results
from zspl.io import atomic
from zspl.io.layout import Layout
from zspl.io.splits import read_split
from zspl.observer import Observer
from zspl.report.build import write_report
from zspl.report.tables import over_seeds
from zspl.settings import Settings


def run(settings: Settings, observer: Observer) -> Mapping[str, float]:
    """Write the tables; a cell without scores is shown as a dash and named in a note.

    Returns:
        The mean mIoU over seeds of each method and split, as shares in [0, 1].

    Raises:
        SettingsError: if there are no published numbers for `tabulate.published`, or no cells.
        DataError: if a score file is broken or the data folder is missing.
    """
    published = read_published(settings.tabulate.published)
    results = read_results(settings)
    if results.cells.empty:
        raise SettingsError(
            "tabulate: cells names no training; it needs a method, a model, a split and a seed"
        )
    layout = Layout(settings.paths.out)
    work = layout.work("tabulate")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)

    warnings = [*missing_notes(results), *budget_notes(settings, layout)]
    write_report(settings, results, published, warnings=warnings, folder=work)
    write_plot_data(settings, work)
    atomic.publish(work, layout.tables)
    return _report(layout.tables, results, observer, checkpoint=settings.tabulate.checkpoint)


def missing_notes(results: Results) -> list[str]:
    """Return one line that names what has no score, or nothing."""
    if not results.missing:
        return []
    names = ", ".join(results.missing)
    return [
        f"No score for {len(results.missing)} item(s), shown as a dash or a smaller n: {names}."
    ]


def budget_notes(settings: Settings, layout: Layout) -> list[str]:
    """Name the splits whose cells used a threshold from masks that are not among their labels."""
    calibrated = [name for name in settings.cells.labels if _is_calibrated(layout, name)]
    if not (calibrated and settings.cells.label_methods):
        return []
    source = read_split(layout.split(settings.label.calibration_split))
    notes = []
    for name in settings.cells.splits:
        split = read_split(layout.split(name))
        own = {*split.labeled, *split.holdout}
        foreign = {*source.labeled, *source.holdout} - own
        if foreign:
            notes.append(
                f"{name}: the thresholds of {', '.join(calibrated)} were calibrated with "
                f"{len(foreign)} masks of {source.name} that are not among its labels."
            )
    return notes


def _is_calibrated(layout: Layout, variant: str) -> bool:
    path = layout.label_score(variant) / METRICS
    return path.is_file() and bool(json.loads(path.read_text(encoding="utf-8")).get("calibrated"))


def _report(
    folder: Path, results: Results, observer: Observer, *, checkpoint: str
) -> Mapping[str, float]:
    """Tell the observer the means and the files, and return the means."""
    means = {}
    for (row, model, split), runs in results.cells.groupby(["row", "model", "split"], sort=False):
        spread = over_seeds(runs[checkpoint])
        if spread.n:
            means[f"miou/{row}/{model}/{split}"] = spread.mean / 100
    observer.metrics(means)
    for path in sorted(folder.iterdir()):
        observer.artifact(path)
    return means
