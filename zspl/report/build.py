"""All of the report: tables and figures into a folder, and the page that shows them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from zspl.evaluation.results import Results
from zspl.io import atomic
from zspl.io.classes import ClassTable
from zspl.io.layout import Layout
from zspl.io.splits import read_split
from zspl.report import details
from zspl.report.costs import cost_table, read_costs
from zspl.report.figures import (
    Figure,
    beside_figure,
    classes_figure,
    label_classes_figure,
    lines_figure,
    reliability_figure,
)
from zspl.report.formats import Table, terminal, write_table
from zspl.report.grids import labels_grid, predictions_grid
from zspl.report.headline import Headline, headline
from zspl.report.label_tables import (
    classes_table,
    confusions_table,
    label_classes_table,
    zero_shot_table,
)
from zspl.report.page import Section, code, folded, glossary, page
from zspl.report.published import differences_table, network_name, pairs, published_table
from zspl.report.reproduce import command, settings_text
from zspl.report.roles import described_method, described_variant, methods_of, smallest_split
from zspl.report.tables import backbones_table, cells_table, checkpoints_table, methods_table
from zspl.settings import Settings

_FOR_TERMINAL = ("methods", "backbones", "differences", "zero_shot", "checkpoints")


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What a report shows; None stands for what there is no data for."""

    words: Headline
    tables: dict[str, Table | None]
    figures: dict[str, Figure | None]


def write_report(
    settings: Settings,
    results: Results,
    published: pd.DataFrame,
    *,
    warnings: Sequence[str],
    folder: Path,
) -> None:
    """Write every table, every figure, table.txt and index.html into a folder.

    Raises:
        DataError: if the data folder, a picture or a file of costs is missing or broken.
    """
    report = _gather(settings, results, published, folder=folder)
    for table in report.tables.values():
        if table is not None:
            write_table(table, folder)
    atomic.write_text(folder / "index.html", _page(settings, results, report, warnings))
    atomic.write_text(folder / "table.txt", _for_terminal(report, warnings))


def _gather(
    settings: Settings, results: Results, published: pd.DataFrame, *, folder: Path
) -> Report:
    found = pairs(settings, results, published)
    names = ClassTable.read(Layout(settings.paths.out).classes).names
    checkpoint, selection = settings.tabulate.checkpoint, settings.train.selection
    split = smallest_split(settings, results)
    spreads = details.class_spreads(results, names, split=split, checkpoint=checkpoint)
    errors = details.confusions(
        results,
        labels=settings.cells.labels,
        split=split,
        seed=settings.cells.seeds[0],
        checkpoint=checkpoint,
    )
    calibration = settings.label.calibration_split
    several, labels = len(settings.cells.models) > 1, bool(settings.label.variants)
    chosen = {"checkpoint": checkpoint, "selection": selection}
    images = results.labeled_images[split]
    tables = {
        "methods": methods_table(results, **chosen),
        "backbones": backbones_table(results, **chosen) if several else None,
        "differences": differences_table(found, results),
        "published": published_table(published, results),
        "classes": classes_table(spreads, names, split=split, images=images),
        "zero_shot": zero_shot_table(results, calibration_split=calibration) if labels else None,
        "label_classes": label_classes_table(results, names, calibration_split=calibration),
        "confusions": confusions_table(errors),
        "cost": cost_table(read_costs(settings)),
        "checkpoints": checkpoints_table(results, selection=selection),
        "cells": cells_table(results, selection=selection),
    }
    figures = {
        "lines": lines_figure(settings, results, found, folder),
        "beside": beside_figure(results, found, folder),
        "classes": classes_figure(settings, results, spreads, names, folder),
        "labels": labels_grid(settings, folder),
        "predictions": predictions_grid(settings, results, folder),
        "label_classes": label_classes_figure(settings, results, names, folder),
        "reliability": reliability_figure(results, folder),
    }
    words = headline(settings, results, found)
    return Report(words=words, tables=tables, figures=figures)


def _page(settings: Settings, results: Results, report: Report, warnings: Sequence[str]) -> str:
    return page(
        f"Benchmark {settings.benchmark}",
        _subtitle(settings, results),
        words=report.words,
        missing=warnings,
        sections=_sections(settings, results, report),
    )


def _sections(settings: Settings, results: Results, report: Report) -> list[Section]:
    tables, figures = report.tables, report.figures
    return [
        Section(
            name="scores",
            title="Scores",
            figures=[figures["lines"]],
            tables=[tables["methods"], tables["backbones"]],
        ),
        Section(
            name="literature",
            title="Published and ours",
            text="Published numbers are from the papers and were not measured here.",
            figures=[figures["beside"]],
            tables=[tables["differences"]],
            folded=[tables["published"]],
        ),
        Section(
            name="by-class",
            title="Classes",
            figures=[figures["classes"]],
            folded=[tables["classes"]],
        ),
        Section(
            name="pictures",
            title="Pictures",
            figures=[figures["predictions"], figures["labels"]],
        ),
        Section(
            name="audit",
            title="Pseudo labels",
            text=_verdict(settings, results),
            tables=[tables["zero_shot"]],
            after=[figures["reliability"], figures["label_classes"]],
            folded=[tables["label_classes"]],
        ),
        Section(name="errors", title="Errors", tables=[tables["confusions"]]),
        Section(name="price", title="Cost", tables=[tables["cost"]], html=_no_cost(report)),
        Section(
            name="reproduce",
            title="Reproduce",
            text="From the root of the repository, at the commit that this page came with:",
            html=_again(settings),
            folded=[tables["checkpoints"], tables["cells"]],
        ),
    ]


def _verdict(settings: Settings, results: Results) -> str:
    """Return what calibration said of the labels that trainings used, before any of them ran."""
    used = [name for name in settings.cells.labels if name in results.verdicts]
    return " ".join(f"Used in training: {name}. {results.verdicts[name]}" for name in used)


def _no_cost(report: Report) -> str:
    if report.tables["cost"] is not None:
        return ""
    return "<p>Not known: these trainings ran on another machine, or before costs were kept.</p>"


def _subtitle(settings: Settings, results: Results) -> str:
    val = len(read_split(Layout(settings.paths.out).split(settings.cells.splits[0])).val)
    models = {name: network_name(settings.train.models[name]) for name in settings.cells.models}
    networks = ", ".join(f"{name} ({backbone})" for name, backbone in models.items())
    labels = ", ".join(str(count) for count in sorted(results.labeled_images.values()))
    seeds = ", ".join(map(str, settings.cells.seeds))
    word = "seeds" if len(settings.cells.seeds) > 1 else "seed"
    return (
        f"Data set {settings.prepare.dataset.name}; {labels} labeled images; {val} val images; "
        f"network {networks}; {word} {seeds}."
    )


def _again(settings: Settings) -> str:
    names = [(row, described_method(method)) for row, method in methods_of(settings).items()]
    variants = settings.label.variants
    names += [(f"labels {name}", described_variant(variants[name])) for name in variants]
    return "\n".join(
        [
            code(command(settings)),
            folded("Settings (params.yaml, without places)", code(settings_text(settings))),
            folded("Words", glossary([(name, text) for name, text in names if text])),
        ]
    )


def _for_terminal(report: Report, warnings: Sequence[str]) -> str:
    shown = [report.tables[name] for name in _FOR_TERMINAL]
    blocks = [terminal(table) for table in shown if table is not None]
    words = "\n".join((*report.words.found, *report.words.caution))
    return "\n".join([*blocks, words, *warnings]).rstrip() + "\n"
