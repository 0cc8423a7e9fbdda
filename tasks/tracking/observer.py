"""A stage's observer that writes a journal; it never waits for a server while the stage works."""

import csv
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tasks.tracking.courier import Address, Courier
from tasks.tracking.facts import hardware, inputs, provenance
from tasks.tracking.identity import Identity, facts, identify, made_under
from tasks.tracking.journal import Journal
from tasks.tracking.privacy import for_people, impersonal
from zspl.observer import Observer, Silent
from zspl.settings import Settings

Facts = Mapping[str, str | int | float | bool]

DENSE = 200
"""Points of a curve before its points are spaced further apart."""


@contextmanager
def tracked(stage: str, settings: Settings, instance: Mapping[str, str]) -> Iterator[Observer]:
    """Let MLflow see one stage instance, and end its run as finished, failed or killed.

    Of several processes that train together the first one reports.
    """
    first = int(os.environ.get("RANK") or 0) == 0
    observer = _attempt(lambda: Tracker(stage, settings, instance)) if first else None
    if observer is None:
        yield Silent()
        return
    try:
        yield observer
    except BaseException as error:
        observer.close("FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    observer.close("FINISHED")


class Tracker:
    """Writes what a stage reports to its journal; nothing that goes wrong here reaches it."""

    def __init__(self, stage: str, settings: Settings, instance: Mapping[str, str]) -> None:
        self._settings, self._instance = settings, dict(instance)
        self._identity: Identity = identify(stage, settings, instance)
        self._address = Address.of(settings)
        self._courier = Courier(self._address)
        self._courier.call(now=True)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="tracking")
        labels = None if self._identity.cell is None else self._identity.cell.labels
        self._provenance: Future[Mapping[str, str]] | None = self._pool.submit(
            provenance, settings, labels
        )
        self._journal: Journal | None = None
        self._curves: dict[str, Curve] = {}
        self._said: set[tuple[str, float]] = set()
        self._warned = False

    def params(self, values: Facts) -> None:
        """Note facts; the sender keeps the first value of each, as MLflow does."""
        self._write(lambda: {"kind": "params", "values": _texts(values)})

    def metrics(self, values: Mapping[str, float], *, step: int | None = None) -> None:
        """Note numbers: all of a summary once, and of a long curve not every point."""
        numbers = {key: float(value) for key, value in values.items()}
        if step is None:
            # A stage's summary repeats what it may have reported before.
            numbers = {key: n for key, n in numbers.items() if (key, n) not in self._said}
            self._said |= set(numbers.items())
        else:
            due = {key: self._curve(key).wants(step, n) for key, n in numbers.items()}
            numbers = {key: n for key, n in numbers.items() if due[key]}
        if numbers:
            self._write(lambda: {"kind": "metrics", "step": step or 0, "values": numbers})

    def artifact(self, path: Path) -> None:
        """Copy a finished file; a CSV is also shown as a table."""
        places = [("run", "")]
        if self._identity.stage == "evaluate" and self._identity.cell is None:
            places.append(("parent", f"labels/{self._instance.get('variant', '-')}"))
        for place in places:
            self._write(partial(self._file, path, *place))
            if path.suffix == ".csv":
                self._write(partial(self._table, path, *place))

    def close(self, status: str) -> None:
        """End the run, and give the sender some seconds to take what is left."""
        self._finish_curves()
        self._write(lambda: {"kind": "tags", "values": hardware()})
        if self._provenance is not None:
            wait([self._provenance], timeout=2.0)
        trained = status == "FINISHED" and self._identity.stage == "train"
        tags = {"zspl.trained": "yes"} if trained else {}
        self._write(lambda: {"kind": "close", "status": status, "tags": tags})
        self._pool.shutdown(wait=False)
        written, self._journal = self._journal, None
        if written is None:
            return
        written.close()
        _attempt(lambda: self._courier.call(now=True))
        trouble = self._courier.wait_for(written.path) if status != "KILLED" else None
        if trouble:
            self._warn(trouble)

    def _file(self, path: Path, to: str, folder: str) -> dict[str, Any]:
        kept = self._open().copy(path)
        return {"kind": "file", "path": _below(kept, self._address), "to": to, "folder": folder}

    def _table(self, path: Path, to: str, folder: str) -> dict[str, Any]:
        kept = self._open().keep(f"{path.stem}.json")
        kept.write_text(impersonal(json.dumps(table_of(path))), encoding="utf-8")
        return {"kind": "table", "path": _below(kept, self._address), "to": to, "folder": folder}

    def _write(self, line: Callable[[], dict[str, Any]]) -> None:
        """Append a line; a full disk costs this line, not the next ones."""
        try:
            journal = self._open()
            self._tell_provenance(journal)
            journal.append(line())
            self._courier.call()
        except Exception as error:
            self._warn(error)

    def _open(self) -> Journal:
        if self._journal is None:
            identity, settings = self._identity, self._settings
            header = identity.header(made_under(settings, identity))
            journal = Journal(self._address.folder, {**header, "uri": self._address.public})
            self._journal = journal
            known = facts(settings, identity, self._instance)
            journal.append({"kind": "params", "values": _texts(known)})
            if identity.cell is not None:
                found = inputs(settings, identity.cell, context=identity.stage)
                journal.append({"kind": "inputs", "values": found})
        return self._journal

    def _tell_provenance(self, journal: Journal) -> None:
        if self._provenance is not None and self._provenance.done():
            found, self._provenance = self._provenance, None
            journal.append({"kind": "tags", "values": dict(found.result())})

    def _curve(self, key: str) -> "Curve":
        return self._curves.setdefault(key, Curve())

    def _finish_curves(self) -> None:
        """Write the last point of each curve that left it out."""
        for key, curve in self._curves.items():
            if curve.left_out is not None:
                step, value = curve.left_out
                self._write(partial(dict, kind="metrics", step=step, values={key: value}))

    def _warn(self, reason: object) -> None:
        if not self._warned:
            self._warned = True
            where = for_people(self._address.public)
            sys.stderr.write(
                f"zspl: MLflow at {where} does not take this stage ({for_people(str(reason))}); "
                f"what it reports waits in {self._address.folder} for the next stage or "
                "`python -m tasks replay`\n"
            )


class Curve:
    """Spaces the points of a curve: 200 as they come, then 100 for each doubling of its length.

    Example:
        >>> curve = Curve()
        >>> sum(curve.wants(step, 0.0) for step in range(100_000))
        1096
        >>> curve.left_out
        (99999, 0.0)
    """

    def __init__(self) -> None:
        self._offered = 0
        self.left_out: tuple[int, float] | None = None

    def wants(self, step: int, value: float) -> bool:
        """Return whether to keep this point; `left_out` is the last one if it was not kept."""
        spacing = 1 << max(0, math.floor(math.log2(max(1, self._offered / DENSE))) + 1)
        spacing = 1 if self._offered < DENSE else spacing
        kept = self._offered % spacing == 0
        self._offered += 1
        self.left_out = None if kept else (step, value)
        return kept


def table_of(path: Path) -> dict[str, Any]:
    """Return a CSV file as the JSON that MLflow's page shows as a table."""
    with path.open(encoding="utf-8", newline="") as file:
        columns, *rows = csv.reader(file)
    return {"columns": columns, "data": [[_number(cell) for cell in row] for row in rows]}


def _number(text: str) -> str | float:
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text


def _texts(values: Facts) -> dict[str, str]:
    return {key: impersonal(str(value)) for key, value in values.items()}


def _below(path: Path, address: Address) -> str:
    return path.relative_to(address.folder).as_posix()


def _attempt(call: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever the call returns
    """Return what `call` returns, or None after one line of warning if it failed."""
    try:
        return call()
    except Exception as error:
        sys.stderr.write(f"zspl: MLflow does not see this stage ({for_people(str(error))})\n")
        return None
