"""Finding a trained network from what a user names: the folder of a cell, or a file in it."""

import contextlib
from pathlib import Path

from zspl.errors import DataError
from zspl.io.classes import ClassTable
from zspl.io.layout import Cell, Layout
from zspl.io.model_card import FILE, ModelCard
from zspl.settings import Settings
from zspl.stages._cell import card_of, check_cell

LAST = "last.safetensors"
_DEPTH = 4
_SHOWN = 3


def find(named: Path, params: Path | None) -> tuple[Path, ModelCard]:
    """Return the checkpoint and what it is of.

    Args:
        named: The folder of a cell, whose last.safetensors is taken, or a file in one.
        params: For a cell without model.json: the params.yaml it was trained under.

    Raises:
        DataError: if there is no checkpoint, or nothing tells what it is of.
        SettingsError: if `params` does not hold the cell.
    """
    path = named / LAST if named.is_dir() else named
    if not path.is_file():
        raise DataError(_nothing(named))
    if params is not None:
        return path, _from_params(path, params)
    return path, ModelCard.read(path.parent / FILE)


def _nothing(named: Path) -> str:
    if not named.is_dir():
        return f"{named}: no such file or folder; pass the folder of a trained cell"
    here = sorted(path.parent for path in named.rglob(LAST))
    if not here:
        return (
            f"{named}: holds no {LAST}; pass the folder of a trained cell, such as "
            "artifacts/cells/METHOD/MODEL/SPLIT/seed-0"
        )
    shown = ", ".join(map(str, here[:_SHOWN]))
    more = f" and {len(here) - _SHOWN} more" if len(here) > _SHOWN else ""
    return f"{named}: holds several trained cells; pass one of {shown}{more}"


def _from_params(path: Path, params: Path) -> ModelCard:
    settings = Settings.read(params)
    cell = _cell(path, settings)
    check_cell("--params", settings, cell)
    table = ClassTable.read(params.parent / Layout(settings.paths.out).classes)
    return card_of(settings, cell, table)


def _cell(path: Path, settings: Settings) -> Cell:
    """Tell the cell from the names of the folders above a checkpoint."""
    parts = path.resolve().parent.parts[-_DEPTH:]
    if len(parts) == _DEPTH:
        name, model, split, seed = parts
        known = [m for m in settings.train.methods if name == m or name.startswith(f"{m}-")]
        with contextlib.suppress(ValueError):
            method = max(known, key=len)
            labels = name.removeprefix(method).removeprefix("-") or None
            number = int(seed.removeprefix("seed-"))
            return Cell(method=method, labels=labels, model=model, split=split, seed=number)
    raise DataError(
        f"{path}: its folders do not tell the cell; expected .../METHOD/MODEL/SPLIT/seed-N with a "
        "method of train.methods in --params"
    )
