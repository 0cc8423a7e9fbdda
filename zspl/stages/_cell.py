"""What the stages of a cell share: that there is such a cell, and how it is told to an observer."""

from dataclasses import asdict

from zspl.data.loading import MEAN, STD
from zspl.errors import SettingsError, suggestion
from zspl.io.classes import ClassTable
from zspl.io.layout import Cell
from zspl.io.model_card import ModelCard
from zspl.methods import needs as needs_of
from zspl.settings import Settings


def check_cell(stage: str, settings: Settings, cell: Cell) -> None:
    """Check that params.yaml holds all that names a cell, before anything is read.

    Raises:
        SettingsError: if a part is unknown, or pseudo labels are named for a method that reads
            none, or none for one that does.
    """
    known = (
        ("method", cell.method, settings.train.methods, "train.methods"),
        ("model", cell.model, settings.train.models, "train.models"),
        ("split", cell.split, settings.prepare.splits, "prepare.splits"),
    )
    for what, name, among, where in known:
        if name not in among:
            raise SettingsError(
                f"{stage}: {what}={name} is not in {where}. {suggestion(name, among)}"
            )
    variants = settings.label.variants
    reads_labels = "labels" in needs_of(cell.method)
    if reads_labels != (cell.labels is not None):
        wanted = "one of " + ", ".join(variants) if reads_labels else "no labels"
        raise SettingsError(
            f"{stage}: method {cell.method} reads {wanted}, got labels={cell.labels}"
        )
    if cell.labels is not None and cell.labels not in variants:
        raise SettingsError(
            f"{stage}: labels={cell.labels} is not in label.variants. "
            f"{suggestion(cell.labels, variants)}"
        )


def facts_of(settings: Settings, cell: Cell) -> dict[str, str | int | float | bool]:
    """Return what identifies a cell, for an observer."""
    network = settings.train.models[cell.model]
    return {
        "dataset": settings.prepare.dataset.name,
        "method": cell.method,
        "labels": cell.labels or "none",
        "model": cell.model,
        "backbone": network.backbone.name,
        "head": network.head.name,
        "split": cell.split,
        "seed": cell.seed,
    }


def card_of(settings: Settings, cell: Cell, table: ClassTable) -> ModelCard:
    """Return what a cell's checkpoints are of."""
    recipe = settings.train
    network = recipe.models[cell.model]
    return ModelCard(
        backbone=network.backbone.model_dump(mode="json"),
        head=network.head.model_dump(mode="json"),
        method={"name": cell.method, **recipe.methods[cell.method]},
        crop_size=recipe.crop_size,
        window=settings.evaluate.window,
        classes=table.names,
        background=table.has_background,
        mean=MEAN,
        std=STD,
        trained=asdict(cell),
    )
