"""The result in words: what seeds allow to be said, and what they do not."""

from dataclasses import replace

import pandas as pd
import pytest

from zspl.evaluation.results import Results
from zspl.report.headline import headline


def results(scores, *, missing=()):
    """Return results of one split: the seeds' scores by row."""
    cells = [
        {"row": row, "model": "r101", "split": "labeled_92", "seed": seed, "best": s, "last": s}
        for row, seeds in scores.items()
        for seed, s in enumerate(seeds)
    ]
    return Results(
        cells=pd.DataFrame(cells),
        variants=pd.DataFrame(),
        labeled_images={"labeled_92": 92},
        missing=missing,
    )


@pytest.fixture
def said(make_world):
    settings = make_world(splits=("labeled_92",)).settings

    def say(scores, **more):
        words = headline(settings, results(scores, **more), ())
        return " ".join(words.found), " ".join(words.caution)

    return say


def test_the_best_mean_is_named_with_its_spread_and_the_gap_to_the_next(said):
    found, _ = said({"unimatch": [60.0, 62.0], "paper-sam_gem": [70.0, 72.0], "supervised": [50.0]})
    assert found == (
        "With 92 labeled images paper-sam_gem has the highest mIoU: 71.0 ± 1.4 % (2 seeds); next "
        "is unimatch with 61.0 ± 1.4 % (2 seeds), 10.0 points less; supervised has 50.0 % "
        "(one seed)."
    )


def test_of_several_models_the_best_supervised_one_is_named(make_world):
    settings = make_world(splits=("labeled_92",)).settings
    scores = {"paper-sam_gem": [70.0], "unimatch": [60.0], "supervised": [50.0]}
    small, large = results(scores), results({k: [v[0] + 1] for k, v in scores.items()})
    cells = pd.concat([small.cells, large.cells.assign(model="b4")], ignore_index=True)
    words = headline(settings, replace(small, cells=cells), ())
    assert "supervised, b4 has 51.0 % (one seed)." in words.found[0]
    two = cells[cells["row"] != "unimatch"].replace({"paper-sam_gem": "unimatch"})
    two.loc[two["row"] == "unimatch", "last"] = two.loc[two["row"] == "unimatch", "best"] = 40.0
    (found,) = headline(settings, replace(small, cells=two), ()).found
    assert found.count("supervised, b4") == found.count("supervised, r101") == 1


def test_seeds_that_overlap_settle_nothing(said):
    _, caution = said({"unimatch": [60.0, 70.0, 65.0, 64.0], "supervised": [50.0, 61, 50, 50]})
    assert (
        "Who is first at 92 labels is not settled (seeds of unimatch and supervised overlap)."
        in (caution)
    )


def test_two_seeds_apart_are_too_few_and_four_are_enough(said):
    _, few = said({"unimatch": [70.0, 71.0], "supervised": [50.0, 51.0]})
    assert "too few seeds: chance alone separates them so in 1 of 3 cases" in few
    _, enough = said({"unimatch": [70.0, 71, 72, 73], "supervised": [50.0, 51, 52, 53]})
    assert "not settled" not in enough


def test_one_seed_is_said_to_be_one_seed(said):
    _, caution = said({"unimatch": [70.0], "supervised": [50.0, 51.0]})
    assert "the first or the second has one seed" in caution


def test_a_checkpoint_chosen_on_val_and_missing_scores_are_limits(said):
    _, caution = said({"unimatch": [70.0]}, missing=("a", "b"))
    assert "chosen on val, so every number is optimistic" in caution
    assert "2 scores are missing" in caution
