"""Every benchmark folder is valid, loads in DVC and has the cells that its table says."""

from collections import Counter
from functools import cache
from pathlib import Path

import pytest
import yaml

from tasks import dag
from zspl.settings import Settings

pytestmark = pytest.mark.filterwarnings("default")

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.name for path in (ROOT / "benchmarks").iterdir() if path.is_dir())
# Cells that read no pseudo labels, and cells that do: methods x networks x splits x seeds.
CELLS = {
    "pascal": (8 * 1 * 5 * 1, 2 * 1 * 5 * 1),
    "pascal_backbones": (2 * 3 * 1 * 1, 1 * 3 * 1 * 1),
    "pascal_smoothing": (0, 2 * 1 * 1 * 1),
    "coco": (8 * 1 * 4 * 1, 2 * 1 * 4 * 1),
}
SHARED_SECTIONS = (
    "seed", "threads", "paths", "prepare", "propose", "embed", "embed_segments", "label",
    "evaluate", "tabulate",
)  # fmt: skip


@cache
def stages():
    """Return how many instances of each stage DVC finds, by benchmark."""
    from dvc.repo import Repo

    with Repo(str(ROOT)) as repo:
        found = [(Path(stage.path).parent.name, stage.name) for stage in repo.index.stages]
    return {
        name: Counter(stage.partition("@")[0] for folder, stage in found if folder == name)
        for name in NAMES
    }


def values(name):
    return yaml.safe_load((ROOT / "benchmarks" / name / "params.yaml").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_is_valid_and_dvc_finds_each_of_its_cells_trained_and_scored(name):
    cells = Settings.read(ROOT / "benchmarks" / name / "params.yaml").cells
    each = len(cells.models) * len(cells.splits) * len(cells.seeds)
    with_labels = each * len(cells.label_methods) * len(cells.labels)
    found = stages()[name]
    assert (found["train"], found["train-labels"]) == (each * len(cells.methods), with_labels)
    assert (found["evaluate"], found["evaluate-labels"]) == (
        found["train"],
        found["train-labels"],
    )
    assert found["tabulate"] == 1


@pytest.mark.parametrize("name", sorted(CELLS))
def test_a_published_table_has_its_number_of_cells(name):
    found = stages()[name]
    assert (found["train"], found["train-labels"]) == CELLS[name]


def test_the_graph_of_a_benchmark_without_plain_methods_loads_upstream_first():
    nodes = dag.plan(ROOT / "benchmarks" / "pascal_smoothing")
    place = {node.name: n for n, node in enumerate(nodes)}
    assert "label@sam_gem" in place
    assert all(place[above] < place[node.name] for node in nodes for above in node.upstream)


@pytest.mark.parametrize("name", ["pascal_backbones", "pascal_smoothing"])
def test_a_further_table_of_pascal_differs_in_its_cells_alone_so_that_stages_are_shared(name):
    pascal, other = values("pascal"), values(name)
    for section in SHARED_SECTIONS:
        assert other[section] == pascal[section], section
    own = {"paper_unsmoothed": {}} if name == "pascal_smoothing" else {}
    assert other["train"] == pascal["train"] | {"methods": pascal["train"]["methods"] | own}


def test_the_deployments_name_the_benchmark_folders():
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    folders = {
        d["name"]: d.get("parameters", {}).get("folder")
        for d in deployments
        if "full_benchmark" in d["entrypoint"]
    }
    for name in NAMES:
        assert folders.get(name) == f"benchmarks/{name}"
