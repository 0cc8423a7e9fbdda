"""The process that takes journals to MLflow: `python -m tasks.tracking folder home linger`.

It starts with the first stage, holds a lock so that there is one per folder and server, and ends
some seconds after the last stage, or when the server does not answer and no stage is left.
"""

import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.tracking import journal
from tasks.tracking.courier import Address
from tasks.tracking.journal import Line, Sent
from tasks.tracking.privacy import for_people
from zspl.errors import ZsplError
from zspl.io import atomic
from zspl.settings import Settings

if TYPE_CHECKING:
    from tasks.tracking.recorder import Held, Recorder

_GIVES_UP = 10.0
_BETWEEN_BATCHES = 2.0
_POLL = 0.1
_SLOWEST = 5.0
_TRIES = 3
_OTHER_SENDER = 40.0


class Delivery:
    """One journal on its way: sent line by line, and continued where it stopped."""

    def __init__(self, recorder: "Recorder", path: Path, pulse: Callable[[], None]) -> None:
        self.header = journal.header(path)
        self._path, self._recorder, self._pulse = path, recorder, pulse
        self._sent = Sent.read(path)
        self._held: Held | None = None
        self._failed = 0
        self._last = -_BETWEEN_BATCHES

    def step(self) -> bool:
        """Send what is there, and return whether the journal is at its end.

        Raises:
            Exception: what MLflow raises; the same lines come again with the next call.
        """
        written = journal.is_written(self._path)
        if written and time.monotonic() - self._last < _BETWEEN_BATCHES:
            return False
        lines = journal.read(self._path, self._sent.bytes)
        for part in _parts(lines):
            self._send(part)
            self._last = time.monotonic()
            if part[0]["kind"] == "close":
                return True
        if not written:  # no line says how it ended: the stage was killed
            self._send([{"kind": "close", "status": "KILLED", "time": _now(), "end": 0}])
        return not written

    def _send(self, lines: list[Line]) -> None:
        """Send lines; what a healthy server refuses several times is left out."""
        self._pulse()
        if self._sent.run is None:
            self._sent.run = self._recorder.open(self.header)
            self._sent.write(self._path)
        try:
            self._take(self._sent.run, lines)
        except Exception as error:
            self._failed += 1
            if self._failed < _TRIES or not self._recorder.answers():
                raise
            said = for_people(str(error))
            sys.stderr.write(f"left out {lines[0]['kind']} of {self._path.name}: {said}\n")
        self._failed = 0
        self._sent.bytes = lines[-1]["end"]
        self._sent.write(self._path)

    def _take(self, run: str, lines: list[Line]) -> None:
        line, recorder = lines[0], self._recorder
        kind = line["kind"]
        if kind == "metrics":
            self._held = self._held or recorder.held(run)
            recorder.metrics(run, lines, self._held)
        elif kind == "close":
            recorder.end(run, self.header, line)
        elif kind in ("file", "table"):
            of_parent = line["to"] == "parent"
            target = recorder.parent(self.header["benchmark"]) if of_parent else run
            store = recorder.file if kind == "file" else recorder.table
            store(target, self._path.parent / line["path"], folder=line["folder"])
        elif kind in ("params", "tags", "inputs"):
            getattr(recorder, kind)(run, line["values"])


class Sender:
    """Goes round the journals of a folder, the oldest first."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._recorder: Recorder | None = None
        self._deliveries: dict[Path, Delivery] = {}
        self._told: dict[str, object] = {}
        self.away = False

    def serve(self, linger: float) -> None:
        """Send what stages write until none has written for `linger` seconds."""
        busy, pause = time.monotonic(), _POLL
        while self._address.folder.is_dir():
            trouble = self.round()
            mine = self._mine()
            if any(map(journal.is_written, mine)) or (mine and not trouble):
                busy = time.monotonic()
            if time.monotonic() - busy > (_GIVES_UP if trouble else linger):
                return
            pause = min(2 * max(pause, 0.5), _SLOWEST) if trouble else _POLL
            time.sleep(pause)

    def round(self) -> str | None:
        """Give each journal its turn, and return why one of them could not be sent."""
        trouble: str | None = None
        held_up: set[str] = set()
        for path in self._mine():
            cell = journal.header(path).get("tags", {}).get("zspl.cell", path.name)
            if cell in held_up:  # its scores must not come before its training
                continue
            try:
                if self._delivery(path).step():
                    del self._deliveries[path]
                    journal.remove(path)
            except Exception as error:
                trouble = trouble or for_people(str(error))
                held_up.add(cell)
                self.away = self._recorder is None or not self._recorder.answers()
                if self.away:
                    break
        self._tell(trouble=trouble, calling=None)
        return trouble

    def _delivery(self, path: Path) -> Delivery:
        if self._recorder is None:
            from tasks.tracking.recorder import Recorder  # seconds, that only a sender pays

            self._recorder = Recorder(self._address.uri, home=self._address.home)
        if path not in self._deliveries:
            self._deliveries[path] = Delivery(self._recorder, path, self._pulse)
        return self._deliveries[path]

    def _mine(self) -> list[Path]:
        """Return the journals of this server; those of others wait for their own sender."""
        return [
            path
            for path in journal.waiting(self._address.folder)
            if journal.header(path).get("uri") == self._address.public
        ]

    def _pulse(self) -> None:
        self._tell(trouble=self._told.get("trouble"), calling=time.time())

    def _tell(self, **state: object) -> None:
        """Write for the stages how it goes."""
        if state != self._told:
            self._told = state
            atomic.write_json(self._address.lock.with_suffix(".json"), state)


def send_all(address: Address) -> str | None:
    """Send what waits in a folder now, and return why not all of it could be sent."""
    end = time.monotonic() + _OTHER_SENDER
    while journal.waiting(address.folder):
        with journal.only_one(address.lock) as alone:
            if alone:
                return _send_now(Sender(address))
        if time.monotonic() > end:
            return "another process sends them"
        time.sleep(_POLL)
    return None


def _send_now(sender: Sender) -> str | None:
    for _ in range(_TRIES):
        trouble = sender.round()
        if not trouble or sender.away:
            break
    return trouble


def replay(settings: Settings) -> str:
    """Send every journal that waits in this folder and return one line about it.

    Raises:
        ZsplError: if the tracking server does not take them.
    """
    address = Address.of(settings)
    before = len(journal.waiting(address.folder))
    trouble = send_all(address)
    left = len(journal.waiting(address.folder))
    if left:
        raise ZsplError(
            f"{address.folder}: {left} of {before} journals wait for MLflow at "
            f"{for_people(address.public)} ({trouble or 'they belong to another server'}); set "
            "MLFLOW_TRACKING_URI and run `python -m tasks replay` when it answers"
        )
    return f"journals sent to MLflow at {for_people(address.public)}: {before}"


def serve(folder: str, home: str, linger: str) -> None:
    """Serve a folder of journals unless another process does."""
    address = Address(Path(folder), os.environ["MLFLOW_TRACKING_URI"], Path(home))
    for _ in range(_TRIES):
        with journal.only_one(address.lock) as alone:
            if alone:
                Sender(address).serve(float(linger))
                return
        time.sleep(_POLL)  # it may have been a stage that looked whether a sender is there


def _parts(lines: list[Line]) -> Iterator[list[Line]]:
    """Yield what is sent at once: metrics that follow each other, any other line alone."""
    for kind, group in itertools.groupby(lines, key=lambda line: line["kind"]):
        found = list(group)
        if kind == "metrics":
            yield found
        else:
            yield from ([line] for line in found)


def _now() -> int:
    return int(time.time() * 1000)
