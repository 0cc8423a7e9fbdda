"""zspl refine: the classes of any label maps, the shapes of any segments (SEPL)."""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zspl import __version__
from zspl.annotation.photos import find, printable
from zspl.annotation.results import CLASSES
from zspl.annotation.results import STAMP as ANNOTATED
from zspl.annotation.sam_choice import sam_settings
from zspl.cli._pairs import values
from zspl.cli._segments import CutPhotos, ReadMasks, Segments
from zspl.errors import DataError, SettingsError, ZsplError, suggestion
from zspl.io import atomic
from zspl.io.classes import ClassTable
from zspl.io.images import Pixels, read_label, write_label
from zspl.labeling.sepl import refine
from zspl.observer import progress
from zspl.records import IGNORE_INDEX
from zspl.sections import build_plugin, plugin_settings

STAMP = "refine.json"
LABELS = "labels"
SUFFIX = ".png"
SKIPPED = 1
PACKAGE = "zspl.proposals"
_PART = "proposals"


@dataclass(kw_only=True)
class Changes:
    """How many pixels became something else, over all label maps."""

    pixels: int = 0
    gained: int = 0
    lost: int = 0
    renamed: int = 0

    def add(self, before: Pixels, after: Pixels) -> None:
        """Count one label map; ignored pixels count as background."""
        was, now = (np.where(ids == IGNORE_INDEX, 0, ids) for ids in (before, after))
        self.pixels += before.size
        self.gained += int(np.count_nonzero((was == 0) & (now != 0)))
        self.lost += int(np.count_nonzero((was != 0) & (now == 0)))
        self.renamed += int(np.count_nonzero((was != now) & (was != 0) & (now != 0)))

    def __str__(self) -> str:
        """Return one sentence."""

        def share(count: int) -> str:
            return f"{100 * count / max(1, self.pixels):.2f} %"

        changed = self.gained + self.lost + self.renamed
        return (
            f"{share(changed)} of {self.pixels:,} pixels changed: {share(self.gained)} became a "
            f"class, {share(self.lost)} background, {share(self.renamed)} another class"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One call of the command; `labels` are the files of the label maps by name."""

    labels: Mapping[str, Path]
    out: Path
    rule: str
    num_classes: int
    changes: Changes = field(default_factory=Changes)

    def waiting(self) -> list[str]:
        """Return the names without a result that is newer than the label map."""
        return [name for name in self.labels if not self._done(name)]

    def result(self, name: str) -> Path:
        """Return where the refined label map of a name lies."""
        return self.out / f"{name}.png"

    def read(self, name: str) -> Pixels:
        """Read a label map.

        Raises:
            DataError: if it is unreadable or holds an id that is no class.
        """
        path = self.labels[name]
        label = read_label(path)
        counts = np.bincount(label.reshape(-1), minlength=IGNORE_INDEX + 1)
        wrong = np.flatnonzero(counts[self.num_classes : IGNORE_INDEX])
        if wrong.size:
            value = int(wrong[0]) + self.num_classes
            raise DataError(
                f"{path}: holds the id {value} ({counts[value]} pixels), expected "
                f"0..{self.num_classes - 1} or {IGNORE_INDEX}; correct the number of classes or "
                "the label map"
            )
        return label

    def _done(self, name: str) -> bool:
        path = self.result(name)
        return path.is_file() and path.stat().st_mtime_ns >= self.labels[name].stat().st_mtime_ns


def run(arguments: argparse.Namespace) -> int:
    """Refine every label map that is not done yet; list those that could not be used."""
    labels = _label_folder(arguments.labels)
    choices = _choices(arguments)
    table, num_classes = _classes(arguments, labels)
    _check_out(arguments.out, labels)
    files, skipped = _label_maps(labels)
    job = Job(labels=files, out=arguments.out, rule=arguments.rule, num_classes=num_classes)
    made_by = {
        "labels": arguments.labels.as_posix(),
        "num_classes": num_classes,
        "rule": job.rule,
        "zspl": __version__,
        **choices,
    }
    _check_stamp(job.out, made_by)
    waiting = job.waiting()
    segments = _segments(arguments, choices) if waiting else None
    atomic.write_json(job.out / STAMP, made_by)
    if table is not None:
        table.write(job.out / CLASSES)
    before = sorted(set(files) - set(waiting))
    skipped += _count(job, before)
    if segments is not None:
        skipped += _refine(job, waiting, segments)
    _report(job, number=len(before), skipped=skipped)
    return SKIPPED if skipped else 0


def _report(job: Job, *, number: int, skipped: list[str]) -> None:
    """Print what became of the label maps, `number` of which were done before."""
    done = len(job.labels) - len(job.waiting())
    again = f" ({number} were done before)" if number else ""
    print(f"{done} of {len(job.labels)} label maps refined in {job.out}{again}; {job.changes}")
    for reason in skipped:
        print(f"zspl: skipped {printable(reason)}", file=sys.stderr)


def _count(job: Job, names: list[str]) -> list[str]:
    """Count the changes of finished label maps; return what is wrong with some of them."""
    skipped = []
    for name in names:
        try:
            label = job.read(name)
            size = (label.shape[1], label.shape[0])
            job.changes.add(label, read_label(job.result(name), size=size))
        except DataError as error:
            skipped.append(str(error))
    return skipped


def _refine(job: Job, waiting: list[str], segments: Segments) -> list[str]:
    """Write what can be refined; return why the others could not."""
    skipped = []
    for name in progress(waiting, what="refine", total=len(waiting)):
        try:
            label = job.read(name)
            masks = segments(name, label)
        except DataError as error:
            skipped.append(str(error))
            continue
        except ZsplError:
            raise
        except Exception as error:  # whatever breaks a model on one photo must not end the run
            skipped.append(f"{name}: {type(error).__name__}: {' '.join(str(error).split())}")
            continue
        refined = refine(
            torch.from_numpy(label),
            torch.from_numpy(masks),
            rule=job.rule,
            num_classes=job.num_classes,
        ).numpy()
        write_label(job.result(name), refined)
        job.changes.add(label, refined)
    return skipped


def _segments(arguments: argparse.Namespace, choices: Mapping[str, Any]) -> Segments:
    if arguments.images is None:
        return ReadMasks(folder=arguments.segments)
    photos = {photo.name: photo.path for photo in find(arguments.images).photos}
    chosen = choices[_PART]
    proposer = build_plugin(PACKAGE, chosen["name"], chosen["settings"])
    return CutPhotos(folder=arguments.images, photos=photos, proposer=proposer)


def _choices(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return where segments come from, checked before any model is loaded."""
    settings = {}
    for key, value in values(arguments.changes).items():
        part, _, setting = key.partition(".")
        if part != _PART or not setting:
            raise SettingsError(f"--set {key}: {suggestion(part, [_PART])} Write proposals.setting")
        settings[setting] = value
    if arguments.images is not None:
        name = arguments.proposals or "sam"
        if name == "sam":
            settings = sam_settings(arguments.sam, dtype="auto", changes=settings) | settings
        elif arguments.sam:
            raise SettingsError(f"--sam {arguments.sam} is for --proposals sam; leave one out")
        plugin_settings(PACKAGE, name, settings)
        return {"images": arguments.images.as_posix(), _PART: {"name": name, "settings": settings}}
    if arguments.proposals or arguments.sam or settings:
        raise SettingsError(
            "--segments are ready-made; pass --images to use --proposals, --sam and --set"
        )
    if not arguments.segments.is_dir():
        raise DataError(f"{arguments.segments}: no such folder; pass one with <name>/*.png masks")
    return {"segments": arguments.segments.as_posix()}


def _classes(arguments: argparse.Namespace, labels: Path) -> tuple[ClassTable | None, int]:
    """Return the class table if there is one, and the number of classes."""
    if arguments.num_classes is not None:
        if not 1 < arguments.num_classes <= IGNORE_INDEX:
            raise SettingsError(f"--num-classes must be in 2..255, got {arguments.num_classes}")
        return None, arguments.num_classes
    if arguments.classes is not None:
        names = tuple(name.strip() for name in arguments.classes.split(",") if name.strip())
        try:
            table = ClassTable.plain(("background", *names), prompts=names)
        except ValueError as error:
            raise SettingsError(f"--classes {arguments.classes!r}: {error}") from error
        return table, table.num_classes
    annotated = labels.parent
    if labels.name == LABELS and (annotated / ANNOTATED).is_file():
        table = ClassTable.read(annotated / CLASSES)
        return table, table.num_classes
    return None, IGNORE_INDEX


def _label_folder(folder: Path) -> Path:
    """Return the folder of label maps, also where the whole result of annotate was passed."""
    inside = folder / LABELS
    return inside if (folder / ANNOTATED).is_file() and inside.is_dir() else folder


def _label_maps(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Return the label maps below a folder by their path without suffix, and what is unusable."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; pass --labels with a folder of label maps")
    found = find(folder)
    files = {
        photo.source[: -len(SUFFIX)]: photo.path
        for photo in found.photos
        if photo.source.lower().endswith(SUFFIX) and ".confidence." not in photo.path.name
    }
    if not files:
        raise DataError(f"{folder}: no .png file in it; pass --labels with a folder of label maps")
    return dict(sorted(files.items())), [f"{folder / what}: {why}" for what, why in found.refused]


def _check_out(out: Path, labels: Path) -> None:
    if out.resolve().is_relative_to(labels.resolve()):
        raise SettingsError(f"--out {out} lies inside --labels; pass a folder elsewhere")


def _check_stamp(out: Path, made_by: Mapping[str, Any]) -> None:
    """Refuse a folder of other choices or other things, so that two kinds never mix."""
    stamp = out / STAMP
    if stamp.exists():
        try:
            then: dict[str, Any] = json.loads(stamp.read_text(encoding="utf-8"))
            differs = sorted(k for k in {*then, *made_by} if then.get(k) != made_by.get(k))
        except (ValueError, AttributeError) as error:
            raise DataError(f"{stamp}: is damaged ({error}); pass another --out") from error
        if differs:
            raise DataError(
                f"{out}: holds label maps of other choices ({', '.join(differs)}); pass another "
                "--out"
            )
    elif out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir()):
        raise DataError(f"{out}: holds files of something else; pass an empty --out")
