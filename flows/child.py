"""One `dvc repro` of one stage instance as a child process that never outlives its flow."""

import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

STOPPED = "the flow was stopped"
"""Why an instance did not run after `stop`."""

_BUSY = "is busy, it is being blocked by"
_ADVICE = ("To track the changes", "git add ", "To enable auto", "dvc config ", "Use `dvc push`")
_SECONDS_BETWEEN_BARS = 15.0
_SECONDS_TO_END = 20.0


class StageFailedError(RuntimeError):
    """A stage instance ended with an error; the message holds its last lines."""


@dataclass(frozen=True)
class Outcome:
    """What DVC did: `ran` is False when outputs were current or came from its cache."""

    ran: bool
    message: str


class Children:
    """The child processes of one flow run, so that all of them can be ended."""

    def __init__(self, parallel: int) -> None:
        self._parallel = parallel
        self._cores = max(1, (os.cpu_count() or 1) // parallel)
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def __reduce__(self) -> tuple[type["Children"], tuple[int]]:
        """Travel to a Dask worker as an empty set; what runs there ends with that worker."""
        return Children, (self._parallel,)

    def reproduce(self, name: str, folder: Path, log: Callable[[str], None]) -> Outcome:
        """Bring one stage instance up to date and hand its lines to `log`.

        Raises:
            StageFailedError: if the command fails.
        """
        dvc = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", name]
        while True:
            code, lines = self.run(dvc, name, folder, log)
            if code == 0:
                return _outcome(lines)
            if not any(_BUSY in line for line in lines):
                said = [line for line in lines if line.startswith("zspl: ")] or list(lines)[-5:]
                # Processes that train together say the same.
                raise StageFailedError(f"{name}: " + " | ".join(dict.fromkeys(said)))
            log("another run holds this stage's files; waiting for it")
            self._stopped.wait(10.0)

    def stop(self) -> None:
        """End every child: first politely, then not, and start no other."""
        self._stopped.set()
        with self._lock:
            running = list(self._running)
        for child in running:
            child.terminate()
        for child in running:
            _end(child)

    def run(
        self, command: Sequence[str], name: str, folder: Path, log: Callable[[str], None]
    ) -> tuple[int, deque[str]]:
        """Run any command like that; return its exit code and its last lines.

        Raises:
            StageFailedError: if `stop` was called before.
        """
        with self._lock:
            if self._stopped.is_set():
                raise StageFailedError(f"{name}: {STOPPED}")
            # The child stays in the flow's process group, so that a signal to the group reaches it.
            child = subprocess.Popen(
                [sys.executable, "-m", "tasks.lifeline", *command],
                cwd=folder,
                env=self._environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
            self._running.add(child)
        lines: deque[str] = deque(maxlen=200)
        try:
            for line in _worth_logging(child.stdout):
                lines.append(line)
                log(line)
            return child.wait(), lines
        finally:
            _end(child)
            with self._lock:
                self._running.discard(child)

    def _environment(self) -> dict[str, str]:
        """Return this environment with our `python` first and the cores shared fairly."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        quiet = {"DVC_NO_ANALYTICS": "1", "DO_NOT_TRACK": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
        threads = {"OMP_NUM_THREADS": str(self._cores), **quiet}
        return {**threads, **os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"}


def _outcome(lines: deque[str]) -> Outcome:
    """Read from DVC's own lines whether it ran the command."""
    if any(line.startswith("Running stage") for line in lines):
        return Outcome(ran=True, message="ran")
    skipped = [line for line in lines if "didn't change" in line or "is cached" in line]
    return Outcome(ran=False, message=skipped[0] if skipped else "nothing to do")


def _worth_logging(stream: IO[str] | None) -> Iterator[str]:
    """Yield lines without DVC's advice; of a progress bar only one state in a while."""
    last_bar = 0.0
    for raw in stream or ():
        line = raw.rstrip()
        bar = "%|" in line or line.endswith(("it/s]", "s/it]", "?it/s]"))
        if bar and time.monotonic() - last_bar < _SECONDS_BETWEEN_BARS:
            continue
        if bar:
            last_bar = time.monotonic()
        if line and not line.lstrip().startswith(_ADVICE):
            yield line


def _end(child: subprocess.Popen[str]) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
