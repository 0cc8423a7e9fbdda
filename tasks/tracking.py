"""MLflow, seen from a stage as an `Observer`. The only module that imports mlflow.

One experiment per benchmark holds one run per training cell, so that its compare view and its
charts need no preparation: `train` opens the cell's run and `evaluate` adds its scores to it.
The other stages go to a second experiment, `<benchmark>-stages`.
Tracking is a witness: when it fails, the stage goes on.
"""

import fcntl
import hashlib
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "1")
# A server that is down must cost seconds, not MLflow's default of minutes per stage.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.tracking import MlflowClient

from zspl.io.layout import Cell, Layout
from zspl.observer import Observer, Silent
from zspl.settings import Settings

# Its own news about creating tables would bury the stage's lines.
logging.getLogger("mlflow").setLevel(logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)

Facts = Mapping[str, str | int | float | bool]

_CELL_STAGES = ("train", "evaluate")
_BATCH = 500
_SECONDS_BETWEEN_BATCHES = 10.0


@contextmanager
def tracked(stage: str, settings: Settings, instance: Mapping[str, str]) -> Iterator[Observer]:
    """Open the MLflow run of one stage instance and close it as finished or failed.

    Of several processes that train together the first one reports.
    """
    first = int(os.environ.get("RANK") or 0) == 0
    observer = _attempt(lambda: _open(stage, settings, instance)) if first else None
    if observer is None:
        yield Silent()
        return
    try:
        yield observer
    except BaseException:
        observer.close("FAILED")
        raise
    if stage == "train":
        observer.tag("zspl.trained", "yes")
    observer.close("FINISHED")


class MlflowObserver:
    """Sends what a stage reports to one MLflow run, in batches."""

    def __init__(self, client: MlflowClient, run: Run) -> None:
        self._client: MlflowClient | None = client
        self._run_id = run.info.run_id
        self._known = set(run.data.params)
        self._said: set[tuple[str, float, int | None]] = set()
        self._waiting: list[Metric] = []
        self._sent = time.monotonic()

    def params(self, values: Facts) -> None:
        """Log facts that the run does not hold yet; MLflow refuses to change one."""
        fresh = {key: str(value) for key, value in values.items() if key not in self._known}
        self._known |= set(fresh)
        params = [Param(_name(key), value[:6000]) for key, value in fresh.items()]
        for start in range(0, len(params), 100):
            part = params[start : start + 100]
            self._send(lambda client, part=part: client.log_batch(self._run_id, params=part))

    def metrics(self, values: Mapping[str, float], *, step: int | None = None) -> None:
        """Queue numbers; they are sent a few hundred at a time."""
        now = int(time.time() * 1000)
        numbers = [(key, float(value), step) for key, value in values.items()]
        # A stage's summary repeats what it may have reported before.
        fresh = [number for number in numbers if number[2] is not None or number not in self._said]
        self._said |= {number for number in fresh if number[2] is None}
        self._waiting += [Metric(_name(key), value, now, at or 0) for key, value, at in fresh]
        full = len(self._waiting) >= _BATCH
        if full or time.monotonic() - self._sent > _SECONDS_BETWEEN_BATCHES:
            self._flush()

    def artifact(self, path: Path) -> None:
        """Copy a finished file to the run."""
        self._send(lambda client: client.log_artifact(self._run_id, str(path)))

    def tag(self, key: str, value: str) -> None:
        """Set one tag."""
        self._send(lambda client: client.set_tag(self._run_id, key, value))

    def close(self, status: str) -> None:
        """Send what waits and end the run with `status`."""
        self._flush()
        self._send(lambda client: client.set_terminated(self._run_id, status))

    def _flush(self) -> None:
        waiting, self._waiting, self._sent = self._waiting, [], time.monotonic()
        for start in range(0, len(waiting), _BATCH):
            part = waiting[start : start + _BATCH]
            self._send(lambda client, part=part: client.log_batch(self._run_id, metrics=part))

    def _send(self, call: Callable[..., Any]) -> None:
        """Call MLflow; after the first failure stay silent."""
        client = self._client
        if client is not None and _attempt(lambda: (call(client), True)) is None:
            self._client = None


def _attempt(call: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever the call returns
    """Return what `call` returns, or None after one line of warning if it failed."""
    try:
        return call()
    except Exception as error:  # a witness that falls ill must not stop the work
        reason = " ".join(str(error).split())[:300]
        sys.stderr.write(f"zspl: MLflow does not record this stage ({reason}); it goes on\n")
        return None


def _name(key: str) -> str:
    """Replace characters that MLflow does not allow in a key."""
    return re.sub(r"[^\w\-./ :]", "_", key)


@dataclass(frozen=True, kw_only=True)
class _Identity:
    """Which run an instance belongs to, and what that run is called."""

    experiment: str
    name: str
    cell: Cell | None
    tags: Mapping[str, str]


def _open(stage: str, settings: Settings, instance: Mapping[str, str]) -> MlflowObserver:
    root = settings.paths.code.resolve()
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root / 'mlflow.db'}"
    identity = _identity(stage, settings, instance)
    with _alone(uri):
        client = MlflowClient(tracking_uri=uri)
        experiment = _experiment(client, identity.experiment, uri=uri, root=root)
    run = None if identity.cell is None else _earlier(client, experiment, stage, identity)
    if run is None:
        run = client.create_run(experiment, run_name=identity.name, tags=dict(identity.tags))
    else:
        client.log_batch(run.info.run_id, tags=[RunTag(k, v) for k, v in identity.tags.items()])
        client.update_run(run.info.run_id, status="RUNNING")
    observer = MlflowObserver(client, run)
    observer.params(_facts(settings, identity.cell, instance))
    return observer


@contextmanager
def _alone(uri: str) -> Iterator[None]:
    """Let one process at a time create the sqlite file and its tables."""
    if not uri.startswith("sqlite:///"):
        yield
        return
    lock = Path(uri.removeprefix("sqlite:///") + ".lock")
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _experiment(client: MlflowClient, name: str, *, uri: str, root: Path) -> str:
    """Return the experiment's id; create it, with its files beside a local database."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    local = uri.startswith("sqlite:///")
    folder = Path(uri.removeprefix("sqlite:///")).parent if local else root
    location = (folder / "mlartifacts" / name).resolve().as_uri() if local else None
    return str(client.create_experiment(name, artifact_location=location))


def _earlier(client: MlflowClient, experiment: str, stage: str, identity: _Identity) -> Run | None:
    """Return the run to go on with, or None for a new one.

    Evaluate adds to the training's run; a training that was killed continues its own, unless the
    settings changed since.
    """
    wanted = f"tags.`zspl.cell` = '{identity.tags['zspl.cell']}'"
    order = ["attributes.start_time DESC"]
    runs = client.search_runs([experiment], wanted, order_by=order, max_results=1)
    if not runs or stage == "evaluate":
        return runs[0] if runs else None
    tags = runs[0].data.tags
    same = tags.get("zspl.made_under") == identity.tags["zspl.made_under"]
    if same and "zspl.trained" not in tags:
        return runs[0]
    if runs[0].info.status == "RUNNING":
        client.set_terminated(runs[0].info.run_id, "KILLED")
    return None


def _identity(stage: str, settings: Settings, instance: Mapping[str, str]) -> _Identity:
    tags = {
        "zspl.stage": stage,
        "dvc.stage": os.environ.get("DVC_STAGE", "none"),
        "mlflow.source.git.commit": _revision(settings.paths.code),
        **_hashes(settings, instance),
    }
    if stage not in _CELL_STAGES or "method" not in instance:
        name = " ".join([stage, *instance.values()])
        return _Identity(experiment=f"{settings.benchmark}-stages", name=name, cell=None, tags=tags)
    cell = Cell(
        method=instance["method"],
        labels=instance.get("labels"),
        model=instance.get("model", "?"),
        split=instance.get("split", "?"),
        seed=int(instance.get("seed", 0)),
    )
    tags["zspl.cell"] = cell.path.as_posix()
    if stage == "train":
        untouched: Any = {"cells": True, "tabulate": True, "evaluate": {"scales", "flip"}}
        recipe = settings.model_dump_json(exclude=untouched)
        tags["zspl.made_under"] = hashlib.sha256(recipe.encode()).hexdigest()
    if stage == "evaluate":
        # MLflow changes no param of a run: this tag is of its latest scores.
        tags["zspl.evaluate"] = settings.evaluate.model_dump_json()
    name = f"{cell.name} {cell.model} {cell.split} seed {cell.seed}"
    return _Identity(experiment=settings.benchmark, name=name, cell=cell, tags=tags)


def _facts(settings: Settings, cell: Cell | None, instance: Mapping[str, str]) -> Facts:
    """Return the params that the compare view shows."""
    facts: dict[str, str | int | float | bool] = {"dataset": settings.prepare.dataset.name}
    if cell is None:
        return {**facts, **instance}
    model = settings.train.models.get(cell.model)
    facts |= {
        "method": cell.method,
        "labels": cell.labels or "none",
        "split": cell.split,
        "seed": cell.seed,
        "model": cell.model,
        "labeled_images": _labeled_images(Layout(settings.paths.out).split(cell.split)),
    }
    if model is not None:
        facts |= {"backbone": model.backbone.name, "head": model.head.name}
    recipe = settings.train.model_dump(mode="json", exclude={"methods", "models"})
    method = settings.train.methods.get(cell.method, {})
    facts |= {f"train.{key}": str(value) for key, value in recipe.items()}
    return facts | {f"{cell.method}.{key}": str(value) for key, value in method.items()}


def _labeled_images(split: Path) -> int:
    files = [split / "labeled.txt", split / "holdout.txt"]
    return sum(len(file.read_text().split()) for file in files if file.exists())


def _revision(code: Path) -> str:
    """Return the commit that is checked out, marked when files differ from it."""
    command = ["git", "-C", str(code), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def _hashes(settings: Settings, instance: Mapping[str, str]) -> dict[str, str]:
    """Return DVC's content hashes of the data and the pseudo labels this instance reads."""
    lock = Path("dvc.lock")
    if not lock.exists():
        return {}
    stages = (yaml.safe_load(lock.read_text(encoding="utf-8")) or {}).get("stages", {})
    outputs = [out for stage in stages.values() for out in stage.get("outs", [])]
    md5 = {out["path"]: str(out.get("md5")) for out in outputs}
    layout = Layout(settings.paths.out)
    paths = {"dvc.data": layout.data, "dvc.labels": layout.labels(instance.get("labels", "-"))}
    return {key: md5[str(path)] for key, path in paths.items() if str(path) in md5}
