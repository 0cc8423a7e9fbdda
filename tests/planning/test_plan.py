"""The arithmetic of a plan, on rates of one second, and where it may not guess."""

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest

from zspl.cli import main
from zspl.errors import DataError, SettingsError
from zspl.io.timings import Timing, method_text, network_text, recipe_text
from zspl.planning.finished import rates_of
from zspl.planning.rates import (
    ESTIMATE,
    MEASURED,
    SHIPPED,
    UNKNOWN,
    Rate,
    Rates,
    read_rates,
    write_rates,
)  # fmt: skip
from zspl.planning.rows import Planner
from zspl.planning.table import lines, to_csv, total
from zspl.settings import Settings

ROOT = Path(__file__).parents[2]
START = 7.0
STEP = {"supervised": 0.5, "unimatch": 2.0}
LOOK = 0.25


@pytest.fixture
def demo(monkeypatch):
    monkeypatch.chdir(ROOT)
    return Settings.read(
        Path("params.yaml"),
        {
            "cells.methods": ["supervised", "unimatch"],
            "cells.label_methods": [],
            "label.variants.sam_corrclip": {
                "proposals": "none",
                "features": "clip",
                "labeler": {"name": "pixel_argmax"},
            },
        },
    )


def rate(stage, what, seconds, **more):
    unit = "step" if stage == "train" else "image"
    return Rate(device="cpu", stage=stage, what=what, unit=unit, seconds=seconds, **more)


@pytest.fixture
def known(demo):
    network, recipe = network_text(demo, "small"), recipe_text(demo)
    steps = [
        rate("train", f"{method_text(demo, m)} | {network} | {recipe}", s, size=4.0)
        for m, s in STEP.items()
    ]
    return [rate("start", "", START), rate("evaluate", network, LOOK, size=9216.0), *steps]


def rows(settings, known, device="cpu"):
    return list(Planner(settings, Rates(known, device=device)).rows())


def test_a_training_takes_its_steps_its_selections_and_the_start_of_a_process(demo, known):
    found = [row for row in rows(demo, known) if row.stage == "train"]
    assert len(found) == 2 * 2
    for row in found:
        # 500 steps, and two looks (every 250 steps) at 150 val images.
        expected = START + 500 * STEP[row.instance["method"]] + 2 * 150 * LOOK
        assert row.seconds == pytest.approx(expected)
        assert (row.steps, row.kind) == (500, MEASURED)


def test_a_selection_of_the_last_model_looks_at_nothing_and_keeps_one_checkpoint(demo, known):
    train = demo.train.model_copy(update={"selection": "last"})
    last = next(
        r for r in rows(demo.model_copy(update={"train": train}), known) if r.stage == "train"
    )
    best = next(r for r in rows(demo, known) if r.stage == "train")
    assert last.seconds == pytest.approx(START + 500 * STEP["supervised"])
    assert best.bytes == 2 * last.bytes > 1e6


def test_both_checkpoints_are_scored_at_every_size_and_mirrored(demo, known):
    how = demo.evaluate.model_copy(update={"scales": (0.5, 1.0), "flip": True})
    found = next(
        r
        for r in rows(demo.model_copy(update={"evaluate": how}), known)
        if r.stage == "evaluate" and "method" in r.instance
    )
    assert found.seconds == pytest.approx(START + 2 * 150 * 2 * (0.25 + 1.0) * LOOK)


def test_epochs_count_the_list_that_a_method_reads(demo, known):
    train = demo.train.model_copy(update={"epochs": 3, "iterations": None})
    steps = {
        (r.instance["method"], r.instance["split"]): r.steps
        for r in rows(demo.model_copy(update={"train": train}), known)
        if r.stage == "train"
    }
    assert steps["supervised", "labeled_20"] == 3 * 3  # ceil(20 / 8)
    assert steps["unimatch", "labeled_20"] == 3 * 38  # ceil(300 / 8)


def test_shards_share_the_images_and_every_instance_of_dvc_is_there(demo, known):
    found = rows(demo, known)
    shards = [r.images for r in found if r.instance.get("proposer") == "sam"]
    assert shards == [235, 235]
    assert len(found) == 1 + 2 * (1 + 2 + 2) + 6 + 4 + 4 + 6 + 1


def test_a_step_of_another_crop_is_an_estimate_by_operations_and_says_from_what(demo, known):
    train = demo.train.model_copy(update={"crop_size": 128})
    changed = demo.model_copy(update={"train": train})
    found = next(r for r in rows(changed, known) if r.instance.get("method") == "unimatch")
    assert found.kind == ESTIMATE
    assert found.basis.startswith("by GFLOP from unimatch")
    twice = demo.model_copy(
        update={"train": train.model_copy(update={"batch_labeled": 16, "batch_unlabeled": 16})}
    )
    more = next(r for r in rows(twice, known) if r.instance.get("method") == "unimatch")
    fixed = START + 2 * 150 * LOOK
    assert more.seconds - fixed == pytest.approx(2 * (found.seconds - fixed))


def test_a_method_never_timed_on_a_network_is_told_by_another_that_was(demo):
    recipe = recipe_text(demo)
    known = Rates(
        [
            rate("train", f"unimatch | small | {recipe}", 2.0, size=1.0),
            rate("train", f"cps | small | {recipe}", 3.0, size=1.0),
            rate("train", f"unimatch | large | {recipe}", 100.0, size=50.0),
        ],
        device="cpu",
    )
    quote = known.of_training("cps", "large", recipe, size=50.0)
    assert quote.seconds == pytest.approx(100.0 * 3 / 2)
    assert quote.kind == ESTIMATE


def test_nothing_is_carried_from_one_device_to_another(demo, known):
    found = rows(demo, known, device="NVIDIA X")
    assert {row.kind for row in found} == {UNKNOWN}
    assert {row.seconds for row in found} == {None}


def test_sums_of_unknown_parts_say_that_they_are_at_least(demo, known):
    found = rows(demo, known)
    sums = total(found)
    assert sums.at_least == {"seconds", "bytes"}
    assert sums.seconds == pytest.approx(sum(r.seconds for r in found if r.seconds is not None))
    text = lines(found, device="cpu")
    assert text[-6 - 2].split()[:2] != []
    assert any(line.startswith("all") and "> " in line for line in text)
    assert len({len(line) for line in text[:1]}) == 1


def test_every_row_is_a_line_of_csv_with_hours_and_bytes(demo, known):
    found = rows(demo, known)
    table = list(csv.DictReader(io.StringIO(to_csv(found, device="cpu"))))
    assert len(table) == len(found)
    cell = next(r for r in table if r["stage"] == "train" and r["method"] == "unimatch")
    assert (cell["model"], cell["split"], cell["seed"], cell["rate"]) == (
        "small", "labeled_20", "0", "measured",
    )  # fmt: skip
    assert float(cell["hours"]) == pytest.approx((START + 500 * 2 + 75) / 3600, abs=1e-5)
    assert {r["hours"] for r in table if r["rate"] == UNKNOWN} == {""}


def test_rates_are_read_as_written_and_a_damaged_table_is_one_line(tmp_path):
    path = tmp_path / "rates.csv"
    some = [rate("propose", "sam model=tiny, a", 0.5, bytes=3.0), rate("start", "", 7.0)]
    write_rates(path, some)
    assert read_rates(path) == some
    assert read_rates(tmp_path / "none.csv") == []
    path.write_text(path.read_text().replace("0.5", "-1"))
    with pytest.raises(DataError, match="is no table of rates"):
        read_rates(path)


def test_the_shipped_rates_name_what_measured_them_and_hold_no_gpu():
    shipped = read_rates(SHIPPED)
    assert {r.device for r in shipped} == {"cpu"}
    assert {"start", "prepare", "propose", "embed", "label", "train", "evaluate"} <= {
        r.stage for r in shipped
    }
    for r in shipped:
        assert r.seconds > 0
        assert r.basis.startswith(("EPYC", "estimate")), r


def test_what_has_finished_here_is_a_rate_and_an_interrupted_run_is_none(demo, tmp_path):
    import json
    from dataclasses import asdict

    folder = tmp_path / "timings"
    folder.mkdir()
    took = Timing(
        stage="propose", instance={"proposer": "sam", "shard": "0"}, what="sam x", device="cpu",
        seconds=99.0, cpu_seconds=10.0, units=20, peak_memory_mib=200,
    )  # fmt: skip
    for n, cost in enumerate((10.0, 12.0, 90.0, None)):
        (folder / f"{n}.json").write_text(json.dumps(asdict(replace(took, cpu_seconds=cost))))
    (folder / "damaged.json").write_text("{")
    (folder / "propose,proposer=sam,shard=9.unfinished").write_text("")
    paths = demo.paths.model_copy(update={"out": tmp_path})
    (found,) = rates_of(demo.model_copy(update={"paths": paths}))
    assert (found.stage, found.what, found.seconds) == ("propose", "sam x", 12.0 / 20)


def test_a_benchmark_is_planned_without_its_data(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("ZSPL_DEVICE", "cpu")
    changes = ["--set", "cells.methods=[supervised]", "--set", "cells.label_methods=[]"]
    assert main(["plan", "pascal", "--csv", str(tmp_path / "plan.csv"), *changes]) == 0
    printed = capsys.readouterr().out
    assert "no rate was measured on a GPU" in printed
    assert "~" in printed
    with (tmp_path / "plan.csv").open() as file:
        steps = [int(r["steps"]) for r in csv.DictReader(file) if r["stage"] == "train"]
    assert steps == [80 * n for n in (12, 23, 46, 92, 183)]


def test_an_unknown_benchmark_offers_the_nearest(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert main(["plan", "pascall"]) == 2
    assert "Did you mean 'pascal'?" in capsys.readouterr().err


def test_a_split_of_the_users_own_has_no_size_without_the_data():
    from zspl.datasets import coco

    with pytest.raises(SettingsError, match=r"mount paths\.source"):
        coco.build(coco.Settings()).sizes(Path("/nowhere"), "mine")
