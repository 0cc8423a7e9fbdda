"""DVC's graph as plain data."""

import subprocess
import sys

import pytest

from tasks import dag
from zspl.errors import SettingsError

pytestmark = pytest.mark.orchestration


def reproduce(project):
    subprocess.run(
        [sys.executable, "-m", "dvc", "repro", "--quiet"], cwd=project, check=True, timeout=120
    )


def names(nodes, *, up_to_date):
    return {node.name for node in nodes if node.up_to_date is up_to_date}


def test_plan_lists_upstream_first_with_meta(project):
    nodes = dag.plan(project)

    order = [node.name for node in nodes]
    by_name = {node.name: node for node in nodes}
    assert all(order.index(u) < order.index(n.name) for n in nodes for u in n.upstream)
    assert by_name["train@a"].resource == "gpu"
    assert by_name["evaluate@a"].upstream == ("train@a",)
    assert by_name["tabulate"].upstream == ("evaluate@a", "evaluate@b")
    assert by_name["tabulate"].partial_ok


def test_a_changed_method_makes_only_its_own_cells_stale(project):
    assert not names(dag.plan(project), up_to_date=True)
    reproduce(project)
    assert not names(dag.plan(project), up_to_date=False)

    (project / "a.py").write_text("true changed")

    stale = names(dag.plan(project), up_to_date=False)
    assert stale == {"train@a", "evaluate@a", "tabulate"}


def test_a_linked_pipeline_in_a_subfolder_is_a_benchmark_of_its_own(project):
    folder = project / "benchmarks" / "small"
    folder.mkdir(parents=True)
    (folder / "dvc.yaml").symlink_to("../../dvc.yaml")
    (folder / "params.yaml").write_text("prepare: {splits: [c]}\n")
    for name in ("source", "c.py"):
        (folder / name).write_text("true c")

    reproduce(folder)

    nodes = dag.plan(folder)
    assert {node.name for node in nodes} == {"prepare", "train@c", "evaluate@c", "tabulate"}
    assert not names(nodes, up_to_date=False)
    assert not names(dag.plan(project), up_to_date=True)


def test_a_folder_without_pipeline_is_refused_in_one_line(tmp_path):
    with pytest.raises(SettingsError, match=r"has no dvc\.yaml"):
        dag.plan(tmp_path)


@pytest.mark.parametrize("left", ["", "schema: '2.0'\nstages:\n  prepare: [", "stages: 3\n"])
def test_a_lock_that_a_kill_cut_off_costs_nothing_but_a_look_into_the_run_cache(
    project, capsys, left
):
    (project / "a.py").write_text("echo run >> a-runs\n")
    reproduce(project)
    (project / "dvc.lock").write_text(left)

    nodes = dag.plan(project)

    assert len(nodes) == 6
    assert "dvc.lock was cut off by a kill" in capsys.readouterr().err
    assert (project / "dvc.lock.broken").read_text() == left
    reproduce(project)
    assert (project / "a-runs").read_text() == "run\n"
    assert not names(dag.plan(project), up_to_date=False)
