"""The two grids of pictures: pseudo labels (the paper's Fig. 3) and predictions (Fig. 4)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from zspl.evaluation import PREDICTIONS, SHOWN_IMAGES
from zspl.evaluation.audit import label_file
from zspl.evaluation.checkpoints import sample_ids
from zspl.evaluation.results import Results, configured_cells
from zspl.io.classes import ClassTable, load_label
from zspl.io.images import read_image, read_label
from zspl.io.layout import Layout
from zspl.io.records import read_records
from zspl.io.splits import read_split
from zspl.records import ImageRecord
from zspl.report.figures import Figure
from zspl.report.pictures import Row, draw_grid, image_score
from zspl.report.roles import shown_rows, smallest_split
from zspl.settings import Settings

_CHOICE = (
    "The images are {count} of {total}, evenly spaced in the list of val ids; no score had a say."
    " Below a map: its own mIoU on that image. Numbers on regions are those of the legend."
)


def labels_grid(settings: Settings, folder: Path) -> Figure | None:
    """Draw the pseudo labels of val images; None where val was not annotated."""
    layout = Layout(settings.paths.out)
    folders = {n: layout.label_score(n) / PREDICTIONS for n in settings.label.variants}
    return _grid(settings, folder / "pseudo_labels", folders, what="Pseudo labels of val images.")


def predictions_grid(settings: Settings, results: Results, folder: Path) -> Figure | None:
    """Draw the predictions of the methods at the smallest split, its first model and seed."""
    layout, cells = Layout(settings.paths.out), settings.cells
    split = smallest_split(settings, results)
    rows = shown_rows(settings, list(dict.fromkeys(results.cells["row"])))
    folders = {
        cell.name: layout.cell_score(cell) / PREDICTIONS / settings.tabulate.checkpoint
        for cell in configured_cells(settings)
        if cell.name in rows
        and (cell.model, cell.split, cell.seed) == (cells.models[0], split, cells.seeds[0])
    }
    labels = results.labeled_images[split]
    what = (
        f"Predictions for val images after training with {labels} labels ({split}), "
        f"{cells.models[0]}, seed {cells.seeds[0]}, {settings.tabulate.checkpoint} checkpoint."
    )
    return _grid(settings, folder / "qualitative", folders, what=what)


def _grid(
    settings: Settings, path: Path, folders: Mapping[str, Path], *, what: str
) -> Figure | None:
    layout = Layout(settings.paths.out)
    there = {name: place for name, place in folders.items() if any(place.glob("*.png"))}
    if not there:
        return None
    val = read_split(layout.split(settings.cells.splits[0])).val
    records, table = read_records(layout.records), ClassTable.read(layout.classes)
    ids = sample_ids(val, SHOWN_IMAGES)
    rows = [_row(records[image_id], table, list(there.values())) for image_id in ids]
    draw_grid(path, list(there), rows, class_names=table.names)
    return Figure(
        path=path,
        caption=f"{what} {_CHOICE.format(count=len(ids), total=len(val))}",
        alt=f"{what} A row per image: photo, truth, {', '.join(there)}. mIoU per image: "
        + _said(list(there), rows, table.num_classes),
        photos=True,
    )


def _said(names: Sequence[str], rows: Sequence[Row], num_classes: int) -> str:
    """Return the scores below the maps in words."""
    parts = []
    for row in rows:
        scores = (
            f"{name} {image_score(found, row.truth, num_classes=num_classes):.0f} %"
            for name, found in zip(names, row.maps, strict=True)
            if found is not None
        )
        parts.append(f"{row.image_id}: {', '.join(scores)}")
    return "; ".join(parts) + "."


def _row(record: ImageRecord, table: ClassTable, folders: Sequence[Path]) -> Row:
    image = read_image(record.image_path)
    files = [label_file(folder, record.image_id) for folder in folders]
    maps = [read_label(file, size=image.size) if file.exists() else None for file in files]
    truth = load_label(record, table, image.size)
    return Row(image_id=record.image_id, image=image, truth=truth, maps=maps)
