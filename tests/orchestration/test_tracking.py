"""What MLflow holds after a stage, in a real database: one run per cell below one parent."""

import multiprocessing
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from tasks import tracking
from tasks.tracking import journal, tracked
from tasks.tracking.courier import Address
from zspl.errors import ZsplError
from zspl.io.layout import Layout
from zspl.io.workdir import open_workdir
from zspl.settings import Settings

pytestmark = [pytest.mark.orchestration, pytest.mark.usefixtures("by_hand", "database")]

TRAIN = {"method": "supervised", "model": "small", "split": "labeled_4", "seed": "0"}
WORK = ("train", "supervised", "small", "labeled_4", "seed-0")


def client(settings):
    from mlflow import MlflowClient

    return MlflowClient(Address.of(settings).uri)


def runs(settings, name=None, *, cells=True):
    """Send what waits and return the cells' runs, or the parents, the oldest first."""
    tracking.replay(settings)
    experiment = client(settings).get_experiment_by_name(name or settings.benchmark)
    found = client(settings).search_runs(
        [experiment.experiment_id], order_by=["attributes.start_time ASC"]
    )
    return [run for run in found if ("zspl.benchmark" not in run.data.tags) == cells]


def train(settings, *, steps, made_under="this", killed=False):
    """Report the loss of some steps as the stage does, after it opened its folder."""
    with tracked("train", settings, TRAIN) as observer:
        open_workdir(Layout(settings.paths.out).work(*WORK), made_under=made_under)
        for step in steps:
            observer.metrics({"loss": 1.0 / step}, step=step)
        if killed:
            raise KeyboardInterrupt


def curve(settings, run, key="loss"):
    return [
        (point.step, point.value)
        for point in client(settings).get_metric_history(run.info.run_id, key)
    ]


def test_a_killed_training_continues_its_run_and_evaluate_adds_to_it(tiny):
    with pytest.raises(KeyboardInterrupt):
        train(tiny, steps=[1, 2, 3], killed=True)
    (run,) = runs(tiny)
    assert run.info.status == "KILLED"
    # It goes on from its checkpoint, before the last step it reported.
    train(tiny, steps=[2, 3, 4])
    with tracked("evaluate", tiny, TRAIN) as observer:
        observer.metrics({"miou_last": 0.5})
        observer.metrics({"miou_last": 0.5})

    (run,) = runs(tiny)
    assert run.info.status == "FINISHED"
    assert sorted(curve(tiny, run)) == [(step, 1.0 / step) for step in (1, 2, 3, 4)]
    assert curve(tiny, run, "miou_last") == [(0, 0.5)]
    assert run.data.params["backbone"] == "compact"

    train(tiny, steps=[1])
    assert len(runs(tiny)) == 2


def test_what_the_stage_starts_anew_gets_a_run_and_what_it_continues_does_not(tiny):
    with pytest.raises(KeyboardInterrupt):
        train(tiny, steps=[1], killed=True)
    other = {"label.variants.merged.labeler.rule": "max_iou"}
    train(Settings.read(Path("params.yaml"), other), steps=[2])
    assert len(runs(tiny)) == 1
    train(tiny, steps=[1], made_under="other settings")
    assert len(runs(tiny)) == 2


def test_a_stage_that_is_killed_at_once_leaves_all_it_reported(tiny):
    program = (
        "import sys, time; from pathlib import Path; from tasks.tracking import tracked\n"
        "from tasks.tracking.courier import Courier; from zspl.settings import Settings\n"
        "Courier.call = lambda self, *, now=False: None\n"
        f"with tracked('train', Settings.read(Path('params.yaml')), {TRAIN}) as observer:\n"
        "    for step in range(1, 100): observer.metrics({'loss': 1.0 / step}, step=step)\n"
        "    print('told', flush=True); time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "told\n"
        (written,) = journal.waiting(Address.of(tiny).folder)
        assert journal.is_written(written)
        child.send_signal(signal.SIGKILL)
        child.wait()
    (run,) = runs(tiny)
    assert run.info.status == "KILLED"
    assert len(curve(tiny, run)) == 99


def test_what_was_sent_before_the_sender_was_killed_is_not_sent_again(tiny, monkeypatch):
    from tasks.tracking.sender import Delivery

    train(tiny, steps=[1, 2, 3])
    with tracked("tabulate", tiny, {}) as observer:
        observer.metrics({"miou/a": 0.5})
    step = Delivery.step

    def killed(self):
        """Send everything, and forget all of it that the sender noted beside the journal."""
        self._sent.write = Mock()
        step(self)
        raise ConnectionError("killed before it was noted")

    with monkeypatch.context() as patch:
        patch.setattr(Delivery, "step", killed)
        with pytest.raises(ZsplError, match="killed before"):
            tracking.replay(tiny)
    (run,) = runs(tiny)
    assert curve(tiny, run) == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert len(runs(tiny, cells=False)) == 1


def test_scores_made_anew_in_another_way_say_so_in_their_run(tiny):
    with tracked("evaluate", tiny, TRAIN) as observer:
        observer.params({"evaluate.flip": tiny.evaluate.flip})
    again = Settings.read(Path("params.yaml"), {"evaluate.flip": True})
    with tracked("evaluate", again, TRAIN) as observer:
        observer.params({"evaluate.flip": again.evaluate.flip})
        observer.metrics({"miou_last": 0.7})

    (run,) = runs(tiny)
    assert run.data.params["evaluate.flip"] == "False"
    assert run.data.metrics["miou_last"] == 0.7
    assert run.data.tags["zspl.evaluate"] == '{"window":null,"scales":[1.0],"flip":true}'


def _replay_from(folder, barrier):
    changes = {"paths.out": folder, "paths.code": "code"}
    barrier.wait()
    tracking.replay(Settings.read(Path("params.yaml"), changes))


def test_four_processes_at_once_make_one_parent(tiny):
    import mlflow  # noqa: F401 - imported once, before the processes part

    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(4)
    for seed in range(4):
        settings = Settings.read(Path("params.yaml"), {"paths.out": f"out-{seed}"})
        with tracked("train", settings, {**TRAIN, "seed": str(seed)}) as observer:
            observer.metrics({"loss": float(seed)}, step=1)
    workers = [
        context.Process(target=_replay_from, args=(f"out-{seed}", barrier)) for seed in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]
    (parent,) = runs(tiny, cells=False)
    cells = runs(tiny)
    assert len(cells) == 4
    assert {cell.data.tags["mlflow.parentRunId"] for cell in cells} == {parent.info.run_id}


def test_a_csv_is_shown_as_a_table_and_audits_lie_with_the_parent(tiny):
    Path("methods.csv").write_text("method,labeled_4 mean\nsupervised,47.1500\nours,\n")
    with tracked("tabulate", tiny, {}) as observer:
        observer.artifact(Path("methods.csv"))
    with tracked("evaluate", tiny, {"variant": "merged"}) as observer:
        observer.artifact(Path("methods.csv"))

    (parent,) = runs(tiny, cells=False)
    content = client(tiny)
    table = content.download_artifacts(parent.info.run_id, "methods.json")
    assert Path(table).read_text() == (
        '{"columns": ["method", "labeled_4 mean"], "data": [["supervised", 47.15], ["ours", ""]]}'
    )
    assert '{"path": "methods.json", "type": "table"}' in parent.data.tags["mlflow.loggedArtifacts"]
    audits = content.list_artifacts(parent.info.run_id, "labels/merged")
    assert [file.path for file in audits] == [
        "labels/merged/methods.csv",
        "labels/merged/methods.json",
    ]
    (stage,) = runs(tiny, "tiny-stages")
    assert stage.info.run_name == "evaluate merged"


def test_what_the_server_refuses_is_left_out_and_the_rest_of_the_run_is_told(tiny):
    with tracked("train", tiny, TRAIN) as observer:
        observer.metrics({"loss": 1.0}, step=1)
        observer.artifact(Path("params.yaml"))
        observer.metrics({"loss": 0.5}, step=2)
    (written,) = journal.waiting(Address.of(tiny).folder)
    (kept,) = written.with_suffix(".files").rglob("params.yaml")
    kept.unlink()
    (run,) = runs(tiny)
    assert run.info.status == "FINISHED"
    assert curve(tiny, run) == [(1, 1.0), (2, 0.5)]


def test_a_cell_names_its_data_and_what_ran_it(tiny):
    split = Layout(tiny.paths.out).split("labeled_4")
    split.mkdir(parents=True)
    (split / "labeled.txt").write_text("a\nb\n")
    Path("code/requirements.lock").write_text("torch==2\n")
    train(tiny, steps=[1])
    (run,) = runs(tiny)
    (data,) = run.inputs.dataset_inputs
    assert data.dataset.name == "toyworld labeled_4"
    assert len(data.dataset.digest) == 32
    assert data.dataset.profile == '{"labeled": 2}'
    tags = run.data.tags
    assert tags["env.python"] == ".".join(map(str, sys.version_info[:3]))
    assert len(tags["env.requirements"]) == 64
    assert "threads" in tags["env.device"] or "NVIDIA" in tags["env.device"]


def test_a_database_that_cannot_be_opened_keeps_the_journals_and_says_so(tiny, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////no/such/folder/mlflow.db")
    train(tiny, steps=[1])
    with pytest.raises(ZsplError, match="1 of 1 journals wait for MLflow at sqlite"):
        tracking.replay(tiny)
    # They belong to that database, also while another one is named.
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(ZsplError, match="they belong to another server"):
        tracking.replay(tiny)


def test_of_processes_that_train_together_only_the_first_reports(tiny, monkeypatch):
    from zspl.observer import Silent

    monkeypatch.setenv("RANK", "1")
    with tracked("train", tiny, TRAIN) as observer:
        assert isinstance(observer, Silent)
