"""The tracked command: one line for a user's error, and MLflow never stops a stage."""

from pathlib import Path

import pytest
import yaml

from zspl.settings import Settings

pytestmark = pytest.mark.orchestration

TRAIN = {"method": "supervised", "model": "small", "split": "labeled_4", "seed": "0"}


@pytest.fixture
def settings(tmp_path, monkeypatch):
    values = yaml.safe_load((Path(__file__).parent / "tiny_params.yaml").read_text())
    (tmp_path / "code").mkdir()
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Settings.read(Path("params.yaml"))


def runs(settings):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{settings.paths.code.resolve() / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(settings.benchmark)
    return client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trane"], "expected `python -m tasks <stage>"),
        (["train", "seed"], "expected key=value, got 'seed'"),
        (["propose", "shard=0"], "stage propose takes"),
    ],
)
def test_a_wrong_command_ends_in_one_line_and_code_2(settings, capsys, arguments, message):
    from tasks.__main__ import main

    assert main(arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("zspl: ")]
    assert len(lines) == 1
    assert message in lines[0]


def test_a_killed_training_continues_its_run_and_evaluate_adds_to_it(settings):
    from tasks.tracking import tracked

    def killed():
        with tracked("train", settings, TRAIN) as observer:
            observer.metrics({"loss": 2.0}, step=1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed()
    with tracked("train", settings, TRAIN) as observer:
        observer.metrics({"loss": 1.0}, step=2)
    with tracked("evaluate", settings, TRAIN) as observer:
        observer.metrics({"miou_last": 0.5})
        observer.metrics({"miou_last": 0.5})

    (run,) = runs(settings)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"loss": 1.0, "miou_last": 0.5}
    assert run.data.params["backbone"] == "compact"

    with tracked("train", settings, TRAIN):
        pass
    assert len(runs(settings)) == 2


def test_scores_made_anew_in_another_way_say_so_in_their_run(settings):
    from tasks.tracking import tracked

    with tracked("evaluate", settings, TRAIN) as observer:
        observer.params({"evaluate.flip": settings.evaluate.flip})
    again = Settings.read(Path("params.yaml"), {"evaluate.flip": True})
    with tracked("evaluate", again, TRAIN) as observer:
        observer.params({"evaluate.flip": again.evaluate.flip})

    (run,) = runs(settings)
    assert run.data.params["evaluate.flip"] == "False"
    assert run.data.tags["zspl.evaluate"] == '{"window":null,"scales":[1.0],"flip":true}'


def test_a_tracker_that_cannot_be_reached_costs_one_line(settings, monkeypatch, capsys):
    from tasks.tracking import tracked

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////no/such/folder/mlflow.db")
    with tracked("train", settings, TRAIN) as observer:
        observer.metrics({"loss": 1.0}, step=1)
    assert capsys.readouterr().err.count("zspl: MLflow does not record this stage") == 1


def test_of_processes_that_train_together_only_the_first_reports(settings, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    from tasks import tracking
    from zspl.observer import Silent

    with tracking.tracked("train", settings, TRAIN) as observer:
        assert isinstance(observer, Silent)
