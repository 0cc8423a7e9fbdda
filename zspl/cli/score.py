"""zspl score: mIoU of a folder of label maps."""

import argparse

from zspl.cli._pairs import values
from zspl.datasets import Dataset
from zspl.evaluation.audit import claims_json
from zspl.evaluation.claims import ClaimMetrics
from zspl.evaluation.folders import score_folders
from zspl.evaluation.report import COLUMNS, per_class_rows, write_csv
from zspl.io.splits import read_ids
from zspl.sections import build_plugin


def run(arguments: argparse.Namespace) -> int:
    """Score the folders and print one line per class and the mean."""
    dataset: Dataset = build_plugin("zspl.datasets", arguments.dataset, values(arguments.changes))
    ids = None if arguments.ids is None else read_ids(arguments.ids)
    found = score_folders(arguments.predictions, arguments.labels, table=dataset.table, ids=ids)
    scores = claims_json(found, dataset.table.names)
    if arguments.csv is not None:
        write_csv(arguments.csv, COLUMNS, per_class_rows(scores))
    width = max(map(len, dataset.table.names))
    print(f"{'class':{width}}  {'IoU %':>7}  {'precision %':>11}  {'recall %':>8}")
    for name in dataset.table.names:
        iou, precision, recall = (_percent(scores[key][name]) for key in COLUMNS[1:])
        print(f"{name:{width}}  {iou:>7}  {precision:>11}  {recall:>8}")
    print("\n".join(_summary(found)))
    return 0


def _summary(found: ClaimMetrics) -> list[str]:
    lines = [
        f"mIoU {100 * found.miou:.2f} %",
        f"pixel accuracy {100 * found.pixel_accuracy:.2f} %",
    ]
    if found.miou_absent_zero != found.miou:
        share = f"{100 * found.miou_absent_zero:.2f} %"
        lines.append(f"mIoU with absent classes counted as 0 (as UniMatch does) {share}")
    if found.coverage < 1:
        lines.append(
            f"{100 * (1 - found.coverage):.2f} % of pixels have no label and count as misses; "
            f"mIoU without them {100 * found.miou_claimed:.2f} %"
        )
    return lines


def _percent(share: float | None) -> str:
    return "—" if share is None else f"{100 * share:.2f}"
