"""The real graph with the real stages, on a benchmark of seconds."""

import json
import re
import shutil
import socket
import sys
from pathlib import Path

import pytest
import yaml

from tasks import dag

pytestmark = pytest.mark.orchestration

ROOT = Path(__file__).parents[2]
CELL = "small-labeled_4-0"
USER = "ada-of-the-test"


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory, run_in, dvc_in):
    """A project with its own copy of the code, reproduced once."""
    folder = tmp_path_factory.mktemp("tiny")
    run_in(folder, "git", "init", "--quiet", ".")
    dvc_in(folder, "init", "--quiet")
    shutil.copytree(
        ROOT / "zspl", folder / "code/zspl", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / ".dvcignore", folder)
    shutil.copy(ROOT / "dvc.yaml", folder)
    shutil.copy(Path(__file__).parent / "tiny_params.yaml", folder / "params.yaml")
    (folder / "source").mkdir()
    (folder / "source/README").write_text("rendered")
    (folder / ".gitignore").write_text("/artifacts/\n")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("USER", "LOGNAME", "USERNAME"):
            patch.setenv(name, USER)
        dvc_in(folder, "repro")
    return folder


@pytest.fixture
def params(benchmark):
    """params.yaml as values to change; the file is as before afterwards."""
    path = benchmark / "params.yaml"
    before = path.read_text()
    yield yaml.safe_load(before), lambda values: path.write_text(yaml.safe_dump(values))
    path.write_text(before)


def stale(folder):
    """Return what has to run, but for `check`, which reads every change of params.yaml."""
    return {node.name for node in dag.plan(folder) if not node.up_to_date} - {dag.CHECK}


def test_a_second_repro_runs_nothing(benchmark, dvc_in):
    assert stale(benchmark) == set()
    assert "Running stage" not in dvc_in(benchmark, "repro")


def test_the_tables_show_both_methods(benchmark):
    table = (benchmark / "artifacts/tables/table.txt").read_text()
    assert "supervised" in table
    assert "enhanced-merged" in table


def test_a_labeler_setting_leaves_proposals_and_other_methods_alone(benchmark, params):
    values, write = params
    values["label"]["variants"]["merged"]["labeler"]["rule"] = "max_iou"
    write(values)
    assert stale(benchmark) == {
        "label@merged",
        f"train-labels@enhanced-merged-{CELL}",
        f"evaluate-labels@enhanced-merged-{CELL}",
        "evaluate-variants@merged",
        "tabulate",
    }


def test_a_setting_of_an_encoder_of_segments_leaves_segments_and_other_labels_alone(
    benchmark, params
):
    values, write = params
    values["embed_segments"]["corrclip"]["temperature"] = 0.5
    write(values)
    assert stale(benchmark) == {
        "embed-segments@corrclip-superpixels-0",
        "label@voted",
        "evaluate-variants@voted",
        "tabulate",
    }


def test_other_segments_make_the_features_that_saw_them_stale(benchmark, params):
    values, write = params
    values["propose"]["superpixels"]["segments"] = 30
    write(values)
    assert {"embed-segments@corrclip-superpixels-0", "label@voted"} <= stale(benchmark)


def test_mirror_images_score_cells_anew_and_windows_also_select_their_models_anew(
    benchmark, params
):
    values, write = params
    scored = {f"evaluate@supervised-{CELL}", f"evaluate-labels@enhanced-merged-{CELL}", "tabulate"}
    values["evaluate"] |= {"flip": True, "scales": [0.5, 1.0]}
    write(values)
    assert stale(benchmark) == scored
    values["evaluate"] |= {"window": 33}
    write(values)
    trained = {f"train@supervised-{CELL}", f"train-labels@enhanced-merged-{CELL}"}
    assert stale(benchmark) == scored | trained


def test_a_new_seed_runs_its_own_cells_only(benchmark, params):
    values, write = params
    values["cells"]["seeds"] = [0, 1]
    write(values)
    names = stale(benchmark)
    assert {name for name in names if name.endswith("-0")} == set()
    assert {name.partition("@")[0] for name in names} == {
        "train",
        "train-labels",
        "evaluate",
        "evaluate-labels",
        "tabulate",
    }


def test_touching_a_method_nobody_uses_runs_nothing(benchmark):
    with (benchmark / "code/zspl/methods/unimatch.py").open("a") as file:
        file.write("# changed\n")
    assert stale(benchmark) == set()


@pytest.fixture(scope="module")
def tracked_runs(benchmark, run_in):
    """All runs of all experiments, once every journal is sent."""
    from mlflow import MlflowClient

    run_in(benchmark, sys.executable, "-m", "tasks", "replay")
    client = MlflowClient(f"sqlite:///{benchmark / 'code/mlflow.db'}")
    names = [experiment.experiment_id for experiment in client.search_experiments()]
    return client.search_runs(names)


def test_one_mlflow_run_per_cell_holds_its_training_and_its_scores(benchmark, tracked_runs):
    by_method = {run.data.params["method"]: run for run in tracked_runs if is_cell(run)}
    assert sum(map(is_cell, tracked_runs)) == len(by_method) == 2
    scores = json.loads(
        (
            benchmark / "artifacts/scores/cells/supervised/small/labeled_4/seed-0/metrics.json"
        ).read_text()
    )
    metrics = by_method["supervised"].data.metrics
    assert metrics["miou_last"] == pytest.approx(scores["last"]["miou"])
    assert "loss" in metrics
    assert by_method["enhanced"].data.params["labeled_images"] == "4"
    data = [found.dataset.name for found in by_method["enhanced"].inputs.dataset_inputs]
    assert sorted(data) == ["toyworld labeled_4", "toyworld merged"]


def is_cell(run):
    return "zspl.cell" in run.data.tags


def test_the_parent_of_the_cells_holds_tables_figures_and_audits(benchmark, tracked_runs):
    (parent,) = [run for run in tracked_runs if "zspl.benchmark" in run.data.tags]
    parents = {run.data.tags["mlflow.parentRunId"] for run in tracked_runs if is_cell(run)}
    assert parents == {parent.info.run_id}
    assert parent.info.status == "FINISHED"
    assert "miou/supervised/small/labeled_4" in parent.data.metrics
    files = benchmark / "code/mlartifacts/tiny" / parent.info.run_id / "artifacts"
    tables = {path.name for path in (benchmark / "artifacts/tables").iterdir()}
    assert {"qualitative.png", "index.html"} <= tables <= {path.name for path in files.iterdir()}
    shown = {table["path"] for table in json.loads(parent.data.tags["mlflow.loggedArtifacts"])}
    assert {"methods.json", "zero_shot.json", "labels/merged/per_class.json"} <= shown


def test_nothing_that_is_logged_tells_whose_machine_it_was(benchmark, tracked_runs):
    private = [str(benchmark), str(Path.home()), str(ROOT), USER]
    host = re.compile(rf"(?<!\w){re.escape(socket.gethostname())}(?!\w)")
    told = {
        f"{run.info.run_name}: {key}": f"{key} {value}"
        for run in tracked_runs
        for key, value in {**run.data.tags, **run.data.params}.items()
    }
    told |= {f"{run.info.run_name}: user": run.info.user_id or "" for run in tracked_runs}
    for run in tracked_runs:
        for data in run.inputs.dataset_inputs:
            told[f"{run.info.run_name}: {data.dataset.name}"] = str(data.dataset.to_dictionary())
    files = [path for path in (benchmark / "code/mlartifacts").rglob("*") if path.is_file()]
    assert len(files) > 20
    for path in files:
        # In the bytes of a picture a short name can occur by chance.
        text = path.read_bytes().decode("latin-1")
        told[path.name] = text if path.suffix != ".png" else text.replace(socket.gethostname(), "")
    for where, text in told.items():
        assert not [name for name in private if name in text], where
        assert not host.search(text), where


def test_a_name_that_is_a_shell_command_stops_dvc_before_any_command_that_has_it(
    benchmark, params, dvc_in
):
    values, write = params
    trap = benchmark / "trapped"
    model = f"small; touch {trap}; true"
    values["train"]["models"][model] = values["train"]["models"]["small"]
    values["cells"]["models"] = [model]
    write(values)
    with pytest.raises(AssertionError, match=r"(?s)check.*failed|failed to reproduce 'check'"):
        dvc_in(benchmark, "repro")
    assert not trap.exists()
