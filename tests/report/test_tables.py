import math
import shutil
import statistics
import subprocess
from dataclasses import replace

import pandas as pd
import pytest

from zspl.errors import SettingsError
from zspl.evaluation.results import Results, read_published
from zspl.report.formats import html, latex, markdown, terminal, write_table
from zspl.report.label_tables import zero_shot_table
from zspl.report.published import published_table
from zspl.report.tables import backbones_table, methods_table, over_seeds

NAN = float("nan")


def results(models=("small",)):
    cells = [
        {"row": row, "model": model, "split": split, "seed": seed, "best": best, "last": best - 1}
        for row, base in (("supervised", 60.0), ("enhanced-sam_gem", 70.0))
        for model in models
        for split, best in (("labeled_92", base), ("labeled_183", NAN))
        for seed in (0, 1)
    ]
    cells[1]["best"] = 64.0
    variants = [
        {"variant": "clip", "val mIoU": 12.5, "labeled mIoU": 13.0, "precision": 20.0}
        | {"recall": 30.0, "coverage": 100.0, "foreground": 40.0, "threshold": 0.5}
        | {"expected mIoU": 14.0, "expected low": 11.25, "expected high": 17.0}
        | {"ECE before": 5.0, "ECE after": 1.0, "val ECE": 2.0},
        {"variant": "gone"}
        | dict.fromkeys(
            ("val mIoU", "labeled mIoU", "precision", "recall", "coverage", "foreground"), NAN
        )
        | dict.fromkeys(("expected mIoU", "expected low", "expected high", "threshold"), NAN)
        | dict.fromkeys(("ECE before", "ECE after", "val ECE"), NAN),
    ]
    return Results(
        cells=pd.DataFrame(cells),
        variants=pd.DataFrame(variants),
        labeled_images={"labeled_92": 92, "labeled_183": 183},
        missing=("supervised/small/labeled_183/seed-0",),
        verdicts={"clip": "No-go: expected mIoU 14 %."},
    )


def test_mean_and_std_over_seeds_are_the_sample_statistics():
    values = [70.0, 72.5, 71.0]
    spread = over_seeds(values)
    assert spread.mean == pytest.approx(statistics.mean(values))
    assert spread.std == pytest.approx(statistics.stdev(values))
    assert str(spread) == "71.17 ± 1.26 (n=3)"


def test_one_seed_has_no_deviation_and_none_is_a_dash():
    assert str(over_seeds([70.0])) == "70.00 (n=1)"
    assert str(over_seeds([NAN, NAN])) == "—"


def test_methods_table_has_a_row_per_method_and_a_column_per_split():
    table = methods_table(results(), checkpoint="best", selection="val")
    assert table.display.to_dict("records") == [
        {
            "method": "supervised",
            "model": "small",
            "labeled_92 (92 images)": "62.00 ± 2.83 (n=2)",
            "labeled_183 (183 images)": "—",
        },
        {
            "method": "enhanced-sam_gem",
            "model": "small",
            "labeled_92 (92 images)": "70.00 ± 0.00 (n=2)",
            "labeled_183 (183 images)": "—",
        },
    ]
    assert table.numbers.loc[0, "labeled_92 mean"] == 62.0
    assert math.isnan(table.numbers.loc[0, "labeled_183 mean"])


def test_the_last_checkpoint_can_be_the_main_number():
    table = methods_table(results(), checkpoint="last", selection="val")
    assert table.display.iloc[1, 2] == "69.00 ± 0.00 (n=2)"


def test_the_literature_stands_in_a_table_of_its_own_by_split_and_source():
    table = published_table(read_published("pascal_voc"), results())
    paper = table.display[table.display["published by"] == "Zero-shot paper, VOC table"]
    enhanced = paper[paper["method"] == "Zero-shot paper (enhanced)"].iloc[0]
    assert enhanced["labeled_92 (92 images)"] == "65.30"
    assert table.display.columns[-1] == "published by"
    assert {c for c in table.numbers if c.startswith("published labeled")} == {
        "published labeled_92",
        "published labeled_183",
    }
    assert published_table(read_published(None), results()) is None


@pytest.mark.parametrize(
    ("dataset", "method", "split", "miou"),
    [
        ("pascal_voc", "UniMatch", "labeled_92", 75.2),
        ("pascal_voc", "LogicDiag", "labeled_732", 79.4),
        ("pascal_voc", "AllSpark", "labeled_1464", 82.12),
        ("pascal_voc", "BeyondPixels", "labeled_183", 78.6),
        ("pascal_voc", "CPS", "labeled_92", 64.07),
        ("pascal_voc", "ST++", "labeled_366", 74.6),
        ("pascal_voc", "SupOnly", "labeled_92", 45.1),
        ("coco", "UniMatch", "labeled_232", 31.86),
        ("coco", "Zero-shot paper (enhanced)", "labeled_1849", 51.20),
    ],
)
def test_published_numbers_are_those_of_the_papers(dataset, method, split, miou):
    table = read_published(dataset)
    chosen = table[(table["method"] == method) & (table["split"] == split)]
    assert miou in chosen["miou"].tolist()


def test_an_unknown_published_data_set_is_a_settings_error():
    with pytest.raises(SettingsError, match=r"no published number for 'pascal'\. Did you mean"):
        read_published("pascal")


def test_backbones_table_sets_models_side_by_side_per_split():
    table = backbones_table(results(models=("small", "large")), checkpoint="best", selection="val")
    assert table.display["model"].tolist() == ["small", "large", "small", "large"]
    assert list(table.display.columns[2:]) == ["supervised", "enhanced-sam_gem"]


def test_zero_shot_table_shows_a_dash_for_a_variant_without_scores():
    table = zero_shot_table(results(), calibration_split="labeled_92")
    assert table.display.iloc[0]["val mIoU"] == "12.50"
    assert table.display.iloc[0]["threshold"] == "0.5000"
    assert set(table.display.iloc[1][1:]) == {"—"}


def test_zero_shot_table_shows_what_was_expected_beside_what_was_measured():
    table = zero_shot_table(results(), calibration_split="labeled_92")
    assert {"expected low", "expected high"}.isdisjoint(table.display.columns)
    assert table.display.iloc[0]["expected mIoU"] == "14.0 (11.2-17.0)"
    assert table.numbers.iloc[0]["expected low"] == 11.25
    assert "clip: No-go: expected mIoU 14 %." in terminal(table)


def test_a_table_is_written_three_times_with_its_notes(tmp_path):
    table = methods_table(results(), checkpoint="best", selection="val")
    paths = write_table(table, tmp_path)
    assert [p.name for p in paths] == ["methods.csv", "methods.md", "methods.tex"]
    assert "62.00 ± 2.83 (n=2)" in (tmp_path / "methods.md").read_text()
    assert "mean $\\pm$ std" in (tmp_path / "methods.tex").read_text()
    back = pd.read_csv(tmp_path / "methods.csv")
    assert back.loc[1, "labeled_92 mean"] == 70.0


def test_latex_escapes_what_it_would_take_for_commands_and_aligns_numbers_right():
    text = latex(methods_table(results(), checkpoint="best", selection="val"))
    assert "{@{}llrr@{}}" in text
    assert r"enhanced-sam\_gem & small & 70.00 $\pm$ 0.00 (n=2) & -- \\" in text
    assert r"mIoU \%" in text
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
    without = text.replace(r"\_", "").replace(r"\%", "").replace(r"\&", "")
    assert "_" not in without
    assert all(line.startswith("%") for line in without.splitlines() if "%" in line)


def test_a_long_latex_table_may_break_across_pages(tmp_path):
    table = methods_table(results(), checkpoint="best", selection="val")
    many = pd.concat([table.display] * 25)
    text = latex(replace(table, display=many))
    assert text.count(r"\begin{longtable}") == text.count(r"\end{longtable}") == 1
    assert r"\endfirsthead" in text
    assert r"\begin{table}" not in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(tmp_path):
    table = methods_table(results(), checkpoint="best", selection="val")
    many = replace(table, display=pd.concat([table.display] * 25))
    (tmp_path / "all.tex").write_text(
        r"\documentclass{article}\usepackage[utf8]{inputenc}\usepackage{booktabs,longtable}"
        r"\begin{document}" + latex(table) + latex(many) + r"\end{document}"
    )
    command = ["pdflatex", "-halt-on-error", "-interaction=batchmode", "all.tex"]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0


def test_html_names_rows_and_columns_for_those_who_do_not_see_them():
    text = html(methods_table(results(), checkpoint="best", selection="val"))
    assert "<caption>Methods x splits, mIoU %</caption>" in text
    assert text.count("scope='col'") == 4
    assert text.count("scope='row'") == 2 * 2
    assert "<td class='n'>62.00 ± 2.83 (n=2)</td>" in text
    assert "tabindex='0'" in text


def test_html_escapes_what_a_stranger_wrote():
    table = methods_table(results(), checkpoint="best", selection="val")
    bad = table.display.replace("small", "<script>alert(1)</script>")
    text = html(replace(table, display=bad, title="a<b", notes=("c&d",)))
    assert "<script>" not in text
    assert "a&lt;b" in text
    assert "c&amp;d" in text


def test_text_and_markdown_show_the_same_cells():
    table = methods_table(results(), checkpoint="best", selection="val")
    for text in (terminal(table), markdown(table)):
        assert "62.00 ± 2.83 (n=2)" in text
        assert "enhanced-sam_gem" in text


@pytest.mark.parametrize(
    ("checkpoint", "selection", "note"),
    [
        ("best", "val", "chosen on val, as in the papers"),
        ("best", "holdout", "val chose nothing"),
        ("last", "val", "size, last checkpoint, mean"),
    ],
)
def test_the_methods_table_says_what_chose_the_checkpoint(checkpoint, selection, note):
    table = methods_table(results(), checkpoint=checkpoint, selection=selection)
    assert note in table.notes[0]
