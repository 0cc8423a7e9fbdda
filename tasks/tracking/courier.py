"""The stage's side of the sender: start it, wait for it a little, and never wait for a server."""

import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.tracking import journal
from tasks.tracking.privacy import without_credentials
from zspl.io.layout import Layout
from zspl.settings import Settings

LINGER = 20.0
"""Seconds that the sender waits for another stage: importing MLflow takes it several."""

_PATIENCE = 5.0
_SILENCE = 3.0
_LOOK_AGAIN = 30.0


@dataclass(frozen=True)
class Address:
    """Where the journals of a folder go.

    Attributes:
        folder: Of the journals.
        uri: Of the tracking server or database, with its credentials.
        home: Folder of a local database, for the files beside it.
    """

    folder: Path
    uri: str
    home: Path

    @classmethod
    def of(cls, settings: Settings) -> "Address":
        """Return the address that MLFLOW_TRACKING_URI names; without it a local database."""
        home = settings.paths.code.resolve()
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home / 'mlflow.db'}"
        return cls(Layout(settings.paths.out).work("tracking"), uri, home)

    @property
    def public(self) -> str:
        """The address as journals and messages may hold it."""
        return without_credentials(self.uri)

    @property
    def lock(self) -> Path:
        """What the sender holds while it lives; each server has its own sender."""
        return self.folder / f"sender-{hashlib.sha256(self.public.encode()).hexdigest()[:8]}.lock"

    @property
    def log(self) -> Path:
        """What the sender wrote to its standard error."""
        return self.lock.with_suffix(".log")

    def state(self) -> dict[str, Any]:
        """Return what the sender said of itself: `trouble`, and since when it waits."""
        try:
            found: dict[str, Any] = json.loads(self.lock.with_suffix(".json").read_text())
        except (OSError, ValueError):
            return {}
        return found


class Courier:
    """Sees to it that a sender runs while a stage reports."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._child: subprocess.Popen[bytes] | None = None
        self._looked = -_LOOK_AGAIN

    def call(self, *, now: bool = False) -> None:
        """Start a sender if none runs, looking for it once in a while or `now`."""
        if not now and time.monotonic() - self._looked < _LOOK_AGAIN:
            return
        self._looked = time.monotonic()
        address = self.address
        address.folder.mkdir(parents=True, exist_ok=True)
        if journal.is_locked(address.lock) or self._starting():
            return
        module = [sys.executable, "-m", "tasks.tracking"]
        arguments = [str(address.folder), str(address.home), str(LINGER)]
        with address.log.open("wb") as log:
            # A session of its own: what ends the stage must not end what is said of it.
            self._child = subprocess.Popen(
                [*module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "MLFLOW_TRACKING_URI": address.uri},
            )

    def wait_for(self, written: Path) -> str | None:
        """Wait some seconds until a journal is sent; return why it will not be, or None."""
        end = time.monotonic() + _PATIENCE
        while written.exists() and time.monotonic() < end:
            trouble = self._trouble()
            if trouble:
                return trouble
            time.sleep(0.05)
        return None

    def _trouble(self) -> str | None:
        state = self.address.state()
        since = state.get("calling")
        # A local database is only as slow as this machine: it is not away.
        away = since is not None and time.time() - since > _SILENCE
        if away and not self.address.uri.startswith("sqlite:"):
            return f"no answer for {_SILENCE:.0f} s"
        if state.get("trouble"):
            return str(state["trouble"])
        if not self._starting() and not journal.is_locked(self.address.lock):
            return f"its sender ended; {self.address.log} says why"
        return None

    def _starting(self) -> bool:
        return self._child is not None and self._child.poll() is None
