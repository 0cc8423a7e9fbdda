"""Which run a stage instance belongs to, what the run is called, and what it is found by."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zspl.io.layout import Cell, Layout
from zspl.settings import Settings

Facts = dict[str, str | int | float | bool]

_CELL_STAGES = ("train", "evaluate")


@dataclass(frozen=True, kw_only=True)
class Identity:
    """One stage instance as MLflow is to see it.

    Attributes:
        role: `cell` for a run of the benchmark's experiment, `benchmark` for the parent of those,
            `stage` for a run of the experiment `<benchmark>-stages`.
        cell: Of a cell's stage.
    """

    role: str
    benchmark: str
    stage: str
    name: str
    cell: Cell | None
    tags: Mapping[str, str]

    def header(self, made_under: str | None) -> dict[str, Any]:
        """Return the first line of the journal.

        Args:
            made_under: The fingerprint under which a training can be continued, or None.
        """
        extra = {} if made_under is None else {"zspl.made_under": made_under}
        return {
            "role": self.role,
            "benchmark": self.benchmark,
            "stage": self.stage,
            "name": self.name,
            "tags": {**self.tags, **extra},
        }


def identify(stage: str, settings: Settings, instance: Mapping[str, str]) -> Identity:
    """Return the identity of an instance: `train` and `evaluate` of one cell share it."""
    tags = {"zspl.stage": stage, "dvc.stage": os.environ.get("DVC_STAGE", "none")}
    role, name, cell = "stage", " ".join([stage, *instance.values()]), None
    if stage == "tabulate":
        role, name = "benchmark", settings.benchmark
    if stage in _CELL_STAGES and "method" in instance:
        cell = _cell(instance)
        role, name = "cell", f"{cell.name} {cell.model} {cell.split} seed {cell.seed}"
        tags["zspl.cell"] = cell.path.as_posix()
    if stage == "evaluate" and cell is not None:
        # MLflow changes no param of a run: this tag is of its latest scores.
        tags["zspl.evaluate"] = settings.evaluate.model_dump_json()
    return Identity(
        role=role, benchmark=settings.benchmark, stage=stage, name=name, cell=cell, tags=tags
    )


def made_under(settings: Settings, identity: Identity) -> str | None:
    """Return the fingerprint of the training that is under way, or None.

    The stage's own stamp decides what is the same training: one that it continues continues its
    run, and one that it starts anew gets a new run.
    """
    if identity.cell is None or identity.stage != "train":
        return None
    stamp = Layout(settings.paths.out).work("train", *identity.cell.path.parts)
    try:
        return (stamp / "fingerprint.txt").read_text(encoding="utf-8").strip()
    except OSError:
        return None


def facts(settings: Settings, identity: Identity, instance: Mapping[str, str]) -> Facts:
    """Return the params that the compare view shows."""
    cell = identity.cell
    found: Facts = {"dataset": settings.prepare.dataset.name}
    if identity.role == "benchmark":
        return found
    if cell is None:
        return {**found, **instance}
    model = settings.train.models.get(cell.model)
    found |= {
        "method": cell.method,
        "labels": cell.labels or "none",
        "split": cell.split,
        "seed": cell.seed,
        "model": cell.model,
        "labeled_images": _labeled_images(settings, cell),
    }
    if model is not None:
        found |= {"backbone": model.backbone.name, "head": model.head.name}
    recipe = settings.train.model_dump(mode="json", exclude={"methods", "models"})
    method = settings.train.methods.get(cell.method, {})
    found |= {f"train.{key}": str(value) for key, value in recipe.items()}
    return found | {f"{cell.method}.{key}": str(value) for key, value in method.items()}


def _cell(instance: Mapping[str, str]) -> Cell:
    return Cell(
        method=instance["method"],
        labels=instance.get("labels"),
        model=instance.get("model", "?"),
        split=instance.get("split", "?"),
        seed=int(instance.get("seed", 0)),
    )


def _labeled_images(settings: Settings, cell: Cell) -> int:
    split = Layout(settings.paths.out).split(cell.split)
    files = [split / "labeled.txt", split / "holdout.txt"]
    return sum(len(file.read_text().split()) for file in files if file.exists())
