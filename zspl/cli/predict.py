"""zspl predict: a trained network labels a folder of photos."""

import argparse
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from zspl.annotation import claim, engine, page, photos, ranking
from zspl.annotation._summary import summarise
from zspl.annotation.network import Look, TrainedNetwork, write_overlay
from zspl.annotation.photos import Found, printable
from zspl.annotation.quarantine import Quarantine
from zspl.annotation.results import CLASSES, PREDICTED, Results
from zspl.cli import _checkpoint
from zspl.cli._folders import be_strict_with_photos, ignored, say, say_end, say_quarantined
from zspl.errors import DataError, SettingsError
from zspl.inference import load_carded
from zspl.io import devices
from zspl.io.images import SUFFIXES
from zspl.io.model_card import ModelCard
from zspl.io.weights import file_sha256

QUARANTINED = 1
_DOUBTFUL = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class _Work:
    """One run: where, what, and how."""

    images: Path
    out: Path
    found: Found
    checkpoint: Path
    card: ModelCard
    look: Look
    batch: int
    again: bool

    def made_with(self) -> dict[str, Any]:
        """Return every choice that can change a label."""
        trained = {k: v for k, v in self.card.trained.items() if v is not None}
        return {
            "checkpoint": {"sha256": file_sha256(self.checkpoint), **trained},
            "network": {"backbone": dict(self.card.backbone), "head": dict(self.card.head)},
            "classes": list(self.card.classes),
            "look": asdict(self.look),
        }


def run(arguments: argparse.Namespace) -> int:
    """Label every photo that is not done yet, then write table and report."""
    be_strict_with_photos()
    if arguments.device:
        os.environ["ZSPL_DEVICE"] = arguments.device
    work = _work(arguments)
    with claim.claimed(work.out, file=PREDICTED):
        waiting, tally = _label(work)
        return _finish(work, waiting, tally)


def _work(arguments: argparse.Namespace) -> _Work:
    images, out = arguments.images, arguments.out
    checkpoint, card = _checkpoint.find(arguments.checkpoint, arguments.params)
    if out.resolve() == images.resolve():
        raise SettingsError(f"--out {out}: is the folder of --images; pass another one")
    found = photos.find(images, apart_from=[out])
    if not found.photos and not found.refused:
        others = f"; {ignored(found)}" if found.ignored else ""
        raise DataError(f"{images}: no image in it{others}; expected {', '.join(sorted(SUFFIXES))}")
    window = card.window if arguments.window is None else arguments.window or None
    return _Work(
        images=images,
        out=out,
        found=found,
        checkpoint=checkpoint,
        card=card,
        look=Look(window=window, scales=arguments.scales, flip=arguments.flip),
        batch=arguments.batch or (1 if devices.chosen().type == "cpu" else 8),
        again=arguments.redo_quarantined,
    )


def _label(work: _Work) -> tuple[engine.Waiting, engine.Tally]:
    made_with = work.made_with()
    before = claim.recall(work.out, made_with, file=PREDICTED)
    waiting = engine.plan(work.found.photos, work.out, batch=work.batch, again=work.again)
    network = None
    if waiting.groups:
        count = "1 photo" if len(waiting.todo) == 1 else f"{len(waiting.todo)} photos"
        device = devices.chosen().type
        say(
            f"{count} to label with {work.checkpoint} ({work.card.network}) on {device}", sys.stderr
        )
        # Before the stamp: a checkpoint that does not load leaves no folder behind.
        network = TrainedNetwork(model=load_carded(work.checkpoint, work.card), look=work.look)
    if before is None:
        claim.stamp(work.out, made_with, {}, file=PREDICTED)
    if not (work.out / CLASSES).exists():
        work.card.table.write(work.out / CLASSES)
    if network is None:
        return waiting, engine.Tally()
    keep = partial(write_overlay, work.out)
    return waiting, engine.run(waiting, network.annotate, out=work.out, keep=keep, what="predict")


def _finish(work: _Work, waiting: engine.Waiting, tally: engine.Tally) -> int:
    only = {photo.name for photo in work.found.photos}
    results = Results(work.out, work.images, only=only, stamp=PREDICTED)
    aside = {**dict(work.found.refused), **waiting.held, **tally.reasons}
    Quarantine(work.out).write_table(aside.items())
    ranking.write(results)
    page.write(results, work.out, lead=_lead(work.card), commands=_NEXT)
    _report(work, results, aside, tally)
    return QUARANTINED if aside else 0


def _lead(card: ModelCard) -> str:
    cell = card.trained
    labels = f" with pseudo labels {cell['labels']}" if cell.get("labels") else ""
    return (
        f"Predicted by {card.network}, trained by {cell['method']}{labels} on split "
        f"{cell['split']}, seed {cell['seed']}; not checked by people."
    )


_NEXT = (
    "# go on after a stop or with new photos; pass the other options of the first run, too",
    "zspl predict --checkpoint CELL --images PHOTOS --out OUT",
    "# score against masks that you have",
    "zspl score --predictions OUT/labels --labels MASKS --dataset folder "
    "--set 'classes=[FIRST, SECOND]'",
)


def _report(work: _Work, results: Results, aside: Mapping[str, str], tally: engine.Tally) -> None:
    found, summary = work.found, summarise(results, doubtful=_DOUBTFUL)
    total = len(found.photos) + len(found.refused)
    say(f"{summary.photos} of {total} photos labeled in {work.out / 'labels'}")
    say_quarantined(aside, work.out)
    names = results.table.names
    shares = sorted(((summary.share(i), name) for i, name in enumerate(names)), reverse=True)
    say(f"classes  {', '.join(f'{printable(n)} {s:.1%}' for s, n in shares[:6] if s > 0)}")
    if summary.doubtful:
        say(f"doubtful {', '.join(map(printable, summary.doubtful))} (look at these first)")
    say_end(work.out, found, tally)
