"""zspl annotate: pseudo labels for any folder of photos, from class names alone."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from zspl.annotation import claim, engine, exports, masks, page, photos, ranking, sheet
from zspl.annotation._summary import summarise
from zspl.annotation.annotator import Annotator
from zspl.annotation.choices import Asked, Choices, choose
from zspl.annotation.photos import Found, Photo, printable
from zspl.annotation.quarantine import Quarantine
from zspl.annotation.results import CLASSES, Results
from zspl.cli._folders import be_strict_with_photos, ignored, say, say_end, say_quarantined
from zspl.cli._pairs import values
from zspl.errors import DataError, SettingsError, suggestion
from zspl.evaluation.checkpoints import sample_ids
from zspl.io import devices
from zspl.io.images import SUFFIXES
from zspl.labeling import Decision

QUARANTINED = 1
_SHOWN = 12
_DOUBTFUL = 3
_SHEET = "contact_sheet.png"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Work:
    """One run: where, what, and how."""

    images: Path
    out: Path
    found: Found
    choices: Choices
    masks: masks.Masks | None
    batch: int
    again: bool

    def made_with(self) -> dict[str, Any]:
        """Return every choice that can change a label."""
        digest = None if self.masks is None else self.masks.digest()
        return {**self.choices.as_json(), "masks": digest}


def run(arguments: argparse.Namespace) -> int:
    """Label every photo that is not done yet, then write tables, report and exports."""
    be_strict_with_photos()
    if arguments.device:
        os.environ["ZSPL_DEVICE"] = arguments.device
    formats = _formats(arguments.export)
    work = _work(arguments)
    with claim.claimed(work.out):
        if arguments.preview:
            return _preview(work, arguments.preview)
        return _full(work, formats)


def _work(arguments: argparse.Namespace) -> _Work:
    images, out, mask_folder = arguments.images, arguments.out, arguments.masks
    for option, folder in (("--out", out), ("--masks", mask_folder)):
        if folder is not None and folder.resolve() == images.resolve():
            raise SettingsError(f"{option} {folder}: is the folder of --images; pass another one")
    choices = choose(_asked(arguments))
    found = photos.find(images, apart_from=[folder for folder in (out, mask_folder) if folder])
    if not found.photos and not found.refused:
        others = f"; {ignored(found)}" if found.ignored else ""
        raise DataError(f"{images}: no image in it{others}; expected {', '.join(sorted(SUFFIXES))}")
    with_masks = None
    if mask_folder is not None:
        with_masks = masks.find(mask_folder, found.photos)
        masks.check(with_masks, choices.table)
    on_cpu = devices.chosen().type == "cpu"
    return _Work(
        images=images,
        out=out,
        found=found,
        choices=choices,
        masks=with_masks,
        batch=arguments.batch or (1 if on_cpu else 4),
        again=arguments.redo_quarantined,
    )


def _asked(arguments: argparse.Namespace) -> Asked:
    return Asked(
        classes=arguments.classes,
        background=arguments.background,
        proposals=arguments.proposals,
        sam=arguments.sam,
        features=arguments.features,
        clip=arguments.clip,
        labeler=arguments.labeler,
        templates=arguments.prompts,
        prompt=arguments.prompt,
        threshold=arguments.threshold,
        calibrated=arguments.masks is not None,
        unassigned=255 if arguments.unassigned == "ignore" else 0,
        dtype=arguments.dtype,
        max_side=arguments.max_side,
        changes=values(arguments.changes),
    )


def _formats(text: str) -> list[str]:
    chosen = [name.strip() for name in text.split(",") if name.strip()]
    for name in chosen:
        if name not in exports.formats():
            known = suggestion(name, exports.formats())
            raise SettingsError(f"--export {name}: no such format. {known}")
    return chosen


def _label(work: _Work, chosen: Sequence[Photo]) -> tuple[engine.Waiting, engine.Tally]:
    """Label these photos as far as they are not, and leave annotate.json and classes.json."""
    made_with = work.made_with()
    before = claim.recall(work.out, made_with)
    waiting = engine.plan(chosen, work.out, batch=work.batch, again=work.again)
    annotator = None
    if waiting.groups or (before is None and work.masks is not None):
        device, models = devices.chosen().type, work.choices.models()
        photos = "1 photo" if len(waiting.todo) == 1 else f"{len(waiting.todo)} photos"
        say(f"{photos} to label with {models} on {device}", sys.stderr)
        annotator = work.choices.build()
        annotator.labeler.files([photo.name for photo in chosen])
    if before is None:
        before = _decide(work, annotator)
        # The stamp comes first: without it the folder is somebody else's.
        claim.stamp(work.out, made_with, before)
    if not (work.out / CLASSES).exists():
        work.choices.table.write(work.out / CLASSES)
    if annotator is None:
        return waiting, engine.Tally()
    annotate = partial(annotator.annotate, decision=Decision.from_json(before["decision"]))
    return waiting, engine.run(waiting, annotate, out=work.out, max_side=work.choices.max_side)


def _decide(work: _Work, annotator: Annotator | None) -> dict[str, Any]:
    """Return what annotate.json tells beside the choices."""
    if work.masks is None or annotator is None:
        return {"decision": Decision.plain(work.choices.threshold or 0.0).as_json()}
    decision, report = masks.calibrate(work.masks, annotator, max_side=work.choices.max_side)
    return {"decision": decision.as_json(), "calibration": report}


def _preview(work: _Work, count: int) -> int:
    everything = {photo.name: photo for photo in work.found.photos}
    chosen = [everything[name] for name in sample_ids(list(everything), count)]
    waiting, tally = _label(work, chosen)
    results = Results(work.out, work.images, only={photo.name for photo in chosen})
    names = results.names()
    aside = {**waiting.held, **tally.reasons}
    say(f"{len(names)} of {len(everything)} photos labeled as a preview")
    say_quarantined(aside)
    if names:
        sheet.write(results, names, work.out / _SHEET)
        say(f"look at  {work.out / _SHEET}")
    say("next     the same command without --preview labels the rest; these are kept")
    say("         to change classes or settings, pass another --out")
    _say_tiny(work.choices)
    return QUARANTINED if aside else 0


def _full(work: _Work, formats: Sequence[str]) -> int:
    waiting, tally = _label(work, work.found.photos)
    results = Results(work.out, work.images, only={photo.name for photo in work.found.photos})
    names = results.names()
    aside = {**dict(work.found.refused), **waiting.held, **tally.reasons}
    Quarantine(work.out).write_table(aside.items())
    ranking.write(results)
    if names:
        sheet.write(results, sample_ids(names, _SHOWN), work.out / _SHEET)
    page.write(results, work.out)
    folders = exports.write(results, formats, out=work.out)
    _report(work, results, aside, tally)
    for folder in folders:
        say(f"export   {folder}")
    return QUARANTINED if aside else 0


def _report(work: _Work, results: Results, aside: Mapping[str, str], tally: engine.Tally) -> None:
    found, summary = work.found, summarise(results, doubtful=_DOUBTFUL)
    total = len(found.photos) + len(found.refused)
    say(f"{summary.photos} of {total} photos labeled in {work.out / 'labels'}")
    say_quarantined(aside, work.out)
    if summary.coverage is not None:
        say(f"coverage {summary.coverage:.1%} of all pixels lie in a segment")
    if summary.doubtful:
        say(f"doubtful {', '.join(map(printable, summary.doubtful))} (label these by hand first)")
    if calibration := results.made_with().get("calibration"):
        say(f"expected {calibration['sentence']}")
    say_end(work.out, found, tally)
    if work.masks is not None and work.masks.strangers:
        shown, *more = map(printable, work.masks.strangers)
        belong = f"and {len(more)} more belong" if more else "belongs"
        say(f"masks    {shown} {belong} to no photo")
    _say_tiny(work.choices)


def _say_tiny(choices: Choices) -> None:
    if choices.tiny:
        say(
            "beware   the tiny models know rendered textures only; on photos their labels mean "
            "nothing"
        )
