"""Journal lines become MLflow's runs. The only module that imports mlflow."""

import fcntl
import json
import logging
import math
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "1")
# A server that is down must cost seconds, not MLflow's default of minutes per call.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.tracking import MlflowClient

from tasks.tracking.journal import Line

# Its own news about creating tables is nothing a user asked for.
logging.getLogger("mlflow").setLevel(logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)

METRICS_PER_CALL = 500
_PARAMS_PER_CALL = 100
_KEY, _PARAM = 250, 6000
_SQLITE = "sqlite:///"
_TABLES = "mlflow.loggedArtifacts"
_PARENT = "mlflow.parentRunId"
_SETTLES = 1.0


class Recorder:
    """One tracking server or database; every call may raise what MLflow raises."""

    def __init__(self, uri: str, *, home: Path) -> None:
        self._uri, self._home = uri, home
        self._made: set[str] = set()
        with self._alone():
            self._client = MlflowClient(tracking_uri=uri)

    def answers(self) -> bool:
        """Return whether the server is there at all."""
        try:
            self._client.search_experiments(max_results=1)
        except Exception:
            return False
        return True

    def open(self, header: Line) -> str:
        """Return the id of the run that a journal belongs to; make it if there is none."""
        with self._alone():
            if header["role"] == "stage":
                run = self._stage_run(header)
            elif header["role"] == "benchmark":
                run = self.parent(header["benchmark"])
            else:
                run = self._cell_run(header)
            tags = {**header["tags"], "zspl.journal": header["journal"]}
            self.tags(run, tags)
            self._client.update_run(run, status="RUNNING")
        return run

    def parent(self, benchmark: str) -> str:
        """Return the parent run of a benchmark, the oldest one if several were made at once."""
        experiment = self._experiment(benchmark)
        found = self._search(experiment, "zspl.benchmark", benchmark, newest=False)
        if not found:
            tags = {"zspl.benchmark": benchmark}
            made = self._client.create_run(experiment, run_name=benchmark, tags=tags)
            self._made.add(made.info.run_id)
            if not self._uri.startswith(_SQLITE):
                time.sleep(_SETTLES)  # another machine may have made one at the same time
            found = self._search(experiment, "zspl.benchmark", benchmark, newest=False)
        for twin in found[1:]:
            if twin.info.run_id in self._made:
                self._client.delete_run(twin.info.run_id)
        return str(found[0].info.run_id)

    def params(self, run: str, values: Mapping[str, str]) -> None:
        """Log facts that the run does not hold yet; MLflow refuses to change one."""
        known = self._client.get_run(run).data.params
        fresh = {_key(k): v[:_PARAM] for k, v in values.items() if _key(k) not in known}
        params = [Param(key, value) for key, value in fresh.items()]
        for start in range(0, len(params), _PARAMS_PER_CALL):
            self._client.log_batch(run, params=params[start : start + _PARAMS_PER_CALL])

    def held(self, run: str) -> "Held":
        """Return what a run that is gone on with already knows."""
        return Held(self._client, run)

    def metrics(self, run: str, lines: Sequence[Line], held: "Held") -> None:
        """Log the points of some lines, each once however often it comes."""
        points = [
            Metric(_key(key), value, line["time"], line["step"])
            for line in lines
            for key, value in line["values"].items()
        ]
        fresh = [point for point in points if held.lacks(point)]
        for start in range(0, len(fresh), METRICS_PER_CALL):
            part = fresh[start : start + METRICS_PER_CALL]
            self._client.log_batch(run, metrics=part)
            held.add(part)

    def tags(self, run: str, values: Mapping[str, str]) -> None:
        """Set tags."""
        tags = [RunTag(_key(key), value) for key, value in values.items()]
        self._client.log_batch(run, tags=tags)

    def inputs(self, run: str, values: Sequence[Mapping[str, Any]]) -> None:
        """Log data sets by name and digest; a path is the last part of one."""
        found = [
            DatasetInput(
                Dataset(
                    name=value["name"],
                    digest=value["digest"],
                    source_type="dvc",
                    source=json.dumps({"path": value["path"]}),
                    profile=json.dumps(value["images"]),
                ),
                [InputTag("mlflow.data.context", value["context"])],
            )
            for value in values
        ]
        self._client.log_inputs(run, datasets=found)

    def file(self, run: str, path: Path, *, folder: str) -> None:
        """Store a file or a folder among the run's artifacts."""
        if path.is_dir():
            below = f"{folder}/{path.name}" if folder else path.name
            self._client.log_artifacts(run, str(path), below)
        else:
            self._client.log_artifact(run, str(path), folder or None)

    def table(self, run: str, path: Path, *, folder: str) -> None:
        """Store a table and let MLflow's page show it as one."""
        self.file(run, path, folder=folder)
        entry = {"path": f"{folder}/{path.name}" if folder else path.name, "type": "table"}
        shown = json.loads(self._client.get_run(run).data.tags.get(_TABLES, "[]"))
        if entry not in shown:
            self._client.set_tag(run, _TABLES, json.dumps([*shown, entry]))

    def end(self, run: str, header: Line, line: Line) -> None:
        """End the run; a cell whose parent turned out to be a twin gets the other one."""
        if line.get("tags"):
            self.tags(run, line["tags"])
        if header["role"] == "cell":
            self.tags(run, {_PARENT: self.parent(header["benchmark"])})
        self._client.set_terminated(run, line["status"], line["time"])

    def _cell_run(self, header: Line) -> str:
        experiment, tags = self._experiment(header["benchmark"]), header["tags"]
        parent = self.parent(header["benchmark"])
        runs = self._search(experiment, "zspl.cell", tags["zspl.cell"], newest=True)
        run = _same(runs, header) or next(iter(runs if header["stage"] == "evaluate" else ()), None)
        if run is None:
            run = _unfinished(runs, tags)
            for other in runs:
                if other is not run and other.info.status == "RUNNING":
                    self._client.set_terminated(other.info.run_id, "KILLED")
        if run is None:
            return self._create(experiment, header, {_PARENT: parent})
        self.tags(run.info.run_id, {_PARENT: parent})
        return str(run.info.run_id)

    def _stage_run(self, header: Line) -> str:
        experiment = self._experiment(f"{header['benchmark']}-stages")
        same = _same(
            self._search(experiment, "zspl.journal", header["journal"], newest=True), header
        )
        return self._create(experiment, header, {}) if same is None else str(same.info.run_id)

    def _create(self, experiment: str, header: Line, tags: Mapping[str, str]) -> str:
        run = self._client.create_run(
            experiment,
            start_time=header["time"],
            run_name=header["name"],
            # With the journal's name a run that was made just before a crash is found again.
            tags={**header["tags"], **tags, "zspl.journal": header["journal"]},
        )
        return str(run.info.run_id)

    def _search(self, experiment: str, tag: str, value: str, *, newest: bool) -> list[Run]:
        direction = "DESC" if newest else "ASC"
        order = [f"attributes.start_time {direction}", f"attributes.run_id {direction}"]
        wanted = f"tags.`{tag}` = '{value}'"
        return list(self._client.search_runs([experiment], wanted, order_by=order, max_results=100))

    def _experiment(self, name: str) -> str:
        """Return the experiment's id; create it, with its files beside a local database."""
        found = self._client.get_experiment_by_name(name)
        if found is None:
            place = None
            if self._uri.startswith(_SQLITE):
                database = Path(self._uri.removeprefix(_SQLITE))
                place = (database.parent / "mlartifacts" / name).resolve().as_uri()
            try:
                return str(self._client.create_experiment(name, artifact_location=place))
            except Exception:
                # Names are unique: another machine may have been quicker.
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            raise RuntimeError(
                f"experiment {name} was deleted; restore or purge it with `mlflow experiments` "
                "or `mlflow gc`"
            )
        return str(found.experiment_id)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let one process at a time make tables, experiments and runs in a local database."""
        if not self._uri.startswith(_SQLITE):
            yield
            return
        lock = Path(self._uri.removeprefix(_SQLITE) + ".lock")
        with lock.open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


class Held:
    """The points that a run holds, asked for curve by curve."""

    def __init__(self, client: MlflowClient, run: str) -> None:
        self._client, self._run = client, run
        self._known = set(client.get_run(run).data.metrics)
        self._steps: dict[str, dict[int, float]] = {}

    def lacks(self, point: Metric) -> bool:
        """Return whether the run has no such point; a summary may change its value."""
        steps = self._curve(point.key)
        if point.step not in steps:
            return True
        before = steps[point.step]
        same = before == point.value or (math.isnan(before) and math.isnan(point.value))
        return point.step == 0 and not same

    def add(self, points: Sequence[Metric]) -> None:
        """Remember points that were sent."""
        for point in points:
            self._curve(point.key)[point.step] = point.value

    def _curve(self, key: str) -> dict[int, float]:
        if key not in self._steps:
            known = key in self._known
            history = self._client.get_metric_history(self._run, key) if known else []
            ordered = sorted(history, key=lambda point: point.timestamp)
            self._steps[key] = {point.step: point.value for point in ordered}
        return self._steps[key]


def _same(runs: Sequence[Run], header: Line) -> Run | None:
    """Return the run that this very journal made, if the sender was killed after that."""
    journal = header["journal"]
    return next((run for run in runs if run.data.tags.get("zspl.journal") == journal), None)


def _unfinished(runs: Sequence[Run], tags: Mapping[str, str]) -> Run | None:
    """Return the newest run if its training did not end and is the one that goes on."""
    if not runs:
        return None
    known = runs[0].data.tags
    made = known.get("zspl.made_under")
    same = made is None or made == tags.get("zspl.made_under")
    return runs[0] if same and "zspl.trained" not in known else None


def _key(key: str) -> str:
    """Replace characters that MLflow does not allow in a key."""
    return re.sub(r"[^\w\-./ :]", "_", key)[:_KEY]
