"""A stage ends with the process that started it, however that one ends."""

import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells of a parent's end"
)

SLEEPER = [sys.executable, "-m", "tasks.lifeline", sys.executable, "-c"]
TELLS_ITS_ID = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"


def lives(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # Of an ended one that nobody waited for only its entry is left.
    with open(f"/proc/{process}/stat") as file:  # noqa: PTH123
        return file.read().rpartition(")")[2].split()[0] != "Z"


def ends(process, seconds=20.0):
    end = time.monotonic() + seconds
    while lives(process) and time.monotonic() < end:
        time.sleep(0.05)
    return not lives(process)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_program_ends_when_its_parent_is_killed(how):
    parent = (
        "import subprocess, sys; "
        f"child = subprocess.Popen({[*SLEEPER, TELLS_ITS_ID]!r}, stdout=sys.stdout); child.wait()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True
    ) as started:
        child = int(started.stdout.readline())
        assert lives(child)
        started.send_signal(how)
        started.wait()
        assert ends(child)


def test_a_program_whose_parent_lives_runs_to_its_own_end_with_its_own_code():
    command = [sys.executable, "-m", "tasks.lifeline", sys.executable, "-c", "raise SystemExit(7)"]
    assert subprocess.run(command, check=False).returncode == 7


def test_a_program_whose_parent_was_gone_before_it_asked_ends_at_once():
    """The parent ends between the start of the program and its request to the kernel."""
    program = (
        "import os, signal\n"
        "from tasks import lifeline\n"
        "parents = iter([4, 1])\n"
        "os.getppid = lambda: next(parents)\n"
        "lifeline.die_with_parent()\n"
        "raise SystemExit(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False)
    assert done.returncode == -signal.SIGTERM


def test_what_a_stage_starts_itself_is_not_ended_with_it():
    """The sender of tracking outlives its stage: the request is not inherited."""
    stage = (
        "import subprocess, sys\n"
        "from tasks import lifeline\n"
        "lifeline.die_with_parent()\n"
        f"child = subprocess.Popen([sys.executable, '-c', {TELLS_ITS_ID!r}], stdout=sys.stdout,"
        " start_new_session=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", stage], stdout=subprocess.PIPE, text=True) as run:
        child = int(run.stdout.readline())
        run.wait()
        try:
            assert not ends(child, seconds=0.5)
        finally:
            os.kill(child, signal.SIGKILL)
