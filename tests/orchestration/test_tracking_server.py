"""A real tracking server that is killed, comes back or never answers: no training waits for it."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

import pytest

from tasks import tracking
from tasks.tracking import courier, journal, tracked
from tasks.tracking.courier import Address, Courier
from zspl.settings import Settings

pytestmark = pytest.mark.orchestration

TRAIN = {"method": "supervised", "model": "small", "split": "labeled_4", "seed": "0"}
SECRET = "open-sesame"


def until(true, *, seconds=600, what):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not after {seconds} s: {what}"
        time.sleep(0.1)


class Server:
    """An MLflow server on a free port that can be killed and started again."""

    def __init__(self, folder, database):
        self.folder, self.child = folder, None
        (folder / "server.db").write_bytes(database.read_bytes())
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def start(self):
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--workers",
            "1",
        ]
        store = ["--backend-store-uri", "sqlite:///server.db", "--artifacts-destination", "files"]
        with (self.folder / "server.log").open("ab") as log:
            self.child = subprocess.Popen(
                [*command, *store, "--port", str(self.port)],
                cwd=self.folder,
                start_new_session=True,
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdout=log,
                stderr=log,
            )
        until(self.answers, what=f"the server answers; see {self.folder}/server.log")

    def answers(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=2) as reply:
                return reply.status == 200
        except OSError:
            return False

    def kill(self):
        os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()


@pytest.fixture
def server(tiny, tmp_path, empty_database, monkeypatch):
    found = Server(tmp_path, empty_database)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@127.0.0.1:{found.port}")
    try:
        found.start()
        yield found
    finally:
        found.kill()


def curve(server):
    from mlflow import MlflowClient

    client = MlflowClient(f"http://127.0.0.1:{server.port}")
    experiment = client.get_experiment_by_name("tiny")
    if experiment is None:
        return []
    wanted = "tags.`zspl.cell` LIKE 'supervised%'"
    runs = client.search_runs([experiment.experiment_id], wanted)
    assert len(runs) <= 1
    return [
        (point.step, point.value)
        for run in runs
        for point in client.get_metric_history(run.info.run_id, "loss")
    ]


def _replay_from(seed, barrier):
    barrier.wait()
    tracking.replay(Settings.read(Path("params.yaml"), {"paths.out": f"out-{seed}"}))


def make_four_parents_at_once(server):
    """Let four machines, each with its own folder, begin the same benchmark."""
    from mlflow import MlflowClient

    for seed in range(4):
        settings = Settings.read(Path("params.yaml"), {"paths.out": f"out-{seed}"})
        other = {**TRAIN, "method": "enhanced", "labels": "merged", "seed": str(seed)}
        with (
            patch.object(Courier, "call"),
            patch.object(Courier, "wait_for", return_value=None),
            tracked("train", settings, other) as observer,
        ):
            observer.metrics({"miou": 1.0}, step=1)
    context = get_context("fork")
    barrier = context.Barrier(4)
    workers = [context.Process(target=_replay_from, args=(seed, barrier)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    client = MlflowClient(f"http://127.0.0.1:{server.port}")
    experiment = client.get_experiment_by_name("tiny").experiment_id
    (parent,) = client.search_runs([experiment], "tags.`zspl.benchmark` = 'tiny'")
    return {
        run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        for run in client.search_runs([experiment], "tags.`zspl.cell` != ''")
    }


@pytest.mark.slow
def test_a_server_down_for_a_minute_in_mid_training_gets_every_point_once_when_it_is_back(
    tiny, server, capsys, monkeypatch
):
    monkeypatch.setattr(courier, "LINGER", 1.0)
    slowest = 0.0

    def report(observer, steps):
        nonlocal slowest
        for step in steps:
            started = time.thread_time()
            observer.metrics({"loss": 1.0 / step}, step=step)
            slowest = max(slowest, time.thread_time() - started)

    with tracked("train", tiny, TRAIN) as observer:
        report(observer, range(1, 6))
        until(lambda: len(curve(server)) == 5, what="five points are sent")
        server.kill()
        report(observer, range(6, 11))
        until(lambda: Address.of(tiny).state().get("trouble"), what="the sender sees no server")
        report(observer, range(11, 16))
        time.sleep(60)
        server.start()
        until(lambda: len(curve(server)) == 15, what="the points of the outage are sent")
        report(observer, range(16, 21))
    tracking.replay(tiny)
    assert sorted(curve(server)) == [(step, 1.0 / step) for step in range(1, 21)]
    assert slowest < 0.1
    assert not journal.waiting(Address.of(tiny).folder)
    said = capsys.readouterr().err + "".join(
        path.read_text() for path in Address.of(tiny).folder.iterdir()
    )
    assert SECRET not in said
    assert make_four_parents_at_once(server) == {True}


@contextmanager
def silent_server():
    """Accept connections and never answer, as a server that hangs does."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        held = []

        def accept():
            while True:
                try:
                    held.append(listening.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
    for connection in held:
        connection.close()


def test_a_server_that_never_answers_costs_a_stage_five_seconds_at_its_end(
    tiny, monkeypatch, capsys
):
    monkeypatch.setattr(courier, "LINGER", 0.0)
    with silent_server() as port:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@127.0.0.1:{port}")
        with tracked("train", tiny, TRAIN) as observer:
            for step in range(1, 200):
                observer.metrics({"loss": 1.0 / step}, step=step)
            until(lambda: Address.of(tiny).state().get("calling"), what="the sender calls")
            time.sleep(3.5)
            ended = time.monotonic()
        assert time.monotonic() - ended < 6.0
        said = capsys.readouterr().err
        assert f"zspl: MLflow at http://127.0.0.1:{port} does not take this stage" in said
        assert SECRET not in said
        (written,) = journal.waiting(Address.of(tiny).folder)
        assert sum(line["kind"] == "metrics" for line in journal.read(written, 0)) == 199
