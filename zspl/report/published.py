"""Published numbers: which of them has a training of ours beside it, and what differs."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pandas as pd

from zspl.evaluation.results import Results, configured_cells
from zspl.report.formats import ABSENT, Table
from zspl.report.tables import Spread, heading, over_seeds
from zspl.settings import Model, Settings

_OURS = {
    "suponly": "supervised",
    "zeroshotpaperenhanced": "paper",
    "zeroshotpaperenhancedlabelsmoothing": "paper",
    "zeroshotpaperenhancednolabelsmoothing": "paperunsmoothed",
    "st": "stpp",
}
"""Methods that papers call otherwise than our plugins; letters and digits, lower case."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """One of our table cells beside the published number that is nearest to it.

    `published` is mIoU in percent; `differs` names what is known to differ, beyond the schedule.
    """

    row: str
    model: str
    split: str
    ours: Spread
    published: float
    method: str
    backbone: str
    source: str
    differs: str


def pairs(settings: Settings, results: Results, published: pd.DataFrame) -> list[Pair]:
    """Return every (method, model, split) of ours that has a published number.

    Of several published ones a table with all methods of this benchmark comes first, since that is
    the one it reproduces, unless its network is another one; then the first with our network, then
    the first of all.
    """
    reproduced = _reproduced(settings, published)
    plugins = {cell.name: cell.method for cell in configured_cells(settings)}
    checkpoint = settings.tabulate.checkpoint
    found = []
    for (row, model, split), runs in results.cells.groupby(["row", "model", "split"], sort=False):
        plugin = _plain(plugins[str(row)])
        entries = [
            entry
            for entry in published.to_dict("records")
            if entry["split"] == split and _ours(str(entry["method"])) == plugin
        ]
        if not entries:
            continue
        network = settings.train.models[str(model)]
        fitting = [e for e in entries if not e["backbone"] or _same(network, str(e["backbone"]))]
        table = [e for e in fitting if (e["split"], e["source"]) in reproduced]
        same = [e for e in fitting if e["backbone"]]
        entry = next(iter((*table, *same, *entries)))
        found.append(
            Pair(
                row=str(row),
                model=str(model),
                split=str(split),
                ours=over_seeds(runs[checkpoint]),
                published=float(entry["miou"]),
                method=str(entry["method"]),
                backbone=str(entry["backbone"]),
                source=str(entry["source"]),
                differs=_differs(settings, network, str(entry["backbone"])),
            )
        )
    return found


def _reproduced(settings: Settings, published: pd.DataFrame) -> set[tuple[str, str]]:
    """Return each (split, source) that has every method of ours."""
    ours = {_plain(cell.method) for cell in configured_cells(settings)}
    return {
        (str(split), str(source))
        for (split, source), rows in published.groupby(["split", "source"])
        if ours <= {_ours(str(method)) for method in rows["method"]}
    }


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _ours(method: str) -> str:
    plain = _plain(method)
    return _OURS.get(plain, plain)


def network_name(model: Model) -> str:
    """Return the backbone of one of our networks in a few letters, such as `mit b4`."""
    extra = model.backbone.model_extra or {}
    words = (model.backbone.name, *(str(extra[key]) for key in ("size", "variant") if key in extra))
    return " ".join(words)


def _same(network: Model, published: str) -> bool:
    """Whether a published backbone, such as `ResNet-101, crop 321`, is that of our network."""
    name = _plain(published.partition(",")[0])
    # Ours is the ResNet with a stem of three convolutions, which the papers run and do not name.
    ours = re.sub(r"^(resnet\d+)s$", r"\1", _plain(network_name(network)))
    return bool(name) and (ours == name or _plain(network.backbone.name) == name)


def _differs(settings: Settings, network: Model, published: str) -> str:
    crop = re.search(r"crop (\d+)", published)
    name = published.partition(",")[0]
    parts = []
    if not name:
        parts.append("their network is not named")
    elif not _same(network, published):
        parts.append(f"network: {name}, ours {network_name(network)}")
    if crop and int(crop.group(1)) != settings.train.crop_size:
        parts.append(f"crop: {crop.group(1)}, ours {settings.train.crop_size}")
    return "; ".join(parts) or "the same network; no other difference is recorded here"


def differences_table(found: Sequence[Pair], results: Results) -> Table | None:
    """Ours and published in columns of their own, and how they differ; None without a pair."""
    if not found:
        return None
    display: list[dict[str, str]] = []
    numbers: list[dict[str, str | float]] = []
    for pair in found:
        difference = pair.ours.mean - pair.published
        names = {"method": pair.row, "model": pair.model}
        where = {"published as": pair.method, "what differs": pair.differs, "source": pair.source}
        display.append(
            {**names, "labels": str(results.labeled_images[pair.split]), "ours": str(pair.ours)}
            | {
                "published": f"{pair.published:.2f}",
                "ours - published": f"{difference:+.2f}" if pair.ours.n else ABSENT,
            }
            | where
        )
        numbers.append(
            {
                **names,
                "split": pair.split,
                **pair.ours.columns("ours"),
                "published": pair.published,
                "difference": difference,
                **where,
            }
        )
    return Table(
        name="differences",
        title="Ours beside published, mIoU %",
        display=pd.DataFrame(display),
        numbers=pd.DataFrame(numbers),
        notes=(
            "Ours: mean ± std (seeds). Published: as printed by the source, in general one run "
            "and the best epoch on val; schedule, augmentation and seeds may differ, too.",
        ),
        headings=3,
    )


def published_table(published: pd.DataFrame, results: Results) -> Table | None:
    """Every published number on our splits, one row per method, backbone and source."""
    splits = results.labeled_images
    rows = _published_rows(published, splits)
    if not rows:
        return None
    numbers = pd.DataFrame(rows)
    order = ["method", "backbone", *(s for s in splits if s in numbers), "published by"]
    numbers = numbers[order]
    display = numbers.copy().astype(object)
    for split in splits:
        if split in numbers:
            display[split] = [ABSENT if pd.isna(v) else f"{v:.2f}" for v in numbers[split]]
    display = display.rename(columns={split: heading(split, results) for split in splits})
    return Table(
        name="published",
        title="The literature, mIoU %",
        display=display,
        numbers=numbers.rename(columns={split: f"published {split}" for split in splits}),
        notes=(
            "As printed by the source named, under its own network, crop and schedule; most are "
            "the best epoch on val. None of these numbers is ours.",
        ),
        headings=2,
    )


def _published_rows(
    published: pd.DataFrame, splits: Collection[str]
) -> list[dict[str, str | float]]:
    rows: dict[tuple[str, str, str], dict[str, float]] = {}
    for entry in published.to_dict("records"):
        key = (str(entry["method"]), str(entry["backbone"]), str(entry["source"]))
        if entry["split"] in splits:
            rows.setdefault(key, {})[str(entry["split"])] = float(entry["miou"])
    return [
        {"method": method, "backbone": backbone or ABSENT, **numbers, "published by": source}
        for (method, backbone, source), numbers in rows.items()
    ]
