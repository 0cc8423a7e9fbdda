"""The whole benchmark as a Prefect flow: one task per stage instance of DVC's graph.

Nothing here computes. Prefect's cache stays off: DVC decides what is current, and an instance
that is current is shown as Cached.
"""

import os
import queue
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from prefect import allow_failure, flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows import dask_workers
from flows.artifacts import Progress, show_picture, show_tables
from flows.child import STOPPED, Children
from flows.services.api import answers
from flows.workers import Workers
from tasks import dag
from tasks.dag import Node
from zspl.errors import SettingsError, ZsplError
from zspl.settings import Settings


def parallel_from(text: str) -> int:
    """Return how many stage instances run at a time; it changes the wall clock only.

    Raises:
        SettingsError: if `text` is no whole number from 1 up.
    """
    if not text.isdecimal() or int(text) < 1:
        raise SettingsError(f"ZSPL_PARALLEL is {text!r}, expected a whole number such as 2")
    return int(text)


PARALLEL = parallel_from(os.environ.get("ZSPL_PARALLEL") or "2")

RETRIED = frozenset({"propose", "embed", "embed-segments"})
"""Finished images are kept, so a retry resumes. A diverged training would diverge again."""

PICTURE = "qualitative.png"
"""The picture that `tabulate` leaves beside its tables."""

SECONDS_BETWEEN_NEWS = 5.0

FAILED = 1
USER_ERROR = 2
STOPPED_BY_USER = 130


class BenchmarkFailedError(RuntimeError):
    """Some stage instances failed; the message names them."""


def _may_help(_task: Any, _run: Any, state: State[Any]) -> bool:  # noqa: ANN401 - Prefect's own
    """Retry unless the stage said in one line what the user has to mend."""
    said = state.message or ""
    return "zspl: " not in said and STOPPED not in said


def _runner() -> TaskRunner[Any]:
    """Return threads that wait for child processes, or a Dask cluster on one file system."""
    if scheduler := dask_workers.address():
        return dask_workers.runner(scheduler)
    # More threads than turns: one that waits for a GPU must not hold up those that need none.
    return ThreadPoolTaskRunner(max_workers=PARALLEL + 8)


@task(cache_policy=NO_CACHE, task_run_name="{name}")
def reproduce(
    name: str, folder: Path, children: Children | Workers, progress: Progress, up_to_date: bool
) -> State[Any]:
    """Bring one stage instance up to date, or say that it was."""
    if up_to_date:
        return Completed(name="Cached", message="up to date")
    with progress.turn(name):
        outcome = children.reproduce(name, folder, get_run_logger().info)
    return Completed(name=None if outcome.ran else "Cached", message=outcome.message)


def _run_name() -> str:
    """Return the benchmark's own name; that of the folder while params.yaml is wrong."""
    folder = Path(str(flow_run.parameters.get("folder", ".")))
    try:
        return Settings.read(folder / "params.yaml").benchmark
    except ZsplError:
        return str(folder)


@flow(
    name="full-benchmark",
    flow_run_name=_run_name,
    task_runner=_runner(),
)
def full_benchmark(folder: str = ".", spread: bool = False) -> None:
    """Run what is not up to date in one benchmark, as much at a time as allowed.

    A failed instance stops what reads its outputs and nothing else.

    Args:
        folder: The folder of the benchmark's params.yaml and dvc.yaml, seen from the repository,
            such as benchmarks/animals; a single dot is the demo. Settings stand in params.yaml.
        spread: Whether workers in other clones run the instances, with a DVC remote between
            them (docs/cluster.md); otherwise they run here.

    Raises:
        BenchmarkFailedError: at the end, if instances failed.
        SettingsError: if params.yaml is wrong, DVC cannot read the graph, or it has no remote.
    """
    place = Path(folder).resolve()
    benchmark = Settings.read(place / "params.yaml").benchmark
    nodes = dag.plan(place)
    current = sum(node.up_to_date for node in nodes)
    get_run_logger().info("%d stage instances, %d of them up to date", len(nodes), current)
    if scheduler := dask_workers.address():
        if spread:
            raise SettingsError("spread and ZSPL_DASK are two ways to several machines; choose one")
        dask_workers.check(scheduler)
    children = Workers(place, nodes) if spread else Children(PARALLEL)
    try:
        states = _run_all(nodes, place, children, Progress(benchmark, len(nodes), PARALLEL))
    finally:
        children.stop()
    try:
        if isinstance(children, Workers):
            children.collect()
    finally:
        _publish(nodes, states, benchmark=benchmark)
        _raise_if_any_failed(states)


def _run_all(
    nodes: Sequence[Node], folder: Path, children: Children | Workers, progress: Progress
) -> dict[str, State[Any]]:
    """Submit each instance once its upstream has ended, so that no thread only waits."""
    futures: dict[str, PrefectFuture[Any]] = {}
    ended: queue.SimpleQueue[str] = queue.SimpleQueue()
    states: dict[str, State[Any]] = {}
    waiting = {node.name: node for node in nodes}
    submit = partial(_submit, folder=folder, children=children, progress=progress)
    while len(states) < len(nodes):
        for node in [n for n in waiting.values() if states.keys() >= set(n.upstream)]:
            del waiting[node.name]
            futures[node.name] = future = submit(node, [futures[n] for n in node.upstream])
            future.add_done_callback(partial(_tell, ended, node.name))
        with suppress(queue.Empty):
            name = ended.get(timeout=SECONDS_BETWEEN_NEWS)
            states[name] = _final_state(futures[name])
            if not states[name].is_completed():
                _drop_old_results(name, nodes)
        progress.show(states)
    return states


def _final_state(future: PrefectFuture[Any]) -> State[Any]:
    # Before wait() a future that has ended still reports what the server last heard.
    future.wait()
    return future.state


def _tell(ended: "queue.SimpleQueue[str]", name: str, _: PrefectFuture[Any]) -> None:
    ended.put(name)


def _submit(
    node: Node,
    upstream: Sequence[PrefectFuture[Any]],
    *,
    folder: Path,
    children: Children | Workers,
    progress: Progress,
) -> PrefectFuture[Any]:
    """Hand one stage instance to the task runner."""
    retries = 2 if node.stage in RETRIED else 0
    # A worker elsewhere has GPUs of its own; the limit here is for those of this machine.
    resource = None if isinstance(children, Workers) else node.resource
    configured = reproduce.with_options(
        tags=[node.stage, *([resource] if resource else [])],
        retries=retries,
        retry_delay_seconds=10,
        retry_condition_fn=_may_help,
    )
    future: PrefectFuture[Any] = configured.submit(
        name=node.name,
        folder=folder,
        children=children,
        progress=progress,
        up_to_date=node.up_to_date,
        return_state=False,
        wait_for=[allow_failure(one) for one in upstream] if node.partial_ok else upstream,
    )
    return future


def _drop_old_results(failed: str, nodes: Sequence[Node]) -> None:
    """Remove the outputs of an instance that did not run, as DVC does before it runs one.

    An earlier run may have left a score that the table would show as if it were of this run.
    """
    for node in nodes:
        if node.name == failed and not (node.partial_ok or node.up_to_date):
            for path in node.outputs:
                dag.remove(path)


def _publish(nodes: Sequence[Node], states: Mapping[str, State[Any]], *, benchmark: str) -> None:
    """Show the tables on the flow run's page, with what is missing from them, and the picture."""
    folders = [out for node in nodes if node.partial_ok for out in node.outputs]
    tables = [
        path.read_text(encoding="utf-8")
        for folder in folders
        for path in sorted(folder.glob("*.md"))
    ]
    missing = [f"- `{name}`: {state.name}" for name, state in states.items() if not _ok(state)]
    if missing:
        tables.append("**Without these:**\n\n" + "\n".join(missing))
    show_tables(tables, benchmark)
    for folder in folders:
        if (picture := folder / PICTURE).exists():
            show_picture(picture, benchmark, "Photos, truth, labels and predictions (val images)")


def _raise_if_any_failed(states: Mapping[str, State[Any]]) -> None:
    failed = [name for name, state in states.items() if state.is_failed() or state.is_crashed()]
    held = [name for name, state in states.items() if not _ok(state) and name not in failed]
    if failed or held:
        because = f"; not run because of them: {', '.join(held)}" if held else ""
        raise BenchmarkFailedError(
            f"{len(failed)} of {len(states)} stage instances failed: {', '.join(failed)}{because}"
        )


def _ok(state: State[Any]) -> bool:
    return state.is_completed()


def main(arguments: Sequence[str]) -> int:
    """Run one benchmark without a worker and return the exit code."""
    try:
        check_server()
        full_benchmark(arguments[0] if arguments else ".", spread="spread" in arguments[1:])
    except ZsplError as error:
        return _say(str(error), USER_ERROR)
    except BenchmarkFailedError as error:
        return _say(str(error), FAILED)
    except KeyboardInterrupt:
        return _say("stopped; finished work stays, the same command continues", STOPPED_BY_USER)
    return 0


def check_server() -> None:
    """Refuse to wait for a server that is named and does not answer.

    Raises:
        SettingsError: if PREFECT_API_URL, or the prefect.toml of zspl up, names one.
    """
    url = PREFECT_API_URL.value()
    if url and not answers(f"{url}/health"):
        raise SettingsError(
            f"{url}: no Prefect server answers; zspl up starts it, zspl down forgets it"
        )


def _say(message: str, code: int) -> int:
    sys.stderr.write(f"zspl: {message}\n")
    return code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
