"""The three services: their commands, their order, and how to see that they are up."""

import os
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.services import processes
from flows.services.api import Api, answers
from flows.services.place import HOST, POOL, Place, Ports
from flows.services.processes import MARK, Record
from zspl.errors import SettingsError

SECONDS_TO_START = 180.0
QUIET = {
    "DVC_NO_ANALYTICS": "1",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    # Addresses belong on the pages, not between the lines of a stage.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # Job runners of language models: four more processes.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}


@dataclass(frozen=True, kw_only=True)
class Service:
    """One of prefect, mlflow, worker."""

    name: str
    title: str
    command: Sequence[str]
    address: str
    """The URL of a server; of the worker, what it is connected to."""
    port: int | None
    up: Callable[[], bool]


def addresses(ports: Ports) -> tuple[str, str]:
    """Return the URLs of the Prefect and the MLflow server."""
    return f"http://{HOST}:{ports.prefect}", f"http://{HOST}:{ports.mlflow}"


def services(place: Place, ports: Ports) -> list[Service]:
    """Return the services in the order in which they start."""
    prefect, mlflow = addresses(ports)
    store = ["--backend-store-uri", f"sqlite:///{place.root / 'mlflow.db'}"]
    # Files are written where runs without a server put them, and not sent through the server.
    files = ["--default-artifact-root", (place.root / "mlartifacts").as_uri()]
    return [
        Service(
            name="prefect",
            title="Prefect",
            command=_python("prefect server start --host", HOST, "--port", str(ports.prefect)),
            address=prefect,
            port=ports.prefect,
            up=lambda: answers(f"{prefect}/api/health"),
        ),
        Service(
            name="mlflow",
            title="MLflow",
            command=[
                *_python("mlflow server --host", HOST, "--port", str(ports.mlflow)),
                *["--workers", "1", "--no-serve-artifacts", *store, *files],
            ],
            address=mlflow,
            port=ports.mlflow,
            up=lambda: answers(f"{mlflow}/health"),
        ),
        Service(
            name="worker",
            title="Worker",
            command=_python(f"prefect worker start --pool {POOL} --name", worker_name(place)),
            address=f"{prefect} and {mlflow}",
            port=None,
            up=lambda: _online(prefect, worker_name(place)),
        ),
    ]


def _python(words: str, *more: str) -> list[str]:
    return [sys.executable, "-m", *words.split(), *more]


def worker_name(place: Place) -> str:
    """Return a name that tells clones and machines apart."""
    return f"{socket.gethostname()}:{place.root.name}"


def environment(place: Place, ports: Ports) -> dict[str, str]:
    """Return what every service and all that it starts find in their environment."""
    prefect, _ = addresses(ports)
    fixed = {
        MARK: str(place.root),
        "PREFECT_HOME": str(place.folder / "prefect"),
        "PREFECT_API_URL": f"{prefect}/api",
        "ZSPL_HOME": str(place.root),
        # By default any page open in the browser may ask the server to run commands.
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": prefect,
        # Kept in memory, a slot of the GPU limit would stay taken when the server is killed.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
            "prefect.server.concurrency.lease_storage.filesystem"
        ),
        "PYTHONUNBUFFERED": "1",
        "NO_COLOR": "1",
    }
    if weights := os.environ.get("ZSPL_WEIGHTS"):
        fixed["ZSPL_WEIGHTS"] = str(Path(weights).absolute())
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    return {**QUIET, **inherited, **fixed}


def running(place: Place, name: str) -> Record | None:
    """Return the record of a service whose process is alive.

    Raises:
        DataError: if its pid file is damaged.
    """
    record = Record.read(place.pid_file(name))
    return record if record is not None and record.alive() else None


def check_ports(waiting: Sequence[Service]) -> None:
    """Refuse to start a server on a port that is taken.

    Raises:
        SettingsError: if one is.
    """
    for service in waiting:
        if service.port is None:
            continue
        with socket.socket() as probe:
            # As servers do, so that connections that just ended are no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, service.port))
            except OSError as error:
                raise SettingsError(
                    f"{HOST}:{service.port}: taken by {processes.listening(service.port)}; end it"
                    f" or set ZSPL_{service.name.upper()}_PORT to a free port"
                ) from error


def start(service: Service, place: Place, ports: Ports) -> Record:
    """Start one service and remember it."""
    record = processes.start(
        service.command,
        cwd=place.root,
        log=place.log(service.name),
        environment=environment(place, ports),
        address=service.address,
    )
    record.write(place.pid_file(service.name))
    return record


def wait(service: Service, place: Place, record: Record) -> None:
    """Wait until the service is up.

    Raises:
        SettingsError: if it ends or does not answer in time.
    """
    if processes.wait_until(service.up, seconds=SECONDS_TO_START, alive=record.alive):
        return
    log = place.log(service.name)
    what = "does not answer" if record.alive() else "ended at once"
    raise SettingsError(f"{service.title} {what}: {processes.last_line(log)} (all of it in {log})")


def end_all(place: Place) -> int:
    """End the worker with its runs, then the servers; return how many processes that were."""
    servers = set()
    for name in ("prefect", "mlflow"):
        if record := running(place, name):
            servers |= set(processes.tree(record))
    everything = set(processes.marked(str(place.root)))
    # Runs report how they ended to the servers, which therefore go last.
    processes.end(everything - servers)
    processes.end([*servers, *processes.marked(str(place.root))])
    for name in ("worker", "prefect", "mlflow"):
        place.pid_file(name).unlink(missing_ok=True)
    return len(everything | servers)


def _online(prefect: str, name: str) -> bool:
    try:
        return Api(prefect, patience=0.0).online(name)
    except SettingsError:
        return False
