"""DVC's graph as plain data. Only this module and tasks.remote import dvc."""

import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx as nx
from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo
from dvc.utils.strictyaml import YAMLSyntaxError, YAMLValidationError

from zspl.errors import SettingsError

CHECK = "check"
"""The stage that reads the settings; its output is the same whenever it succeeds."""
LOCK = "dvc.lock"
_SECONDS_BETWEEN_READS = (0.5, 2.0, 0.0)


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

    A dvc.lock that a kill cut off is set aside as dvc.lock.broken: what it said also stands in
    DVC's run cache, from which every finished instance comes back without being run.

    Raises:
        SettingsError: if DVC cannot read the graph.
    """
    pipeline = folder.resolve() / "dvc.yaml"
    if not pipeline.exists():
        raise SettingsError(f"{folder}: has no dvc.yaml; a benchmark is a folder with one")
    for seconds in _SECONDS_BETWEEN_READS:
        try:
            with Repo(str(pipeline.parent)) as repo:
                return _nodes(repo, pipeline)
        except (YAMLSyntaxError, YAMLValidationError) as error:
            if Path(str(error.path)).name != LOCK:
                raise SettingsError(f"{pipeline}: {' '.join(str(error).split())}") from error
            # Another run may just be writing it.
            time.sleep(seconds)
        except DvcException as error:
            raise SettingsError(f"{pipeline}: {' '.join(str(error).split())}") from error
    lock = pipeline.with_name(LOCK)
    broken = lock.with_name(f"{LOCK}.broken")
    lock.replace(broken)
    sys.stderr.write(f"zspl: {lock} was cut off by a kill; it is now {broken.name}\n")
    return plan(folder)


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
            and all(nodes[name].up_to_date for name in upstream if name != CHECK),
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
