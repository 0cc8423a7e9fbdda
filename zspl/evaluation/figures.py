"""The figures of the report, from scores and label maps on disk."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zspl.evaluation import METRICS, PREDICTIONS, SHOWN_IMAGES
from zspl.evaluation.audit import label_file
from zspl.evaluation.charts import Bins, draw_lines, draw_reliability
from zspl.evaluation.checkpoints import sample_ids
from zspl.evaluation.results import Results, configured_cells, read_scores
from zspl.evaluation.tables import over_seeds
from zspl.io.classes import ClassTable, load_label
from zspl.io.images import read_image, read_label
from zspl.io.layout import Layout
from zspl.io.records import read_records
from zspl.io.splits import read_split
from zspl.records import ImageRecord
from zspl.settings import Settings
from zspl.viz import GridRow, grid, write_png

Figure = tuple[str, Path]

LEAST_SHARE = 0.005
"""Reliability bins with a smaller share of the pixels are not drawn."""


def draw_figures(settings: Settings, results: Results, folder: Path) -> list[Figure]:
    """Draw every figure there is data for and return captions and files.

    Raises:
        DataError: if a picture that a score file goes with is unreadable.
    """
    checkpoint = settings.tabulate.checkpoint
    figures: list[Figure] = []
    if results.cells[checkpoint].notna().any():
        path = folder / "miou_vs_labels.png"
        draw_lines(path, line_points(results, checkpoint), ylabel="mIoU on val, %")
        figures.append((f"mIoU against labeled images ({checkpoint} checkpoint)", path))
    panels = _reliability(settings)
    if panels:
        path = folder / "reliability.png"
        draw_reliability(path, panels)
        figures.append(
            (
                "Can the pseudo labels' confidence be believed? On the diagonal, yes. Before and "
                "after calibration: cross-validated over the labeled images. A bigger marker holds "
                f"more pixels; bins with less than {LEAST_SHARE:.1%} of them are left out.",
                path,
            )
        )
    path = folder / "qualitative.png"
    caption = _draw_qualitative(settings, path)
    if caption:
        figures.append((caption, path))
    return figures


def line_points(results: Results, checkpoint: str) -> dict[str, list[tuple[int, float, float]]]:
    """Return (labeled images, mean, std) per method, and per model when there are several."""
    several = results.cells["model"].nunique() > 1
    lines: dict[str, list[tuple[int, float, float]]] = {}
    for (row, model, split), runs in results.cells.groupby(["row", "model", "split"], sort=False):
        spread = over_seeds(runs[checkpoint])
        point = (results.labeled_images[str(split)], spread.mean, spread.std)
        lines.setdefault(f"{row}, {model}" if several else str(row), []).append(point)
    return lines


def _reliability(settings: Settings) -> dict[str, dict[str, Bins]]:
    """Return the bins of each variant, before and after calibration where there was one."""
    layout = Layout(settings.paths.out)
    found = {}
    for variant in settings.label.variants:
        path = layout.label_score(variant) / METRICS
        if path.exists():
            scores = read_scores(path)
            promised = scores.get("reliability")
            if promised is None:
                groups = {"as given": scores["audit"]}
            elif promised["before"] == promised["after"]:
                groups = {"before (raw)": promised["before"]}
            else:
                groups = {"before (raw)": promised["before"], "after": promised["after"]}
            found[variant] = {name: _bins(group) for name, group in groups.items()}
    return found


def _bins(group: Mapping[str, Any]) -> Bins:
    """Return the bins that hold enough pixels for their accuracy to mean something."""
    total = sum(entry["pixels"] for entry in group["reliability"])
    filled = [e for e in group["reliability"] if e["pixels"] > LEAST_SHARE * total]
    return [(e["confidence"], e["accuracy"], e["pixels"] / total) for e in filled]


def _draw_qualitative(settings: Settings, path: Path) -> str | None:
    """Draw photo, truth, pseudo labels and predictions; None when there is nothing to compare."""
    layout = Layout(settings.paths.out)
    first = settings.cells
    split = read_split(layout.split(first.splits[0]))
    folders = _map_folders(settings, layout)
    if not folders:
        return None
    records = read_records(layout.records)
    table = ClassTable.read(layout.classes)
    rows = [
        _row(records[image_id], table, folders=list(folders.values()))
        for image_id in sample_ids(split.val, SHOWN_IMAGES)
    ]
    write_png(path, grid(("truth", *folders), rows, class_names=table.names))
    return (
        f"Val images; methods: {first.models[0]}, {split.name}, seed {first.seeds[0]}, "
        f"{settings.tabulate.checkpoint} checkpoint. Grey: no label."
    )


def _map_folders(settings: Settings, layout: Layout) -> Mapping[str, Path]:
    """Return the folders with label maps of val images, by the heading of their column."""
    cells, checkpoint = settings.cells, settings.tabulate.checkpoint
    folders = {n: layout.label_score(n) / PREDICTIONS for n in settings.label.variants}
    for cell in configured_cells(settings):
        if (cell.model, cell.split, cell.seed) == (
            cells.models[0],
            cells.splits[0],
            cells.seeds[0],
        ):
            folders[cell.name] = layout.cell_score(cell) / PREDICTIONS / checkpoint
    return {name: folder for name, folder in folders.items() if any(folder.glob("*.png"))}


def _row(record: ImageRecord, table: ClassTable, *, folders: Sequence[Path]) -> GridRow:
    image = read_image(record.image_path)
    files = [label_file(folder, record.image_id) for folder in folders]
    maps = [read_label(file, size=image.size) if file.exists() else None for file in files]
    return GridRow(image=image, maps=(load_label(record, table, image.size), *maps))
