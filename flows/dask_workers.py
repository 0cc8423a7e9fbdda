"""Stage instances as tasks of a Dask cluster whose workers see the same folder."""

import asyncio
import os
import time
from typing import Any

from prefect.task_runners import TaskRunner

from zspl.errors import SettingsError

_SECONDS_TO_ANSWER = 10
_SECONDS_TO_COME = 60


def address() -> str | None:
    """Return the scheduler that ZSPL_DASK names, if any."""
    return os.environ.get("ZSPL_DASK") or None


def runner(scheduler: str) -> TaskRunner[Any]:
    """Return Prefect's task runner for that cluster."""
    from prefect_dask.task_runners import DaskTaskRunner  # noqa: PLC0415 - takes seconds

    return DaskTaskRunner(address=scheduler)


def check(scheduler: str) -> None:
    """Wait a minute for the first worker: Dask itself would wait for ever, and say nothing.

    Raises:
        SettingsError: if no scheduler answers, or it has no worker.
    """
    until = time.monotonic() + _SECONDS_TO_COME
    try:
        while not asyncio.run(asyncio.wait_for(_workers(scheduler), _SECONDS_TO_ANSWER)):
            if time.monotonic() > until:
                raise SettingsError(
                    f"ZSPL_DASK={scheduler}: the Dask scheduler has no worker; start one on each "
                    f"machine: dask worker {scheduler} --nthreads 1"
                )
            time.sleep(1)
    except (OSError, ValueError, TypeError, KeyError) as error:  # whatever else listens there
        raise SettingsError(
            f"ZSPL_DASK={scheduler}: no Dask scheduler answers; dask scheduler starts one, and an "
            "address looks like tcp://127.0.0.1:8786"
        ) from error


async def _workers(scheduler: str) -> int:
    from distributed.core import rpc  # noqa: PLC0415 - takes seconds

    async with rpc(scheduler) as asked:  # type: ignore[no-untyped-call]
        told = await asked.identity()
    return len(told["workers"])
