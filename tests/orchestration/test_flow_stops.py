"""The flow as a command: stopped, held up by locks, without its server."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

pytestmark = pytest.mark.orchestration

prefect = pytest.importorskip("prefect")


@pytest.fixture(scope="module")
def server():
    """The address of a server that lives as long as this module."""
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield PREFECT_API_URL.value()


def start(project, url):
    """Start the flow as a user does, with its lines in the file `lines`."""
    with (project / "lines").open("w") as lines:
        return subprocess.Popen(
            # What a shell started in the background ignores Ctrl-C, and so would its children.
            ["env", "--default-signal=INT", sys.executable, "-m", "flows.full_benchmark", "."],
            cwd=project,
            env={**os.environ, "PREFECT_API_URL": url},
            stdout=lines,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def soon(true, seconds=90):
    limit = time.monotonic() + seconds
    while time.monotonic() < limit and not true():
        time.sleep(0.2)
    return true()


def said(project):
    return (project / "lines").read_text()


def running_below(project):
    """Return the processes whose working folder is the project."""
    return [p for p in psutil.process_iter(["cwd"]) if p.info["cwd"] == str(project)]


@pytest.mark.slow
def test_ctrl_c_ends_all_children_in_one_line_and_the_next_run_completes(server, project):
    (project / "a.py").write_text("echo started > a-runs; test -e go || sleep 300\n")
    flow = start(project, server)
    assert soon((project / "a-runs").exists), said(project)

    os.killpg(flow.pid, signal.SIGINT)

    assert flow.wait(60) == 130
    assert soon(lambda: not running_below(project), 10)
    lines = said(project).splitlines()
    assert lines[-1] == "zspl: stopped; finished work stays, the same command continues"
    (project / "go").write_text("")
    again = start(project, server)
    assert again.wait(120) == 0, said(project)
    assert (project / "out/tables/methods.md").read_text() == "a\nb\n"


@pytest.mark.slow
def test_files_held_by_another_run_and_a_held_dvc_lock_are_waited_for(server, project, dvc_in):
    (project / "a.py").write_text("echo started > a-runs; while test ! -e go; do sleep 0.2; done\n")
    other = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "--quiet", "train@a"],
        cwd=project,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert soon((project / "a-runs").exists)

    flow = start(project, server)

    waits = "another run holds this stage's files; waiting for it"
    assert soon(lambda: waits in said(project)), said(project)
    (project / "go").write_text("")
    assert flow.wait(120) == 0, said(project)
    assert other.wait(60) == 0
    assert (project / "out/tables/methods.md").read_text() == "a\nb\n"


@pytest.mark.slow
def test_a_failed_cell_is_exit_code_1_and_the_last_line_names_it(server, project):
    (project / "a.py").write_text("exit 3\n")
    flow = start(project, server)
    assert flow.wait(120) == 1
    last = said(project).splitlines()[-1]
    assert last.startswith("zspl: 1 of 6 stage instances failed: train@a; not run because of them")


def test_a_server_that_is_named_and_absent_is_one_line(project):
    flow = start(project, "http://127.0.0.1:1/api")
    assert flow.wait(60) == 2
    assert said(project) == (
        "zspl: http://127.0.0.1:1/api: no Prefect server answers; zspl up starts it,"
        " zspl down forgets it\n"
    )
