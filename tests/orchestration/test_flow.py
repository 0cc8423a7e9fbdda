"""The flow runs DVC's graph: what is current is Cached, and a failed cell stays alone."""

import pytest

pytestmark = pytest.mark.orchestration

prefect = pytest.importorskip("prefect")


@pytest.fixture(scope="module")
def harness():
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


def run_flow(folder):
    """Return the flow's final state and the states of its tasks by name."""
    from prefect.client.orchestration import get_client

    from flows.full_benchmark import full_benchmark

    state = full_benchmark(folder=str(folder), return_state=True)
    with get_client(sync_client=True) as client:
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

        only = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
        runs = client.read_task_runs(flow_run_filter=only)
    return state, {run.name: run.state_name for run in runs}


def test_flow_runs_the_graph_and_shows_it_cached_the_second_time(harness, project):
    first, _ = run_flow(project)
    second, names = run_flow(project)

    assert first.is_completed()
    assert second.is_completed()
    assert (project / "out/tables/methods.md").read_text() == "a\nb\n"
    assert len(names) == 6
    assert set(names.values()) == {"Cached"}


def test_a_failed_cell_stops_its_own_downstream_only_and_is_named(harness, project):
    run_flow(project)
    (project / "source").write_text("a=broken\n")

    state, names = run_flow(project)

    assert state.is_failed()
    assert "train@a" in state.message
    assert "evaluate@a" in state.message
    assert "train@b" not in state.message
    assert names["train@a"] == "Failed"
    assert names["evaluate@a"] == "NotReady"
    assert names["evaluate@b"] == "Completed"
    assert names["tabulate"] == "Completed"
    assert (project / "out/tables/methods.md").read_text() == "b\n"
