"""DVC's graph as plain data. Only this module and tasks.remote import dvc."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx as nx
from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo

from zspl.errors import SettingsError


@dataclass(frozen=True, kw_only=True)
class Node:
    """One stage instance, such as `train@unimatch-small-labeled_20-0`."""

    name: str
    upstream: tuple[str, ...]
    """The instances whose outputs this one reads."""
    resource: str | None
    """`gpu` for an instance that wants one."""
    partial_ok: bool
    """Whether it may run when an upstream instance failed."""
    up_to_date: bool
    """Whether DVC has nothing to do for it and for all it depends on."""
    outputs: tuple[Path, ...]

    @property
    def stage(self) -> str:
        """The name before the @."""
        return self.name.partition("@")[0]


def plan(folder: Path) -> list[Node]:
    """Return the stage instances of `folder`/dvc.yaml, upstream first.

    Raises:
        SettingsError: if DVC cannot read the graph.
    """
    pipeline = folder.resolve() / "dvc.yaml"
    if not pipeline.exists():
        raise SettingsError(f"{folder}: has no dvc.yaml; a benchmark is a folder with one")
    try:
        with Repo(str(pipeline.parent)) as repo:
            return _nodes(repo, pipeline)
    except DvcException as error:
        raise SettingsError(f"{pipeline}: {' '.join(str(error).split())}") from error


def _nodes(repo: Repo, pipeline: Path) -> list[Node]:
    stale = _stale(repo, pipeline)
    nodes: dict[str, Node] = {}
    # DVC's edges point from a stage to what it depends on; sorting needs the other direction.
    graph = repo.index.graph.reverse()
    for stage in nx.lexicographical_topological_sort(graph, key=lambda s: s.addressing):
        if Path(stage.path) != pipeline:
            continue
        upstream = tuple(sorted(above.name for above in graph.predecessors(stage)))
        meta: Mapping[str, Any] = stage.meta or {}
        nodes[stage.name] = Node(
            name=stage.name,
            upstream=upstream,
            resource=meta.get("resource"),
            partial_ok=bool(meta.get("partial_ok", False)),
            up_to_date=stale is not None
            and stage.addressing not in stale
            and all(nodes[name].up_to_date for name in upstream),
            outputs=tuple(Path(out.fs_path) for out in stage.outs),
        )
    return list(nodes.values())


def _stale(repo: Repo, pipeline: Path) -> set[str] | None:
    """Return the instances that changed, or None while another run holds what DVC must read."""
    try:
        return set(repo.status(targets=[str(pipeline)]))
    except LockError:
        return None


def remove(output: Path) -> None:
    """Remove one output from the workspace; DVC's cache keeps what it holds."""
    if output.is_dir() and not output.is_symlink():
        shutil.rmtree(output)
    else:
        output.unlink(missing_ok=True)
