import csv
import json

import numpy as np
import pytest

from zspl import stages
from zspl.errors import DataError, SettingsError
from zspl.evaluation.results import configured_cells
from zspl.io.images import write_label
from zspl.io.layout import Layout
from zspl.observer import Silent
from zspl.settings import Cells, Label, Settings
from zspl.stages.tabulate import budget_notes

RELIABILITY = [{"pixels": 4, "confidence": 0.5, "accuracy": 0.25}]


def write_scores(layout, settings, *, skip=()):
    """Write scores that grow with the seed; predictions for the val images."""
    for cell in configured_cells(settings):
        if cell.path.as_posix() in skip:
            continue
        folder = layout.cell_score(cell)
        miou = (0.5 if cell.labels is None else 0.7) + 0.02 * cell.seed
        folder.mkdir(parents=True)
        content = {"best": {"miou": miou, "iou": {}}, "last": {"miou": miou - 0.1, "iou": {}}}
        (folder / "metrics.json").write_text(json.dumps(content))
        for number in range(5, 10):
            label = np.full((6, 8), cell.seed, np.uint8)
            for checkpoint in ("best", "last"):
                write_label(folder / "predictions" / checkpoint / f"i{number}.png", label)
    folder = layout.label_score("ready")
    folder.mkdir(parents=True)
    audit = {"miou": 0.6, "mean_precision": 0.7, "mean_recall": 0.8, "coverage": 1.0}
    audit |= {"foreground": 0.5, "ece": 0.1, "reliability": RELIABILITY}
    (folder / "metrics.json").write_text(
        json.dumps({"audit": audit, "val": {"miou": 0.55}, "threshold": None})
    )


def tabulate(settings, observer=None):
    return stages.run("tabulate", settings, observer or Silent())


def test_a_benchmark_without_cells_is_one_line(prepared, make_settings):
    settings = make_settings(prepared.out)
    nothing = settings.model_copy(
        update={"cells": settings.cells.model_copy(update={"methods": (), "label_methods": ()})}
    )
    with pytest.raises(SettingsError, match="cells names no training"):
        tabulate(nothing)


def test_tables_figures_and_the_page_appear_together(prepared, make_settings, recorder):
    settings = make_settings(prepared.out)
    write_scores(prepared, settings)
    means = tabulate(settings, recorder)
    tables = ("cells", "checkpoints", "methods", "zero_shot")
    figures = ("miou_vs_labels", "qualitative", "reliability")
    expected = {f"{name}.{kind}" for name in tables for kind in ("csv", "md", "tex")}
    expected |= {f"{name}.{kind}" for name in figures for kind in ("png", "svg")}
    found = {path.name for path in prepared.tables.iterdir()}
    plots = {"class_iou.csv", "curves.csv", "miou.csv"}
    assert found == expected | plots | {"index.html", "table.txt"}
    assert means["miou/enhanced-ready/small/few"] == pytest.approx(0.71)
    assert {p.name for p in recorder.files} >= {"index.html", "miou_vs_labels.png"}


def test_the_text_table_shows_mean_std_and_the_label_quality(prepared, make_settings):
    settings = make_settings(prepared.out)
    write_scores(prepared, settings)
    tabulate(settings)
    text = (prepared.tables / "table.txt").read_text()
    assert "71.00 ± 1.41 (n=2)" in text
    assert "few (2 images)" in text
    assert "55.00" in text
    assert "No score" not in text


def test_the_verdict_and_the_expected_miou_stand_in_the_report(prepared, make_settings):
    settings = make_settings(prepared.out)
    write_scores(prepared, settings)
    path = prepared.label_score("ready") / "metrics.json"
    scores = json.loads(path.read_text())
    bins = {"ece": 0.2, "reliability": RELIABILITY}
    scores |= {"sentence": "Go: expected mIoU 66 %.", "expected": {"miou": 0.66, "low": 0.61}}
    scores["expected"]["high"] = 0.7
    scores["reliability"] = {"before": bins, "after": {"ece": 0.05, "reliability": []}}
    path.write_text(json.dumps(scores))
    tabulate(settings)
    for name in ("index.html", "table.txt"):
        text = (prepared.tables / name).read_text()
        assert "ready: Go: expected mIoU 66 %." in text
        assert "66.0 (61.0-70.0)" in text


def test_best_and_last_are_both_reported_with_mean_and_deviation(prepared, make_settings):
    settings = make_settings(prepared.out)
    write_scores(prepared, settings)
    tabulate(settings)
    line = "| enhanced-ready | small   | few     | 71.00 ± 1.41 (n=2) | 61.00 ± 1.41 (n=2) |"
    assert line in (prepared.tables / "checkpoints.md").read_text()
    assert line.replace("|", " ").split() in [
        row.split() for row in (prepared.tables / "table.txt").read_text().splitlines()
    ]
    with (prepared.tables / "checkpoints.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["method"], r["split"]) for r in rows] == [
        (m, s) for m in ("supervised", "enhanced-ready") for s in ("few", "many")
    ]
    assert (rows[2]["last mean"], rows[2]["last std"], rows[2]["last n"]) == (
        "61.0000", "1.4142", "2",
    )  # fmt: skip


def seen(layout, settings, how, *, seeds=(0, 1)):
    """Write into scores how photos were looked at."""
    for cell in configured_cells(settings):
        path = layout.cell_score(cell) / "metrics.json"
        if cell.seed in seeds:
            path.write_text(json.dumps({**json.loads(path.read_text()), "evaluate": how}))


PLAIN = {"window": None, "scales": [1.0], "flip": False}


def test_tables_say_how_photos_were_looked_at_unless_it_was_plainly(prepared, make_settings):
    settings = make_settings(prepared.out)
    write_scores(prepared, settings)
    seen(prepared, settings, PLAIN, seeds=(0,))
    tabulate(settings)
    assert "valuated" not in (prepared.tables / "table.txt").read_text()
    seen(prepared, settings, {"window": 801, "scales": [0.5, 1.0], "flip": True})
    tabulate(settings)
    note = "Evaluated on windows of 801 pixels, sizes 0.5 and 1, mirror images; prob"
    for name in ("methods.md", "checkpoints.md", "cells.md", "index.html", "table.txt"):
        assert note in (prepared.tables / name).read_text(), name


def test_scores_that_were_not_made_alike_are_named(prepared, make_settings):
    settings = make_settings(prepared.out)
    write_scores(prepared, settings)
    seen(prepared, settings, {**PLAIN, "flip": True}, seeds=(1,))
    tabulate(settings)
    text = (prepared.tables / "methods.md").read_text()
    assert "do not compare them: on whole photos: supervised/small/few/seed-0, superv" in text
    assert "; on whole photos, mirror images: supervised/small/few/seed-1, superv" in text


def test_a_missing_cell_is_a_smaller_n_or_a_dash_and_is_named(prepared, make_settings):
    settings = make_settings(prepared.out)
    gone = [f"supervised/small/many/seed-{seed}" for seed in (0, 1)]
    write_scores(prepared, settings, skip=[*gone, "supervised/small/few/seed-1"])
    tabulate(settings)
    text = (prepared.tables / "table.txt").read_text()
    assert "50.00 (n=1 of 2)" in text
    row = next(line for line in text.splitlines() if line.startswith("supervised"))
    assert row.rstrip().endswith("—")
    assert all(name in text for name in gone)
    assert gone[0] in (prepared.tables / "index.html").read_text()


def test_without_any_score_the_tables_hold_dashes(prepared, make_settings):
    assert tabulate(make_settings(prepared.out)) == {}
    assert "—" in (prepared.tables / "methods.md").read_text()
    assert not (prepared.tables / "qualitative.png").exists()


def test_the_last_checkpoint_is_shown_when_asked_for(prepared, make_settings):
    settings = make_settings(prepared.out, tabulate__checkpoint="last")
    write_scores(prepared, settings)
    assert tabulate(settings)["miou/supervised/small/few"] == pytest.approx(0.41)


def test_several_models_get_a_table_of_their_own(prepared, make_settings):
    settings = make_settings(prepared.out, cells__models=["small", "large"])
    write_scores(prepared, settings)
    tabulate(settings)
    table = (prepared.tables / "backbones.md").read_text()
    assert "| few" in table
    assert "large" in table


def test_tabulating_twice_gives_the_same_bytes(prepared, make_settings):
    settings = make_settings(prepared.out)
    write_scores(prepared, settings)
    tabulate(settings)
    first = {p.name: p.read_bytes() for p in prepared.tables.iterdir()}
    tabulate(settings)
    assert {p.name: p.read_bytes() for p in prepared.tables.iterdir()} == first


def test_a_broken_score_file_is_named(prepared, make_settings):
    settings = make_settings(prepared.out)
    write_scores(prepared, settings)
    path = prepared.label_score("ready") / "metrics.json"
    path.write_text("{")
    with pytest.raises(DataError, match=r"metrics\.json: is no JSON .*; run its stage evaluate"):
        tabulate(settings)


def test_masks_outside_a_cells_budget_that_chose_a_threshold_are_named(tmp_path):
    assert budget_notes_of(tmp_path, calibrated=True) == [
        "many: the thresholds of zs were calibrated with 1 masks of few that are not among its "
        "labels."
    ]
    assert budget_notes_of(tmp_path, calibrated=False) == []


def budget_notes_of(folder, *, calibrated):
    layout = Layout(folder)
    for name, labeled in (("few", "a\nb\n"), ("many", "b\nc\nd\n")):
        layout.split(name).mkdir(parents=True, exist_ok=True)
        for part in ("labeled", "holdout", "unlabeled", "val"):
            text = labeled if part == "labeled" else "v\n" if part == "val" else ""
            (layout.split(name) / f"{part}.txt").write_text(text)
    layout.label_score("zs").mkdir(parents=True, exist_ok=True)
    (layout.label_score("zs") / "metrics.json").write_text(
        f'{{"calibrated": {str(calibrated).lower()}}}'
    )
    settings = Settings.model_construct(
        label=Label(calibration_split="few", variants={}),
        cells=Cells(
            methods=(),
            label_methods=("enhanced",),
            labels=("zs",),
            models=(),
            splits=("few", "many"),
            seeds=(0,),
        ),
    )  # fmt: skip
    return budget_notes(settings, layout)
