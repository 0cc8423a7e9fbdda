"""zspl annotate: pseudo labels for a folder of photos, from class names alone."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from zspl.cli._pairs import values
from zspl.errors import DataError, SettingsError, suggestion
from zspl.evaluation.audit import confidence_file, label_file
from zspl.evaluation.checkpoints import sample_ids
from zspl.features import Encoder
from zspl.io import atomic
from zspl.io.classes import ClassTable
from zspl.io.images import read_image, read_label, write_confidence, write_label
from zspl.labeling import Labeler, LabelInputs
from zspl.observer import progress
from zspl.proposals import Proposer
from zspl.records import PseudoLabel, TextEmbeddings
from zspl.settings import build_plugin, plugin_settings
from zspl.viz import GridRow, grid, write_png

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
SHOWN = 12
SKIPPED = 1
PARTS = {
    "proposals": "zspl.proposals",
    "features": "zspl.features",
    "labeler": "zspl.labeling",
}


@dataclass(frozen=True, kw_only=True)
class Annotator:
    """Proposals, features and a labeling rule, put together."""

    table: ClassTable
    proposer: Proposer | None
    encoder: Encoder
    text: TextEmbeddings
    labeler: Labeler
    threshold: float

    def __call__(self, name: str, image: Image.Image) -> PseudoLabel:
        """Return the pseudo label of one photo."""
        inputs = LabelInputs(
            image_id=name,
            size=(image.height, image.width),
            table=self.table,
            proposals=None if self.proposer is None else self.proposer.propose(image),
            features=self.encoder.dense(image),
            text=self.text,
        )
        return self.labeler.assign(self.labeler.score(inputs), self.threshold)


STAMP = "annotate.json"
SHEET = "contact_sheet"


def run(arguments: argparse.Namespace) -> int:
    """Annotate every photo that is not done yet, draw the sheet, report what was skipped."""
    files = _images(arguments.images)
    table = _classes(arguments.classes)
    choices = _choices(arguments)
    out: Path = arguments.out
    made_by = {"classes": table.names, "threshold": arguments.threshold, **choices}
    _check_folder(out, made_by)
    waiting = {name: path for name, path in files.items() if not _done(out, name)}
    annotator = _build(choices, table, arguments.threshold) if waiting else None
    atomic.write_text(out / STAMP, _stamp(made_by))
    table.write(out / "classes.json")
    skipped = _annotate(out, waiting, annotator) if annotator else []
    done = {name: path for name, path in files.items() if _done(out, name)}
    if done:
        _contact_sheet(out, done, table)
    print(f"{len(done)} of {len(files)} images annotated in {out}")
    for line in skipped:
        print(f"zspl: skipped {line}", file=sys.stderr)
    return SKIPPED if skipped else 0


def _annotate(out: Path, files: Mapping[str, Path], annotator: Annotator) -> list[str]:
    skipped = []
    for name, path in progress(files.items(), what="annotate", total=len(files)):
        try:
            image = read_image(path)
        except DataError as error:
            skipped.append(str(error))
            continue
        made = annotator(name, image)
        write_confidence(confidence_file(out, name), made.confidence.numpy())
        write_label(label_file(out, name), made.label.numpy())
    return skipped


def _images(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; pass --images with a folder of photos")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES:
            continue
        if path.stem in files:
            raise DataError(f"{path}: {files[path.stem].name} has the same name; rename one")
        if path.stem == SHEET or path.stem.endswith(".confidence"):
            raise DataError(f"{path}: the name is taken by a file of the output; rename it")
        files[path.stem] = path
    if not files:
        raise DataError(f"{folder}: no image in it; expected {', '.join(sorted(SUFFIXES))}")
    return files


def _classes(text: str) -> ClassTable:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    try:
        return ClassTable.plain(("background", *names), prompts=names)
    except ValueError as error:
        raise SettingsError(f"--classes {text!r}: {error}") from error


def _choices(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return plugin and settings of each part, checked before any model is loaded."""
    bare = arguments.proposals == "none"
    labeler = arguments.labeler or ("pixel_argmax" if bare else "region_pool")
    chosen: dict[str, dict[str, Any]] = {
        "proposals": {"name": arguments.proposals, "settings": {}},
        "features": {"name": arguments.features, "settings": {}},
        "labeler": {"name": labeler, "settings": {}},
    }
    for key, value in values(arguments.changes).items():
        part, _, setting = key.partition(".")
        if part not in chosen or not setting:
            raise SettingsError(f"--set {key}: {suggestion(part, chosen)} Write part.setting=value")
        chosen[part]["settings"][setting] = value
    for part, choice in chosen.items():
        if not (part == "proposals" and bare):
            plugin_settings(PARTS[part], choice["name"], choice["settings"])
    one_class = "," not in arguments.classes.strip(",")
    if one_class and chosen["labeler"]["settings"].get("score") != "cosine":
        raise SettingsError(
            "--classes names one class, whose probability is always 1; name others that may be "
            "seen, too, or pass --set labeler.score=cosine with a --threshold such as 0.25"
        )
    return chosen


def _build(choices: Mapping[str, Any], table: ClassTable, threshold: float) -> Annotator:
    def part(name: str) -> Any:  # noqa: ANN401 - whatever the plugin builds
        return build_plugin(PARTS[name], choices[name]["name"], choices[name]["settings"])

    labeler: Labeler = part("labeler")
    bare = choices["proposals"]["name"] == "none"
    if bare and "proposals" in labeler.needs:
        raise SettingsError(
            f"the labeler {choices['labeler']['name']} needs segments; pass --proposals sam or "
            "superpixels, or --labeler pixel_argmax"
        )
    encoder: Encoder = part("features")
    return Annotator(
        table=table,
        proposer=part("proposals") if "proposals" in labeler.needs else None,
        encoder=encoder,
        text=encoder.text(table.texts),
        labeler=labeler,
        threshold=threshold,
    )


def _stamp(made_by: Mapping[str, Any]) -> str:
    return json.dumps(made_by, indent=2, sort_keys=True) + "\n"


def _check_folder(out: Path, made_by: Mapping[str, Any]) -> None:
    """Refuse a folder of other choices or other things, so that labels of two kinds never mix.

    Raises:
        DataError: if the folder holds labels made otherwise.
    """
    stamp = out / STAMP
    if stamp.exists() and stamp.read_text(encoding="utf-8") != _stamp(made_by):
        raise DataError(f"{out}: holds labels made with other choices; pass another --out")
    if not stamp.exists() and out.is_dir() and any(out.iterdir()):
        raise DataError(f"{out}: holds files of something else; pass an empty --out")


def _done(out: Path, name: str) -> bool:
    return label_file(out, name).exists() and confidence_file(out, name).exists()


def _contact_sheet(out: Path, files: Mapping[str, Path], table: ClassTable) -> None:
    shown: Sequence[str] = sample_ids(list(files), SHOWN)
    rows = []
    for name in shown:
        image = read_image(files[name])
        rows.append(GridRow(image=image, maps=(read_label(label_file(out, name)),)))
    sheet = grid(("pseudo label",), rows, class_names=table.names, cell=(240, 180))
    write_png(out / f"{SHEET}.png", sheet)
