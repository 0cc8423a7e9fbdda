"""zspl up, down, status: what goes wrong is one line, and nothing is lost or left behind.

Here nothing of Prefect or MLflow is started; test_up.py does that.
"""

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time

import psutil
import pytest

from flows.services import api, processes, stack
from flows.services.place import Place, Ports, gpus
from flows.services.processes import MARK, Record
from zspl.errors import SettingsError

pytestmark = pytest.mark.orchestration


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A project whose two ports are free."""
    (tmp_path / "prefect.yaml").write_text("name: zspl\n")
    for name in ("PREFECT", "MLFLOW"):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            monkeypatch.setenv(f"ZSPL_{name}_PORT", str(probe.getsockname()[1]))
    monkeypatch.setenv("ZSPL_GPUS", "0")
    return Place(tmp_path)


def call(place, command):
    """Return the exit code, what was printed, and the lines of `zspl: `."""
    done = subprocess.run(
        [sys.executable, "-m", "zspl", command],
        cwd=place.root,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr.splitlines()


def sleeper(place, *, address="http://127.0.0.1:1"):
    """A process as `up` starts them, with a child in a session of its own."""
    script = f"setsid sleep 300 & exec {sys.executable} -c 'import time; time.sleep(300)'"
    place.log("prefect").parent.mkdir(parents=True, exist_ok=True)
    return processes.start(
        ["sh", "-c", script],
        cwd=place.root,
        log=place.log("prefect"),
        environment={**os.environ, MARK: str(place.root)},
        address=address,
    )


def test_a_port_that_is_taken_is_one_line_and_nothing_is_started(place):
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(os.environ["ZSPL_MLFLOW_PORT"])))
        other.listen()
        code, said, lines = call(place, "up")

    assert code == 2
    assert said == ""
    (line,) = lines
    port = os.environ["ZSPL_MLFLOW_PORT"]
    assert line.startswith(f"zspl: 127.0.0.1:{port}: taken by ")
    assert f"(pid {os.getpid()})" in line
    assert line.endswith("end it or set ZSPL_MLFLOW_PORT to a free port")
    assert not list(place.folder.glob("*.json"))


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("ZSPL_PREFECT_PORT", "http", "ZSPL_PREFECT_PORT is 'http', expected a port from 1"),
        ("ZSPL_MLFLOW_PORT", "70000", "ZSPL_MLFLOW_PORT is '70000', expected a port from 1"),
        ("ZSPL_GPUS", "all", "ZSPL_GPUS is 'all', expected a number of GPUs"),
    ],
)
def test_a_wrong_variable_is_one_line(monkeypatch, variable, text, message):
    monkeypatch.setenv(variable, text)
    with pytest.raises(SettingsError, match=message):
        gpus() if variable == "ZSPL_GPUS" else Ports.from_environment()


def test_one_port_for_two_servers_is_refused(monkeypatch):
    monkeypatch.setenv("ZSPL_PREFECT_PORT", "5000")
    monkeypatch.delenv("ZSPL_MLFLOW_PORT", raising=False)
    with pytest.raises(SettingsError, match=r"are both 5000; choose two ports"):
        Ports.from_environment()


def test_outside_of_a_repository_the_command_says_where_to_run_it(tmp_path):
    with pytest.raises(SettingsError, match=r"no prefect\.yaml here or above"):
        Place.find(tmp_path)


def test_a_subfolder_belongs_to_its_project(place):
    (place.root / "benchmarks/animals").mkdir(parents=True)
    assert Place.find(place.root / "benchmarks/animals") == place


def test_a_second_up_at_the_same_time_is_refused(place):
    with place.alone():
        code, _, lines = call(place, "up")
    assert code == 2
    assert "another zspl up or down is at work here" in lines[0]


def test_a_prefect_toml_of_somebody_else_is_kept(place):
    place.client.write_text("[api]\nurl = 'http://elsewhere/api'\n")
    code, _, (line,) = call(place, "up")
    assert code == 2
    assert "prefect.toml: not written by zspl up; move it away" in line
    call(place, "down")
    assert "elsewhere" in place.client.read_text()


def test_a_damaged_pid_file_is_one_line(place):
    place.folder.mkdir()
    place.pid_file("worker").write_text("{}")
    code, _, (line,) = call(place, "status")
    assert code == 2
    assert "worker.json: is no pid file of zspl up" in line


def test_status_of_nothing_is_exit_code_1_and_says_what_to_type(place):
    code, said, _ = call(place, "status")
    assert code == 1
    assert said.count("not running") == 3
    assert "zspl up" in said


def test_a_pid_that_came_back_as_another_process_is_not_taken_for_the_service():
    born = psutil.Process().create_time()
    assert Record(pid=os.getpid(), born=born, address="").alive()
    assert not Record(pid=os.getpid(), born=born - 60, address="").alive()


def test_a_stale_pid_file_is_told_and_removed_by_down(place):
    place.folder.mkdir()
    Record(pid=os.getpid(), born=1.0, address="http://127.0.0.1:1").write(place.pid_file("mlflow"))

    _, said, _ = call(place, "status")
    assert "MLflow   has ended" in said
    code, said, _ = call(place, "down")
    assert (code, said) == (0, "nothing ran\n")
    assert not place.pid_file("mlflow").exists()


def test_down_also_ends_what_a_killed_service_had_started_in_another_session(place):
    record = sleeper(place)
    record.write(place.pid_file("prefect"))
    assert _soon(lambda: len(processes.marked(str(place.root))) == 2)
    psutil.Process(record.pid).kill()

    code, said, _ = call(place, "down")

    assert code == 0
    assert "ended 1 process" in said
    assert not processes.marked(str(place.root))


def test_a_service_that_ends_at_once_is_one_line_with_its_last_words(place):
    broken = stack.Service(
        name="mlflow",
        title="MLflow",
        command=["sh", "-c", "echo starting; echo database is of a newer version; exit 3"],
        address="http://127.0.0.1:1",
        port=1,
        up=lambda: False,
    )
    place.log("mlflow").parent.mkdir(parents=True)
    record = stack.start(broken, place, Ports.from_environment())
    with pytest.raises(
        SettingsError, match=r"^MLflow ended at once: database is of a newer version \(all of it"
    ):
        stack.wait(broken, place, record)
    assert json.loads(place.pid_file("mlflow").read_text())["pid"] == record.pid


def test_a_worker_of_other_servers_has_to_be_ended_first(place):
    record = sleeper(place, address="http://127.0.0.1:1 and http://127.0.0.1:2")
    record.write(place.pid_file("worker"))
    code, _, (line,) = call(place, "up")
    call(place, "down")
    assert code == 2
    assert "the worker uses http://127.0.0.1:1 and http://127.0.0.1:2" in line
    assert "zspl down ends it" in line


def test_what_services_find_in_their_environment(place, monkeypatch):
    monkeypatch.setenv("ZSPL_WEIGHTS", "weights")
    monkeypatch.setenv("PREFECT_API_URL", "https://elsewhere.example/api")
    monkeypatch.chdir(place.root)
    found = stack.environment(place, Ports(prefect=4200, mlflow=5000))
    assert found["PREFECT_API_URL"] == "http://127.0.0.1:4200/api"
    assert found["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] == "http://127.0.0.1:4200"
    assert found["ZSPL_WEIGHTS"] == str(place.root / "weights")
    assert found["ZSPL_HOME"] == str(place.root)


class Busy(http.server.BaseHTTPRequestHandler):
    """A server whose database is busy at first."""

    asked = 0

    def do_GET(self):
        Busy.asked += 1
        self.send_response(503 if Busy.asked == 1 else 200)
        self.end_headers()
        self.wfile.write(b'{"concurrency_limit": 3}')

    def log_message(self, *_):
        pass


def test_a_busy_server_is_asked_again_and_an_absent_one_is_one_line():
    with http.server.HTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert api.Api(f"http://127.0.0.1:{server.server_port}").gpu_limit() == 3
        server.shutdown()
    with pytest.raises(SettingsError, match=r"concurrency_limits/tag/gpu: no answer \("):
        api.Api("http://127.0.0.1:1", patience=0.0).gpu_limit()


def test_a_flow_run_is_lost_only_if_its_process_was_here_and_is_gone():
    here, gone = socket.gethostname(), 2**22 + 1
    assert api._lost(f"{gone}")
    assert api._lost(f"{here}:{gone}")
    assert not api._lost(f"elsewhere:{gone}")
    assert not api._lost("")


def _soon(true, seconds=20):
    limit = time.monotonic() + seconds
    while time.monotonic() < limit and not true():
        time.sleep(0.1)
    return true()
