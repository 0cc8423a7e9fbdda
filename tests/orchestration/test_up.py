"""The whole of it on this machine: `zspl up`, runs from a plain shell, chaos, `zspl down`."""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from flows.services import processes
from flows.services.place import Place
from flows.services.processes import Record

pytestmark = [pytest.mark.orchestration, pytest.mark.slow]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
MINUTES = 60.0


@pytest.fixture(scope="module")
def shots():
    """The helpers of shots.py, which is a script beside the tests."""
    pytest.importorskip("selenium")
    spec = importlib.util.spec_from_file_location("shots", HERE / "shots.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def clone(tmp_path_factory, run_in, dvc_in, shell_project):
    """A clone with a tiny benchmark at its root and one of shell commands in `shell`."""
    folder = tmp_path_factory.mktemp("clone")
    run_in(folder, "git", "init", "--quiet", ".")
    dvc_in(folder, "init", "--quiet")
    for name in ("zspl", "tasks", "flows"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in (".dvcignore", "dvc.yaml", "prefect.yaml"):
        shutil.copy(ROOT / name, folder)
    values = yaml.safe_load((HERE / "tiny_params.yaml").read_text())
    values["paths"]["code"] = "."
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    (folder / "source").mkdir()
    (folder / "source/README").write_text("rendered")
    (folder / ".gitignore").write_text("/artifacts/\n")
    shell_project(folder / "shell")
    return folder


@pytest.fixture(scope="module")
def ports():
    found = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            found.append(probe.getsockname()[1])
    return found


@pytest.fixture(scope="module")
def zspl(clone, ports):
    """Run `zspl COMMAND` in the clone and return what it printed."""
    names = ("ZSPL_PREFECT_PORT", "ZSPL_MLFLOW_PORT")
    known = {**_plain(), **dict(zip(names, map(str, ports), strict=True)), "ZSPL_GPUS": "1"}

    def call(command, *, code=0):
        words = [sys.executable, "-m", "zspl", command]
        done = subprocess.run(
            words, cwd=clone, env=known, text=True, capture_output=True, timeout=600, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return call


@pytest.fixture(scope="module")
def up(zspl):
    """What `zspl up` printed; everything is down afterwards."""
    yield zspl("up")
    zspl("down")


@pytest.fixture(scope="module")
def server(up, ports, shots):
    """Ask the Prefect server: `server(path, body)`."""
    return lambda path, body: shots.ask(f"http://127.0.0.1:{ports[0]}/api/{path}", body)


@pytest.fixture(scope="module")
def deploy(clone, server):
    """Run a deployment as from a shell where only .venv is active, and return the run's id."""

    def start(name, *parameters):
        command = [sys.executable, "-m", "prefect", "deployment", "run", name, *parameters]
        subprocess.run(command, cwd=clone, env=_plain(), check=True, stdout=subprocess.DEVNULL)
        newest = {"sort": "EXPECTED_START_TIME_DESC", "limit": 1}
        return server("flow_runs/filter", newest)[0]["id"]

    return start


@pytest.fixture(scope="module")
def state_of(server):
    def state(run):
        wanted = {"flow_runs": {"id": {"any_": [run]}}}
        return server("flow_runs/filter", wanted)[0]["state"]

    return state


@pytest.fixture(scope="module")
def wait(state_of):
    def final(run, minutes=15.0):
        assert _soon(lambda: state_of(run)["type"] in FINAL, minutes * MINUTES), state_of(run)
        return state_of(run)

    return final


@pytest.fixture(scope="module")
def finished(deploy, wait):
    """The id of a completed run of the tiny benchmark."""
    run = deploy("full-benchmark/demo")
    state = wait(run)
    assert state["type"] == "COMPLETED", state
    return run


@pytest.fixture
def shell(clone):
    """The benchmark of shell commands with nothing done; cell `a` waits for the file `go`."""
    folder = clone / "shell"
    for name in ("out", "dvc.lock", "go", "a-runs"):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    wait = f"echo run {time.time()} >> a-runs; while test ! -e go; do sleep 0.2; done\n"
    (folder / "a.py").write_text(wait)
    return folder


def test_up_again_changes_nothing_and_says_the_same(up, zspl, clone):
    before = _records(clone)
    again = zspl("up")
    assert _records(clone) == before
    assert again.splitlines()[:3] == up.splitlines()[:3]
    assert zspl("status") == again
    assert "GPUs     1 at a time" in again


def test_all_ports_are_on_this_machine_only(up, clone):
    listening = [
        connection.laddr.ip
        for process in processes.marked(str(clone))
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert set(listening) == {"127.0.0.1"}


def test_the_parameters_of_every_deployment_are_described(server, up):
    for deployment in server("deployments/filter", {}):
        assert deployment["description"]
        for name, field in deployment["parameter_openapi_schema"]["properties"].items():
            assert field.get("description"), (deployment["name"], name)


def test_a_run_shows_its_progress_its_tables_and_its_picture(finished, server):
    wanted = {"artifacts": {"flow_run_id": {"any_": [finished]}}}
    found = {one["key"]: one for one in server("artifacts/filter", wanted)}
    assert found["progress-tiny"]["data"] == 100.0
    assert (
        "13 done, 0 cached, 0 running, 0 failed, 0 left, of 13"
        in found["progress-tiny"]["description"]
    )
    assert "supervised" in found["tables-tiny"]["data"]
    assert "data:image/png;base64," in found["picture-tiny"]["data"]


def test_a_browser_sees_the_completed_run_and_its_cells(finished, ports, shots, tmp_path):
    if not shots.installed():
        pytest.skip("no chromium and chromedriver on PATH")
    with shots.browser() as driver:
        shots.prefect(driver, f"http://127.0.0.1:{ports[0]}", "tiny", tmp_path / "p.png")
        shots.mlflow(
            driver,
            f"http://127.0.0.1:{ports[1]}",
            "tiny",
            ("supervised", "enhanced"),
            tmp_path / "m.png",
        )
    for name in ("p.png", "m.png"):
        assert 5_000 < (tmp_path / name).stat().st_size < 200_000


def test_a_cancelled_run_ends_its_children_and_the_next_one_completes(
    deploy, wait, state_of, clone, shell
):
    run = deploy("full-benchmark/demo", "-p", "folder=shell")
    assert _soon((shell / "a-runs").exists), state_of(run)

    _prefect(clone, "flow-run", "cancel", run)

    assert wait(run, 3)["type"] == "CANCELLED"
    assert _soon(lambda: not _below(shell), 30), _below(shell)
    _completes(deploy, wait, shell)


def test_a_killed_worker_loses_nothing_and_up_starts_another(deploy, wait, zspl, clone, shell):
    run = deploy("full-benchmark/demo", "-p", "folder=shell")
    assert _soon((shell / "a-runs").exists)
    os.kill(Record.read(Place(clone).pid_file("worker")).pid, signal.SIGKILL)

    assert "Worker   has ended" in zspl("status", code=1)
    said = zspl("up")

    assert "Worker has ended since the last zspl up; starting it again" in said
    # The run goes on until it has a line for its worker, and then ends with its children.
    (shell / "go").write_text("")
    assert wait(run, 5)["type"] in FINAL
    assert _soon(lambda: not _below(shell), 30), _below(shell)
    _completes(deploy, wait, shell)


def test_a_killed_server_loses_nothing_and_the_next_run_completes(deploy, wait, zspl, clone, shell):
    run = deploy("full-benchmark/demo", "-p", "folder=shell")
    assert _soon((shell / "a-runs").exists)
    os.kill(Record.read(Place(clone).pid_file("prefect")).pid, signal.SIGKILL)
    time.sleep(5)

    said = zspl("up")

    assert "Prefect has ended since the last zspl up; starting it again" in said
    (shell / "go").write_text("")
    assert wait(run, 5)["type"] in FINAL
    _completes(deploy, wait, shell)
    assert len((shell / "a-runs").read_text().splitlines()) == 1


def test_down_in_mid_run_ends_everything_and_the_run_is_not_shown_as_running(
    deploy, state_of, wait, zspl, clone, shell
):
    run = deploy("full-benchmark/demo", "-p", "folder=shell")
    assert _soon((shell / "a-runs").exists)

    assert "ended" in zspl("down")

    assert not processes.marked(str(clone))
    assert not _below(shell)
    assert not (clone / "prefect.toml").exists()
    zspl("up")
    assert state_of(run)["type"] in FINAL
    _completes(deploy, wait, shell)


def _completes(deploy, wait, shell):
    """Assert that one more run gives what an undisturbed one gives."""
    (shell / "go").write_text("")
    assert wait(deploy("full-benchmark/demo", "-p", "folder=shell"), 5)["type"] == "COMPLETED"
    assert (shell / "out/tables/methods.md").read_text() == "a\nb\n"
    assert (shell / "out/cells/a").read_text() == (shell / "source").read_text()


def _records(clone):
    place = Place(clone)
    return {name: Record.read(place.pid_file(name)) for name in ("prefect", "mlflow", "worker")}


def _prefect(clone, *words):
    command = [sys.executable, "-m", "prefect", *words]
    subprocess.run(command, cwd=clone, env=_plain(), check=True, stdout=subprocess.DEVNULL)


def _plain():
    """Return an environment that knows no address of any server."""
    ours = ("PREFECT_", "MLFLOW_", "ZSPL_")
    return {key: value for key, value in os.environ.items() if not key.startswith(ours)}


def _below(folder):
    """Return the command lines of processes that work in the folder."""
    found = psutil.process_iter(["cwd", "cmdline"])
    return [p.info["cmdline"] for p in found if p.info["cwd"] == str(folder)]


def _soon(true, seconds=240.0):
    limit = time.monotonic() + seconds
    while time.monotonic() < limit and not true():
        time.sleep(0.5)
    return true()
