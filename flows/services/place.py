"""The folder of one project, its ports, and the folder .zspl that holds what runs there."""

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from zspl.errors import SettingsError
from zspl.io.atomic import disk_errors

HOST = "127.0.0.1"
POOL = "zspl"


@dataclass(frozen=True)
class Place:
    """The folder of prefect.yaml."""

    root: Path

    @classmethod
    def find(cls, start: Path) -> "Place":
        """Return the project that `start` lies in.

        Raises:
            SettingsError: if no folder from `start` up has a prefect.yaml.
        """
        start = start.resolve()
        for folder in (start, *start.parents):
            if (folder / "prefect.yaml").is_file():
                return cls(folder)
        raise SettingsError(f"{start}: no prefect.yaml here or above; run this in the repository")

    @property
    def folder(self) -> Path:
        """Pid files, logs and Prefect's database; git ignores it."""
        return self.root / ".zspl"

    @property
    def client(self) -> Path:
        """What tells `prefect` in this folder where the server is."""
        return self.root / "prefect.toml"

    def pid_file(self, name: str) -> Path:
        """The file that remembers one service."""
        return self.folder / f"{name}.json"

    def log(self, name: str) -> Path:
        """What one service prints."""
        return self.folder / "logs" / f"{name}.log"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let one `up` or `down` at a time work here.

        Raises:
            SettingsError: if another is at work.
            DiskError: if the folder cannot be written.
        """
        lock = self.folder / "lock"
        with disk_errors(lock):
            self.log("").parent.mkdir(parents=True, exist_ok=True)
            handle = lock.open("a")
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise SettingsError(
                    f"{lock}: another zspl up or down is at work here; wait until it has ended"
                ) from error
            yield


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Where the two servers listen, on 127.0.0.1 only."""

    prefect: int
    mlflow: int

    @classmethod
    def from_environment(cls) -> "Ports":
        """Read ZSPL_PREFECT_PORT (4200) and ZSPL_MLFLOW_PORT (5000).

        Raises:
            SettingsError: if one is no port, or both are the same.
        """
        ports = cls(
            prefect=_port("ZSPL_PREFECT_PORT", 4200), mlflow=_port("ZSPL_MLFLOW_PORT", 5000)
        )
        if ports.prefect == ports.mlflow:
            raise SettingsError(
                f"ZSPL_PREFECT_PORT and ZSPL_MLFLOW_PORT are both {ports.mlflow}; choose two ports"
            )
        return ports


def gpus() -> int:
    """Return how many stage instances may hold a GPU at a time: ZSPL_GPUS, or the GPUs found.

    Raises:
        SettingsError: if ZSPL_GPUS is no whole number from 0 up.
    """
    text = os.environ.get("ZSPL_GPUS") or ""
    if not text:
        return _gpus_found()
    if not text.isdecimal():
        raise SettingsError(f"ZSPL_GPUS is {text!r}, expected a number of GPUs such as 1")
    return int(text)


def _gpus_found() -> int:
    try:
        done = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in done.stdout.splitlines())


def _port(variable: str, default: int) -> int:
    text = os.environ.get(variable) or str(default)
    if not text.isdecimal() or not 0 < int(text) < 65536:  # noqa: PLR2004 - the range of ports
        raise SettingsError(f"{variable} is {text!r}, expected a port from 1 to 65535")
    return int(text)
