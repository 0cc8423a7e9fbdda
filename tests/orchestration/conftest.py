"""A project of a few shell commands that has the shape of the real graph."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
import yaml

from tasks.tracking.courier import Courier
from zspl.settings import Settings

ROOT = Path(__file__).parents[2]

QUIET = {
    "DVC_NO_ANALYTICS": "1",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
}

PIPELINE = """
stages:
  prepare:
    cmd: mkdir -p out/data && cp source out/data/records
    deps: [source]
    outs: [out/data]
  train:
    matrix:
      method: ${prepare.splits}
    cmd: >-
      sh ${item.method}.py && mkdir -p out/cells &&
      grep -v ${item.method}=broken source > out/cells/${item.method}
    deps: [out/data/records, "${item.method}.py"]
    outs: ["out/cells/${item.method}"]
    meta: {resource: gpu}
  evaluate:
    matrix:
      method: ${prepare.splits}
    cmd: mkdir -p out/scores && wc -c < out/cells/${item.method} > out/scores/${item.method}
    deps: ["out/cells/${item.method}"]
    outs: ["out/scores/${item.method}"]
  tabulate:
    cmd: mkdir -p out/tables && ls out/scores > out/tables/methods.md
    deps: [out/scores]
    outs: [out/tables]
    meta: {partial_ok: true}
"""


def run(*command: str, cwd: Path) -> str:
    """Run a command with our `python` first on PATH and return what it printed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, **QUIET, "PATH": path}
    environment.pop("MLFLOW_TRACKING_URI", None)
    done = subprocess.run(
        command, cwd=cwd, env=environment, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def dvc(*arguments: str, cwd: Path) -> str:
    return run(sys.executable, "-m", "dvc", *arguments, cwd=cwd)


def pytest_collection_modifyitems(items):
    """What these libraries warn each other of is not ours to mend."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    for key, value in QUIET.items():
        monkeypatch.setenv(key, value)


@pytest.fixture(scope="session")
def run_in():
    return lambda folder, *command: run(*command, cwd=folder)


@pytest.fixture(scope="session")
def dvc_in():
    return lambda folder, *arguments: dvc(*arguments, cwd=folder)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """A database with MLflow's tables, which take seconds to make."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def database(tiny, empty_database):
    """The tiny benchmark's own database."""
    shutil.copy(empty_database, tiny.paths.code)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """The settings of the tiny benchmark, in an empty folder of its own."""
    (tmp_path / "code").mkdir()
    shutil.copy(Path(__file__).parent / "tiny_params.yaml", tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Settings.read(Path("params.yaml"))


@pytest.fixture
def by_hand(monkeypatch):
    """No sender starts by itself: the test calls `replay` when it wants the journals sent."""
    for name in ("call", "wait_for"):
        monkeypatch.setattr(Courier, name, Mock(return_value=None))


def shell_project_in(folder):
    """Write the pipeline of shell commands into a folder below a DVC project."""
    folder.mkdir(exist_ok=True)
    (folder / "dvc.yaml").write_text(PIPELINE)
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["prepare"]["splits"] = values["cells"]["splits"] = ["a", "b"]
    values["label"]["calibration_split"] = "a"
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    (folder / "source").write_text("hello\n")
    (folder / "a.py").write_text("")
    (folder / "b.py").write_text("")


@pytest.fixture(scope="session")
def shell_project():
    return shell_project_in


@pytest.fixture
def project(tmp_path):
    """A DVC project whose train cells `a` and `b` first run `a.py` and `b.py` in a shell."""
    run("git", "init", "--quiet", ".", cwd=tmp_path)
    dvc("init", "--quiet", cwd=tmp_path)
    shell_project_in(tmp_path)
    return tmp_path
