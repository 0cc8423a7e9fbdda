"""Two clones, two workers, one remote: each instance runs once, and the tables are the same."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.orchestration, pytest.mark.slow]

INSTANCES = ["prepare", "train@a", "train@b", "evaluate@a", "evaluate@b", "tabulate"]

COUNTED = """
stages:
  prepare:
    cmd: echo prepare $PWD >> ${log} && mkdir -p out/data && cp source out/data/records
    deps: [source]
    outs: [out/data]
  train:
    matrix:
      method: ${prepare.splits}
    cmd: >-
      echo train@${item.method} $PWD >> ${log} && mkdir -p out/cells &&
      for i in $(seq 60); do test $(grep -c ^train ${log}) -ge 2 && break; sleep 1; done;
      grep -v ${item.method}=broken source > out/cells/${item.method}
    deps: [out/data/records, "${item.method}.py"]
    outs: ["out/cells/${item.method}"]
    meta: {resource: gpu}
  evaluate:
    matrix:
      method: ${prepare.splits}
    cmd: >-
      echo evaluate@${item.method} $PWD >> ${log} && mkdir -p out/scores
      && wc -c < out/cells/${item.method} > out/scores/${item.method}
    deps: ["out/cells/${item.method}"]
    metrics: ["out/scores/${item.method}": {cache: false}]
  tabulate:
    cmd: >-
      echo tabulate $PWD >> ${log} && mkdir -p out/tables
      && ls out/scores > out/tables/methods.md && cat out/scores/* >> out/tables/methods.md
    deps: [out/scores]
    outs: [out/tables]
    meta: {partial_ok: true}
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def end(process):
    """End a process with all that it started."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Cluster:
    """A Prefect server with clones of one project, a worker in each, and a remote between them."""

    def __init__(self, folder):
        self.folder = folder
        self.processes = []
        self.workers = []
        self.count = 0
        port = free_port()
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = {
            **os.environ,
            "PATH": path,
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "OMP_NUM_THREADS": "1",
        }
        self.server = ("prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port))

    def serve(self):
        self.start(self.folder, *self.server)
        self.wait_for(f"{self.environment['PREFECT_API_URL']}/health")

    def start(self, cwd, *command, **environment):
        self.count += 1
        with (self.folder / f"{command[0]}-{self.count}.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=cwd,
                env={**self.environment, **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def logs(self):
        """The logs of the two workers, newest last."""
        return [
            self.folder / f"prefect-{self.count - 1}.log",
            self.folder / f"prefect-{self.count}.log",
        ]

    def wait_for(self, url):
        until = time.monotonic() + 600
        while time.monotonic() < until:
            try:
                urllib.request.urlopen(url, timeout=5).close()
            except (urllib.error.URLError, OSError):
                time.sleep(0.3)
            else:
                return
        raise TimeoutError(url)

    def prefect(self, *arguments, cwd=None):
        done = subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", *arguments],
            cwd=cwd or self.folder,
            env={**self.environment, "ZSPL_HOME": str(cwd)},
            text=True,
            capture_output=True,
            check=False,
            timeout=900,
        )
        return done.returncode, done.stdout + done.stderr

    def work_in(self, clones):
        """Register the real deployments from the first clone and start a worker in each."""
        self.prefect("work-pool", "create", "zspl", "--type", "process")
        code, said = self.prefect("deploy", "--name", "zspl", cwd=clones[0])
        assert code == 0, said
        for worker in self.workers:
            end(worker)
            self.processes.remove(worker)
        worker = ("prefect", "worker", "start", "--pool", "zspl", "--limit", "1")
        self.workers = [self.start(place, *worker, ZSPL_HOME=str(place)) for place in clones]

    def run(self, clone, *words, **environment):
        """Run the benchmark of `clone` as a flow; return the exit code and its lines."""
        done = subprocess.run(
            [sys.executable, "-m", "flows.full_benchmark", ".", *words],
            cwd=clone,
            env={**self.environment, **environment},
            text=True,
            capture_output=True,
            check=False,
            timeout=1500,
        )
        return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    started = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        started.serve()
        yield started
    finally:
        for process in reversed(started.processes):
            end(process)


def project(folder, pipeline, params, run_in, dvc_in):
    """A committed project with the real deployments and flows, and a remote beside it."""
    folder.mkdir()
    run_in(folder, "git", "init", "--quiet", ".")
    dvc_in(folder, "init", "--quiet")
    dvc_in(folder, "remote", "add", "-d", "shared", "../remote")
    (folder / "dvc.yaml").write_text(pipeline)
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    shutil.copy(ROOT / "prefect.yaml", folder)
    (folder / "flows").symlink_to(ROOT / "flows")
    (folder / ".gitignore").write_text("/out/\n/artifacts/\n/mlflow.db*\n")
    return folder


def committed(folder, run_in, *clones):
    """Commit all there is and clone it."""
    run_in(folder, "git", "add", ".")
    who = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    run_in(folder, "git", *who, "commit", "--quiet", "-m", "all")
    for clone in clones:
        run_in(folder.parent, "git", "clone", "--quiet", str(folder), str(clone))


@pytest.fixture(scope="module")
def clones(cluster, run_in, dvc_in):
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["prepare"]["splits"] = values["cells"]["splits"] = ["a", "b"]
    values["label"]["calibration_split"] = "a"
    log = cluster.folder / "ran.txt"
    pipeline = COUNTED.replace("${log}", str(log))
    first = project(cluster.folder / "first", pipeline, values, run_in, dvc_in)
    for name, content in {"source": "hello\n", "a.py": "# a\n", "b.py": "# b\n"}.items():
        (first / name).write_text(content)
    second, alone = cluster.folder / "second", cluster.folder / "alone"
    committed(first, run_in, second, alone)
    cluster.work_in([first, second])
    return first, second, alone, log


def lock_of(clone):
    return yaml.safe_load((clone / "dvc.lock").read_text())["stages"]


def test_two_clones_run_each_instance_once_and_end_like_one(cluster, clones, dvc_in):
    first, second, alone, log = clones

    code, said = cluster.run(first, "spread")

    assert code == 0, said
    ran = [line.split()[0] for line in log.read_text().splitlines()]
    assert sorted(ran) == sorted(INSTANCES)
    places = {line.split()[1] for line in log.read_text().splitlines() if "train" in line}
    assert places == {str(first), str(second)}
    dvc_in(alone, "repro")
    assert (first / "out/tables/methods.md").read_text() == "a\nb\n6\n6\n"
    assert lock_of(first) == lock_of(alone)
    assert "up to date" in dvc_in(first, "status")


def test_what_one_clone_has_made_a_third_one_finds_in_the_remote(cluster, clones, run_in, dvc_in):
    first, _, _, log = clones
    before = log.read_text()
    third = cluster.folder / "third"
    run_in(cluster.folder, "git", "clone", "--quiet", str(first), str(third))

    said = dvc_in(third, "repro", "--pull")

    assert "Running stage" not in said
    assert log.read_text() == before
    assert (third / "out/scores/a").read_text() == (first / "out/scores/a").read_text()


def test_a_failed_cell_and_a_clone_with_other_code_stop_what_reads_them_only(cluster, clones):
    first, second, alone, _ = clones
    for clone in (first, second):
        (clone / "source").write_text("a=broken\n")

    code, said = cluster.run(first, "spread")

    assert code != 0
    assert "train@a" in said
    assert "evaluate@b" not in said.partition("stage instances failed:")[2]
    assert (first / "out/tables/methods.md").read_text().splitlines()[0] == "b"

    for clone in (first, second, alone):
        (clone / "source").write_text("mended\n")
    for clone in (first, second):
        (clone / "b.py").write_text("# other code\n")
    code, said = cluster.run(alone, "spread")
    assert code != 0
    assert "differs from the one that started the run" in said


def test_two_dask_workers_run_the_graph_on_one_file_system(cluster, clones):
    _, _, alone, log = clones
    (alone / "source").write_text("hello again\n")
    log.unlink()
    port = free_port()
    scheduler = ("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port))
    address = f"tcp://127.0.0.1:{port}"
    worker = ("distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny")
    cluster.start(alone, *scheduler, "--no-dashboard")
    code, said = cluster.run(alone, ZSPL_DASK=f"tcp://127.0.0.1:{free_port()}")
    assert code == 2
    assert "no Dask scheduler answers" in said.splitlines()[-1]
    for _ in range(2):
        cluster.start(alone, *worker, "--no-dashboard")

    code, said = cluster.run(alone, ZSPL_DASK=address)

    assert code == 0, said
    ran = [line.split()[0] for line in log.read_text().splitlines()]
    assert sorted(ran) == sorted(INSTANCES)
    assert (alone / "out/tables/methods.md").read_text() == "a\nb\n12\n12\n"


def test_the_real_stages_spread_over_two_clones_end_like_one(cluster, clones, run_in, dvc_in):
    folder = cluster.folder / "real"
    folder.mkdir()
    params = yaml.safe_load((Path(__file__).parent / "tiny_params.yaml").read_text())
    pipeline = (ROOT / "dvc.yaml").read_text()
    first = project(folder / "first", pipeline, params, run_in, dvc_in)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "zspl", first / "code/zspl", ignore=ignored)
    shutil.copy(ROOT / ".dvcignore", first)
    (first / "source").mkdir()
    (first / "source/README").write_text("rendered")
    second, alone = folder / "second", folder / "alone"
    committed(first, run_in, second, alone)
    cluster.work_in([first, second])

    code, said = cluster.run(first, "spread")

    assert code == 0, said
    ran = [re.findall(r"Running stage '([^']+)'", log.read_text()) for log in cluster.logs()]
    assert all(ran)
    dvc_in(alone, "repro")
    assert sorted(name for names in ran for name in names) == sorted(lock_of(alone))
    locks = lock_of(first), lock_of(alone)
    for lock in locks:  # its page tells what the trainings cost
        lock.pop("tabulate")
    assert locks[0] == locks[1]
    for name in ("table.txt", "cells.csv", "curves.csv"):
        tables = [clone / "artifacts/tables" / name for clone in (first, alone)]
        assert tables[0].read_text() == tables[1].read_text()
