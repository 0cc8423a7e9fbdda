"""Stage instances handed to the workers of a Prefect pool, each in its own clone."""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import Cancelling

from flows.child import STOPPED, Outcome, StageFailedError
from tasks.dag import Node
from tasks.remote import Shelf
from zspl.errors import SettingsError

DEPLOYMENT = "stage/zspl"
"""The deployment of flows/one_stage.py in prefect.yaml."""

_SECONDS_BETWEEN_LOOKS = 2.0


class Workers:
    """The instances of one flow run that workers have, so that all of them can be cancelled."""

    def __init__(self, folder: Path, nodes: Sequence[Node]) -> None:
        """Put into the remote what is up to date in this clone and read by what is not.

        Raises:
            DataError: if the remote does not take it.
            SettingsError: if the clone has no default remote, or lacks a source file.
        """
        self._shelf = Shelf(folder, str(flow_run.id))
        stale = [node for node in nodes if not node.up_to_date]
        read = {name for node in stale for name in node.upstream}
        self._code = self._shelf.fingerprints([node.name for node in stale])
        self._shelf.put([node.name for node in nodes if node.up_to_date and node.name in read])
        self._finished: list[str] = []
        self._running: set[UUID] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def reproduce(self, name: str, _folder: Path, log: Callable[[str], None]) -> Outcome:
        """Let a worker bring one stage instance up to date, and wait for it.

        Raises:
            SettingsError: if the server has no deployment for single instances.
            StageFailedError: if the instance failed, crashed or was cancelled.
        """
        with self._lock:
            if self._stopped.is_set():
                raise StageFailedError(f"{name}: {STOPPED}")
            handed = self._hand_out(name)
            self._running.add(handed.id)
        log(f"waits for a worker as flow run {handed.id}")
        state = self._wait(handed).state
        with self._lock:
            self._running.discard(handed.id)
            if state is not None and state.is_completed():
                self._finished.append(name)
                return Outcome(ran=state.name != "Cached", message=state.message or "ran")
        said = f"{state.name}: {state.message or 'no message'}" if state else "lost"
        raise StageFailedError(f"{name}: {said}")

    def stop(self) -> None:
        """Cancel what workers have or wait to get, and hand out nothing else."""
        self._stopped.set()
        with self._lock:
            running = list(self._running)
        if running:
            with get_client(sync_client=True) as client:
                for one in running:
                    with suppress(httpx.TransportError):
                        client.set_flow_run_state(one, Cancelling())

    def collect(self) -> None:
        """Bring what the workers have finished into this clone and its dvc.lock.

        Raises:
            DataError: if the remote lacks an output.
        """
        self._shelf.collect(self._finished)

    def _hand_out(self, name: str) -> FlowRun:
        try:
            made: Any = run_deployment(
                DEPLOYMENT,
                parameters={
                    "name": name,
                    "folder": self._shelf.place,
                    "run": self._shelf.run,
                    "code": self._code[name],
                },
                flow_run_name=name,
                timeout=0,
            )
        except ObjectNotFound as error:
            raise SettingsError(
                f"the Prefect server has no deployment {DEPLOYMENT}; run prefect deploy --all"
            ) from error
        handed: FlowRun = made
        return handed

    def _wait(self, handed: FlowRun) -> FlowRun:
        with get_client(sync_client=True) as client:
            while True:
                # A server that is away for a while has not lost the instance.
                with suppress(httpx.TransportError):
                    seen: FlowRun = client.read_flow_run(handed.id)
                    if seen.state and seen.state.is_final():
                        return seen
                if self._stopped.wait(_SECONDS_BETWEEN_LOOKS):
                    raise StageFailedError(f"{handed.name}: {STOPPED}")
