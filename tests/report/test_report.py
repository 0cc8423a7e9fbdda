"""The whole report, as the stage tabulate leaves it, of benchmarks of every shape."""

import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from zspl import stages
from zspl.observer import Silent
from zspl.report import looks
from zspl.report.reproduce import command, settings_text

VOC = ("labeled_92", "labeled_183", "labeled_366")


@pytest.fixture(autouse=True)
def unrendered(monkeypatch):
    """Lay figures out, but write a white pixel; test_page.py and test_charts.py render them."""

    def save(figure, path, kind, metadata):
        if kind == "png":
            Image.new("RGB", (1, 1), "white").save(path.with_suffix(".png"))
        else:
            path.with_suffix(".svg").write_text("<svg xmlns='x'/>")

    monkeypatch.setattr(looks, "_save", save)


class Page(HTMLParser):
    """What a page holds: tags that are open, pictures and the anchors that links lead to."""

    VOID = frozenset({"meta", "img", "br", "link"})

    def __init__(self, text):
        super().__init__()
        self.text, self.open, self.images, self.ids, self.links = text, [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found["href"]] if "href" in found else []
        self.images += [found] if tag == "img" else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def tabulate(world):
    stages.run("tabulate", world.settings, Silent())
    page = Page((world.tables / "index.html").read_text())
    assert page.open == []
    assert len(set(page.ids)) == len(page.ids)
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    return page


def test_every_part_of_a_full_benchmark_is_there_as_files_and_on_the_page(make_world):
    world = make_world(splits=VOC, published="pascal_voc", seeds=(0, 1))
    world.draw_scores()
    world.draw_costs()
    page = tabulate(world)
    names = {path.name for path in world.tables.iterdir()}
    tables = ("methods", "differences", "published", "classes", "zero_shot", "label_classes")
    tables += ("confusions", "cost", "checkpoints", "cells")
    figures = ("miou_vs_labels", "differences", "classes", "qualitative", "pseudo_labels")
    figures += ("reliability", "label_classes")
    expected = {f"{name}.{kind}" for name in tables for kind in ("csv", "md", "tex")}
    expected |= {f"{name}.{kind}" for name in figures for kind in ("png", "svg")}
    plots = {"curves.csv", "class_iou.csv", "miou.csv"}
    assert names == expected | plots | {"index.html", "table.txt"}
    assert {f"figure-{name}" for name in figures} <= set(page.ids)
    assert set(tables) <= set(page.ids)
    assert all(len(image["alt"]) > 20 for image in page.images)
    assert all(image["src"].startswith("data:image/") for image in page.images)


def test_our_number_and_the_published_one_stand_side_by_side_with_what_differs(make_world):
    world = make_world(published="pascal_voc", splits=("labeled_92",))
    world.draw_scores()
    tabulate(world)
    rows = (world.tables / "differences.md").read_text().splitlines()
    paper = next(row for row in rows if row.startswith("| paper-sam_gem"))
    assert "| 65.30 " in paper
    assert "network: MiT-B4, ours resnet101s" in paper
    supervised = next(row for row in rows if row.startswith("| supervised"))
    assert "SupOnly" in supervised
    assert "the same network" in supervised
    assert not any(row.startswith("| recommended") for row in rows)


def test_published_numbers_of_our_own_network_are_taken_before_others(make_world):
    world = make_world(
        published="pascal_voc", splits=("labeled_183",), models=("r101", "segformer_b4")
    )
    world.draw_scores()
    tabulate(world)
    text = (world.tables / "differences.csv").read_text()
    assert re.search(r"paper-sam_gem,r101,labeled_183,.*,77\.65", text)
    assert re.search(r"paper-sam_gem,segformer_b4,labeled_183,.*,78\.69", text)
    assert re.search(r"unimatch,segformer_b4,labeled_183,.*,76\.28", text)


def test_a_table_with_all_our_methods_and_another_network_is_not_preferred(make_world):
    world = make_world(
        published="pascal_voc",
        splits=("labeled_183",),
        models=("segformer_b4",),
        methods=["supervised", "unimatch"],
        label_methods=[],
        labels=[],
    )
    world.draw_scores()
    tabulate(world)
    text = (world.tables / "differences.csv").read_text()
    assert re.search(r"unimatch,segformer_b4,labeled_183,.*,76\.28", text)


def test_a_published_table_with_all_our_methods_is_the_one_they_are_compared_with(make_world):
    world = make_world(
        published="pascal_voc",
        splits=("labeled_732",),
        models=("segformer_b4",),
        methods=[],
        label_methods=["paper", "paper_unsmoothed"],
    )
    world.draw_scores()
    tabulate(world)
    text = (world.tables / "differences.csv").read_text()
    assert re.search(r"paper-sam_gem,segformer_b4,labeled_732,.*,80\.70*,", text)


def test_a_benchmark_without_any_score_shows_the_literature_and_claims_nothing(make_world):
    world = make_world(splits=VOC, published="pascal_voc")
    page = tabulate(world)
    assert "No training has a score yet." in page.text
    assert "highest mIoU" not in page.text
    assert {"published", "figure-miou_vs_labels", "figure-differences"} <= set(page.ids)
    assert {"figure-qualitative", "figure-classes", "confusions", "cost"}.isdisjoint(page.ids)


def test_a_method_that_failed_everywhere_is_a_dash_and_is_named(make_world):
    world = make_world()
    world.draw_scores(skip=("recommended",))
    page = tabulate(world)
    assert "recommended-sam_gem/r101/labeled_92/seed-0" in page.text
    best = re.search(r"With 92 labeled images <b>(\S+)</b> has the highest", page.text)
    assert best.group(1) == "paper-sam_gem"


def test_one_split_one_seed_and_no_pseudo_labels_make_a_page(make_world):
    world = make_world(splits=("labeled_92",), label_methods=[], labels=[])
    world.draw_scores()
    page = tabulate(world)
    assert {"zero_shot", "figure-reliability", "figure-pseudo_labels"}.isdisjoint(page.ids)
    assert {"methods", "figure-miou_vs_labels", "figure-classes"} <= set(page.ids)
    assert "is not settled: the first or the second has one seed" in page.text


@pytest.mark.parametrize("classes", [2, 21, 81])
def test_any_number_of_classes_has_a_figure_with_its_extremes_in_words(make_world, classes):
    world = make_world(splits=("labeled_92",), classes=classes)
    world.draw_scores()
    page = tabulate(world)
    alt = next(image["alt"] for image in page.images if f"IoU of {classes} classes" in image["alt"])
    assert re.search(r"recommended-sam_gem: from \w+ \d+ % to \w+ \d+ %", alt)


def test_more_methods_than_fit_side_by_side_keep_the_papers_comparison(make_world):
    methods = ["fixmatch", "cps", "stpp", "allspark", "supervised", "unimatch", "logicdiag"]
    world = make_world(splits=("labeled_92",), methods=methods)
    world.draw_scores()
    page = tabulate(world)
    alt = next(image["alt"] for image in page.images if "Predictions for val" in image["alt"])
    shown = "fixmatch, cps, supervised, unimatch, paper-sam_gem, recommended-sam_gem"
    assert f"photo, truth, {shown}." in alt
    assert "3 other methods stand in classes.csv" in page.text
    assert (world.tables / "classes.csv").read_text().splitlines()[0].count(" mean") == 9


def test_costs_that_are_known_are_added_up_and_the_others_counted(make_world):
    world = make_world(splits=("labeled_92",), seeds=(0, 1))
    world.draw_scores()
    world.draw_costs()
    next(world.layout.timings.glob("*method=unimatch*seed=0*")).unlink()
    tabulate(world)
    text = (world.tables / "cost.md").read_text()
    row = next(line for line in text.splitlines() if line.startswith("| all"))
    assert "7.0 min" in row
    assert "1 of 2" in next(line for line in text.splitlines() if line.startswith("| unimatch"))
    assert "1 trainings ran elsewhere" in text


def test_costs_of_other_settings_do_not_count(make_world):
    world = make_world(splits=("labeled_92",))
    world.draw_scores()
    world.draw_costs()
    path = next(world.layout.timings.glob("*method=unimatch*"))
    path.write_text(path.read_text().replace("crop ", "crop 9"))
    tabulate(world)
    assert "1 trainings ran elsewhere" in (world.tables / "cost.md").read_text()


def test_settings_keep_every_value_but_places_of_one_machine(make_world):
    text = settings_text(make_world().settings)
    assert "learning_rate: 0.001" in text
    assert "root: (elsewhere)/VOC2012" in text
    assert "paths" not in text


def test_the_command_names_the_benchmarks_folder_from_the_root(make_world, tmp_path, monkeypatch):
    settings = make_world().settings
    folder = tmp_path / "benchmarks" / "animals"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    moved = settings.paths.model_copy(update={"code": folder.parent.parent})
    assert command(settings.model_copy(update={"paths": moved})) == (
        "dvc repro benchmarks/animals/dvc.yaml"
    )
    monkeypatch.chdir(tmp_path)
    assert command(settings) == "dvc repro"
