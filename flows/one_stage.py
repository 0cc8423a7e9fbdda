"""One stage instance as a flow of its own, for a worker in another clone of the project.

The clones share a DVC remote and the Prefect server, nothing else. `full-benchmark` with
`spread` makes one such run per instance; nobody starts them by hand.
"""

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.child import Children
from flows.full_benchmark import PARALLEL
from tasks.remote import Shelf


@flow(name="stage", flow_run_name="{name}")
def one_stage(name: str, folder: str, run: str, code: str) -> State[Any]:
    """Bring one stage instance up to date in this clone and share its outputs.

    Args:
        name: The instance, such as `train@unimatch-small-labeled_20-0`.
        folder: The benchmark's folder, relative to the root of the clone.
        run: The run of `full-benchmark` that it belongs to.
        code: What stands for the instance's code, settings and source data where that run began.

    Raises:
        StageFailedError: if the stage's command fails.
        SettingsError: if this clone has other code, settings or data.
        DataError: if the remote lacks an input or does not take the outputs.
    """
    place = Path(folder).resolve()
    shelf = Shelf(place, run)
    shelf.fetch(name, code=code)
    children = Children(PARALLEL)
    try:
        outcome = children.reproduce(name, place, get_run_logger().info)
    finally:
        children.stop()
    shelf.put([name])
    return Completed(name=None if outcome.ran else "Cached", message=outcome.message)
