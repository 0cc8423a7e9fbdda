"""The Prefect server, asked and set up over its REST interface; importing prefect takes seconds."""

import json
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil

from flows.services.place import POOL, Place
from zspl.errors import SettingsError
from zspl.io import atomic

GPU_TAG = "gpu"
_NOT_FOUND = 404
_SERVER_ERROR = 500
_OURS = "# Written by zspl up, removed by zspl down: where `prefect` finds the server.\n"


class Api:
    """One Prefect server.

    Every method raises SettingsError if the server does not answer in `patience` seconds.
    """

    def __init__(self, address: str, *, patience: float = 60.0) -> None:
        self._url = f"{address}/api"
        self._patience = patience

    def pool(self) -> None:
        """Make the work pool, if it is not there."""
        if self._ask("GET", f"/work_pools/{POOL}", absent=None) is None:
            self._ask("POST", "/work_pools/", {"name": POOL, "type": "process"})

    def limit_gpus(self, count: int) -> None:
        """Let `count` tasks with the tag gpu run at a time; 0 takes the limit away."""
        if count == 0:
            self._ask("DELETE", f"/concurrency_limits/tag/{GPU_TAG}", absent=None)
            return
        limit = {"tag": GPU_TAG, "concurrency_limit": count}
        self._ask("POST", "/concurrency_limits/", limit)

    def gpu_limit(self) -> int | None:
        """Return the limit, or None if there is none."""
        found = self._ask("GET", f"/concurrency_limits/tag/{GPU_TAG}", absent=None)
        return None if found is None else int(found["concurrency_limit"])

    def online(self, worker: str) -> bool:
        """Whether the worker of this name has reported lately."""
        found = self._ask("POST", f"/work_pools/{POOL}/workers/filter", {}, absent=[])
        return any(w["name"] == worker and w["status"] == "ONLINE" for w in found)

    def deployments(self) -> list[str]:
        """Return the names of all deployments, as `prefect deployment run` wants them."""
        found = self._ask("POST", "/deployments/filter", {})
        flows = {f["id"]: f["name"] for f in self._ask("POST", "/flows/filter", {})}
        return sorted(f"{flows[one['flow_id']]}/{one['name']}" for one in found)

    def bury(self) -> list[str]:
        """Mark flow runs whose process on this machine is gone as crashed; return their names.

        A run that was killed with its worker would else be shown as running for ever.
        """
        states = {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}}
        gone = []
        for run in self._ask("POST", "/flow_runs/filter", {"flow_runs": states}):
            if not _lost(str(run["infrastructure_pid"] or "")):
                continue
            crashed = {"type": "CRASHED", "message": "Its process has ended; run it again."}
            body = {"state": crashed, "force": True}
            self._ask("POST", f"/flow_runs/{run['id']}/set_state", body)
            gone.append(str(run["name"]))
        return gone

    def _ask(self, method: str, path: str, body: Any = None, absent: Any = ...) -> Any:  # noqa: ANN401 - JSON
        """Return the answer as JSON; `absent`, if given, where there is no such thing."""
        data = None if body is None else json.dumps(body).encode()
        kind = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._url + path, data, kind, method=method)
        limit = time.monotonic() + self._patience
        while True:
            try:
                with _OPENER.open(request, timeout=20) as answer:
                    text = answer.read()
                return json.loads(text) if text else None
            except urllib.error.HTTPError as error:
                if error.code == _NOT_FOUND and absent is not ...:
                    return absent
                # A busy database is a 503; what the server does not understand stays so.
                if error.code < _SERVER_ERROR or time.monotonic() > limit:
                    raise SettingsError(f"{self._url}{path}: the server says {error}") from error
            except OSError as error:
                if time.monotonic() > limit:
                    raise SettingsError(f"{self._url}{path}: no answer ({error})") from error
            time.sleep(1.0)


def _lost(infrastructure: str) -> bool:
    """Whether a flow run's process, "host:pid" or "pid", was on this machine and is gone."""
    host, _, pid = infrastructure.rpartition(":")
    if host not in {"", socket.gethostname()} or not pid.isdecimal():
        return False
    try:
        return not any("prefect" in word for word in psutil.Process(int(pid)).cmdline())
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


# A proxy of the environment knows nothing of this machine's own servers.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def answers(url: str) -> bool:
    """Whether a server answers with success."""
    try:
        with _OPENER.open(url, timeout=5):
            return True
    except OSError:
        return False


def tell_clients(place: Place, address: str) -> None:
    """Let `prefect` in this folder find the server without an export.

    Raises:
        SettingsError: if there is a prefect.toml of somebody else.
    """
    check_client_file(place.client)
    atomic.write_text(place.client, f'{_OURS}[api]\nurl = "{address}/api"\n')


def forget_clients(place: Place) -> None:
    """Take back what `tell_clients` wrote."""
    if place.client.exists() and _is_ours(place.client):
        place.client.unlink()


def check_client_file(path: Path) -> None:
    """Refuse to overwrite a prefect.toml that `up` has not written.

    Raises:
        SettingsError: if there is one.
    """
    if path.exists() and not _is_ours(path):
        raise SettingsError(f"{path}: not written by zspl up; move it away and run this again")


def _is_ours(path: Path) -> bool:
    return path.read_text(encoding="utf-8").startswith(_OURS)
