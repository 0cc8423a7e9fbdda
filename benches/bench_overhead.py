"""What DVC, MLflow and Prefect add to a stage, against `zspl run <stage>`. `make bench`.

One round runs every instance of a tiny benchmark directly, then as the flow, then the flow again
when all is current, which is what a run costs whatever it runs. CPU seconds are those of all
processes, the Prefect server's included; the wall is one instance at a time.
"""

import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

from flows.services.api import answers
from flows.services.stack import QUIET

ROOT = Path(__file__).parents[1]
ROUNDS = int(os.environ.get("ROUNDS", "3"))
MOST = 3.0

# What DVC and its libraries warn each other of is not ours to mend.
pytestmark = pytest.mark.filterwarnings("default")


@dataclass(frozen=True)
class Cost:
    cpu: float
    wall: float

    def __sub__(self, other):
        return Cost(self.cpu - other.cpu, self.wall - other.wall)

    def __truediv__(self, count):
        return Cost(self.cpu / count, self.wall / count)


@pytest.fixture
def clone(tmp_path):
    for name in ("zspl", "tasks", "flows"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    for name in (".dvcignore", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    values = yaml.safe_load((ROOT / "tests/orchestration/tiny_params.yaml").read_text())
    values["paths"]["code"] = "."
    values["embed_segments"] = {}
    del values["label"]["variants"]["voted"]
    values["cells"]["label_methods"] = []
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    (tmp_path / "source").mkdir()
    (tmp_path / "source/README").write_text("rendered")
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=tmp_path, check=True)
    return tmp_path


@pytest.fixture
def server(tmp_path_factory, monkeypatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for key, value in QUIET.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect")))
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{port}/api")
    monkeypatch.setenv("ZSPL_PARALLEL", "1")
    command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not answers(f"http://127.0.0.1:{port}/api/health"):
        assert process.poll() is None
        time.sleep(0.5)
    yield psutil.Process(process.pid)
    process.terminate()
    process.wait()


def measured(server, *commands, cwd):
    def cpu():
        ours, its = resource.getrusage(resource.RUSAGE_CHILDREN), server.cpu_times()
        return ours.ru_utime + ours.ru_stime + its.user + its.system

    before, start = cpu(), time.perf_counter()
    for command in commands:
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        done = subprocess.run(command, cwd=cwd, check=False, **output)
        assert done.returncode == 0, done.stdout
    return Cost(cpu() - before, time.perf_counter() - start)


def stages(folder):
    """Return the words of every stage instance, upstream first."""
    from dvc.repo import Repo

    from tasks import dag

    with Repo(str(folder)) as repo:
        commands = {stage.name: stage.cmd for stage in repo.index.stages}
    prefix = "python -m tasks "
    names = [node.name for node in dag.plan(folder) if node.name != dag.CHECK]
    return [commands[name].removeprefix(prefix).split() for name in names]


def forget(folder):
    for name in ("artifacts", ".dvc/cache", ".dvc/tmp"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "dvc.lock").unlink(missing_ok=True)


def bench_overhead_per_cell(clone, server):
    instances = stages(clone)
    direct = [[sys.executable, "-m", "zspl", "run", *words] for words in instances]
    flow = [sys.executable, "-m", "flows.full_benchmark", "."]
    rounds = []
    for _ in range(ROUNDS):
        forget(clone)
        alone = measured(server, *direct, cwd=clone)
        forget(clone)
        whole = measured(server, flow, cwd=clone)
        fixed = measured(server, flow, cwd=clone)
        rounds.append((alone / len(direct), (whole - fixed - alone) / len(direct), fixed))
    for title, costs in zip(("direct", "added", "flow"), zip(*rounds, strict=True), strict=True):
        cpu, wall = (statistics.median(getattr(c, of) for c in costs) for of in ("cpu", "wall"))
        print(f"{title:<7} {cpu:6.2f} s CPU {wall:7.2f} s wall")
    added = statistics.median(cost.cpu for _, cost, _ in rounds)
    print(f"per cell, {len(direct)} instances, {ROUNDS} rounds; flow: one run of what is current")
    assert added <= MOST
