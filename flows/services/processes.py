"""Start a program that goes on by itself, find it again, and end it with all it started.

Prefect's worker gives every flow run a session of its own, so neither process groups nor the tree
below a dead parent lead to what is left. All that `start` starts inherits a mark instead.
"""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from zspl.errors import DataError
from zspl.io import atomic

MARK = "ZSPL_STARTED_BY"
"""The environment variable that all started processes inherit; its value is the project."""

_SECONDS_TO_END = 40.0


@dataclass(frozen=True, kw_only=True)
class Record:
    """A service that was started: its process, and where it can be reached."""

    pid: int
    born: float
    """When the process started, in seconds since 1970; a pid alone may come back."""
    address: str

    def alive(self) -> bool:
        """Whether this very process still runs."""
        try:
            process = psutil.Process(self.pid)
            ended = process.status() == psutil.STATUS_ZOMBIE
            return not ended and float(process.create_time()) == self.born
        except psutil.NoSuchProcess:
            return False

    def write(self, path: Path) -> None:
        """Remember it in `path`."""
        atomic.write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> "Record | None":
        """Return what `path` remembers, or None if there is nothing.

        Raises:
            DataError: if the file is not one of `write`.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                pid=int(values["pid"]), born=float(values["born"]), address=str(values["address"])
            )
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}: is no pid file of zspl up; end what runs here by hand and delete it"
            ) from error


def start(
    command: Sequence[str], *, cwd: Path, log: Path, environment: Mapping[str, str], address: str
) -> Record:
    """Start `command` in the background with its output appended to `log`."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    born = psutil.Process(process.pid).create_time()
    return Record(pid=process.pid, born=born, address=address)


def marked(mark: str) -> list[psutil.Process]:
    """Return the processes that carry `mark`, this one excepted."""
    return [p for p in psutil.process_iter() if p.pid != os.getpid() and _mark(p) == mark]


def tree(record: Record) -> list[psutil.Process]:
    """Return the process of a live record and all below it."""
    process = psutil.Process(record.pid)
    return [process, *process.children(recursive=True)]


def end(running: Iterable[psutil.Process]) -> None:
    """Ask the processes to end, wait, and kill those that do not."""
    running = list(running)
    for process in running:
        _signal(process.terminate)
    _, alive = psutil.wait_procs(running, timeout=_SECONDS_TO_END)
    for process in alive:
        _signal(process.kill)
    psutil.wait_procs(alive, timeout=5.0)


def wait_until(ready: Callable[[], bool], *, seconds: float, alive: Callable[[], bool]) -> bool:
    """Wait until `ready`; False after `seconds`, or as soon as what is waited for has ended."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if ready():
            return True
        if not alive():
            return False
        time.sleep(0.3)
    return False


def listening(port: int) -> str:
    """Return who listens on `port`, as far as this user may see, such as "python (pid 12)"."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                pid = connection.pid
                return f"{psutil.Process(pid).name()} (pid {pid})" if pid else "another program"
    except psutil.Error:
        pass
    return "another program"


def last_line(log: Path) -> str:
    """Return the last line of a log that says something."""
    if not log.exists():
        return "no line"
    lines = log.read_text(encoding="utf-8", errors="replace")[-4000:].splitlines()
    said = [line.strip(" \t│╰╯─╭╮") for line in lines]
    return next((line for line in reversed(said) if line), "no line")[:300]


def _mark(process: psutil.Process) -> str | None:
    try:
        mark: str | None = process.environ().get(MARK)
    except (psutil.Error, OSError):
        return None
    return mark


def _signal(send: Callable[[], None]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        send()
