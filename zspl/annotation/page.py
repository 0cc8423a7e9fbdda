"""The page about a folder of labels: what was found, how sure it is, what to look at next.

One file that can be mailed: the pictures are inside, nothing is loaded from elsewhere, and no
path of the machine is in it. It stays below 5 MB, since at most 24 photos are shown.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from zspl.annotation import _calibration_block, _cards
from zspl.annotation._cards import card, swatch, text
from zspl.annotation._summary import Summary, reasons, summarise
from zspl.annotation.pictures import class_name, percent
from zspl.annotation.results import Results
from zspl.evaluation.checkpoints import sample_ids
from zspl.evaluation.webpage import document
from zspl.io import atomic
from zspl.io.classes import ClassTable
from zspl.records import IGNORE_INDEX

FILE = "index.html"
DOUBTFUL = 9
"""Photos shown as worth labeling next, but at most half of them."""

SHOWN = 15
"""Other photos shown."""

LISTED = 100
"""Rows of the quarantine list that are shown."""

_CLASSES_NAMED = 4
_PARTS = ("proposals", "features", "labeler")

_STYLE = """
.lead { font-size: 1.05rem; color: var(--faint); margin: .2rem 0 1.2rem; }
.tiles { display: grid; gap: .7rem; padding: 0; margin: 1rem 0;
  grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); }
.tiles div { background: var(--raised); border-radius: 6px; padding: .6rem .8rem; }
.tiles dt { font-size: .85em; color: var(--faint); }
.tiles dd { margin: 0; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.tiles small { font-size: .6em; color: var(--faint); display: block; }
.classes td:nth-child(2) { width: 40%; min-width: 7rem; }
.classes td, .classes th { white-space: normal; }
.bar { display: block; height: .7em; border-radius: 3px; background: var(--accent); }
.track { display: block; background: var(--raised); border-radius: 3px; }
.note + .cards { margin-top: .7rem; }
@media (max-width: 30rem) { th, td { padding-right: .5rem; } .classes td:nth-child(2) {
  width: 25%; min-width: 4rem; } }
.wide { display: table; width: 100%; table-layout: auto; }
.put-aside td { white-space: normal; vertical-align: top; }
pre { background: var(--raised); border-radius: 6px; padding: .7rem .9rem; overflow-x: auto;
  font-size: .9em; white-space: pre-wrap; }
summary { cursor: pointer; }
"""


def write(
    results: Results, out: Path, *, lead: str | None = None, commands: Sequence[str] | None = None
) -> Path:
    """Write OUT/index.html and return its path.

    Args:
        results: What the page is about.
        out: The folder of the page.
        lead: Who made the labels, plain text; None: the annotator.
        commands: Lines to type next; None: those that go on with the annotator.

    Raises:
        DataError: if facts or lists of the results are damaged.
        DiskError: if the page cannot be written.
    """
    half = -(-len(results.names()) // 2)
    summary = summarise(results, doubtful=min(DOUBTFUL, half))
    made_with = results.made_with()
    put_aside = results.quarantined()
    calibration: Mapping[str, Any] | None = made_with.get("calibration")
    headline = _headline(results, summary)
    body = "\n".join(
        [
            f"<h1>{headline}</h1>",
            f"<p class='lead'>{text(lead, longest=500) if lead else _lead(made_with)}</p>",
            *([f"<p class='missing'>{_TINY}</p>"] if _is_tiny(made_with) else []),
            _tiles(summary, calibration, put_aside=len(put_aside)),
            _calibration_block.block(calibration) if calibration else "",
            _class_table(results, summary),
            *_galleries(results, summary),
            _put_aside(put_aside),
            _made_with(_commands(results.table) if commands is None else commands, made_with),
        ]
    )
    style = _STYLE + _cards.STYLE + _calibration_block.STYLE
    path = out / FILE
    atomic.write_text(path, document(f"{summary.photos} photos labeled", body, style=style))
    return path


_TINY = (
    "Made with the tiny weights in the package, which know rendered textures only: on photos "
    "these labels show how the tool works, not what is in the picture."
)


def _is_tiny(made_with: Mapping[str, Any]) -> bool:
    return any(_settings(made_with, part).get("model") == "tiny" for part in _PARTS)


def _settings(made_with: Mapping[str, Any], part: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = made_with.get(part, {}).get("settings", {})
    return found


def _headline(results: Results, summary: Summary) -> str:
    names = [text(name, longest=40) for name in results.table.names[1:]]
    more = len(names) - _CLASSES_NAMED
    if more > 1:
        names[_CLASSES_NAMED:] = [f"{more} more classes"]
    classes = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    photos = "1 photo" if summary.photos == 1 else f"{summary.photos} photos"
    return f"{photos} labeled with {classes}"


def _lead(made_with: Mapping[str, Any]) -> str:
    """Return who made the labels, in one line."""
    parts = []
    for part in _PARTS:
        name = str(made_with.get(part, {}).get("name", "none"))
        settings = _settings(made_with, part)
        keys = ["model"] if settings.get("model") == "tiny" else ["model", "pretrained"]
        model = " ".join(str(settings[key]) for key in keys if settings.get(key))
        if name != "none":
            parts.append(f"{name} ({model})" if model else name)
    made = f" by {text(' + '.join(parts))}" if parts else ""
    return f"Made{made} from class names, not checked by people."


def _tiles(summary: Summary, calibration: Mapping[str, Any] | None, *, put_aside: int) -> str:
    tiles = [("photos labeled", str(summary.photos), ""), ("put aside", str(put_aside), "")]
    if calibration:
        miou, interval = _calibration_block.expected_miou(calibration)
        tiles.append(("expected mIoU", miou, interval or "from a single photo"))
    if summary.confidence is not None:
        fitted = "of 1, calibrated" if calibration else "of 1, not calibrated: no masks"
        tiles.append(("mean confidence", f"{summary.confidence:.2f}", fitted))
    if summary.coverage is not None:
        tiles.append(("coverage", percent(summary.coverage), "of pixels lie in a segment"))
    if summary.conflict is not None:
        tiles.append(("conflict", percent(summary.conflict), "of pixels: segments disagree"))
    if summary.pixels[IGNORE_INDEX]:
        unclaimed = percent(summary.share(IGNORE_INDEX))
        tiles.append(("not claimed", unclaimed, "of pixels have no label (255)"))
    return (
        "<dl class='tiles'>"
        + "".join(
            f"<div><dt>{name}</dt><dd>{text(value)}<small>{note}</small></dd></div>"
            for name, value, note in tiles
        )
        + "</dl>"
    )


def _class_table(results: Results, summary: Summary) -> str:
    ids = [*range(results.table.num_classes)]
    ids += [IGNORE_INDEX] if summary.pixels[IGNORE_INDEX] else []
    largest = max((summary.share(i) for i in ids if i not in {0, IGNORE_INDEX}), default=0.0)
    rows = "".join(_class_row(results, summary, class_id=i, largest=largest) for i in ids)
    return (
        "<section id='classes'><h2>Classes</h2><table class='wide classes'><thead><tr>"
        "<th>Class</th><th></th><th>Pixels</th><th>Photos</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></section>"
    )


def _class_row(results: Results, summary: Summary, *, class_id: int, largest: float) -> str:
    share = summary.share(class_id)
    bar, mark = "", ""
    if class_id not in {0, IGNORE_INDEX}:
        width = 100 * share / largest if largest else 0
        bar = f"<span class='track'><span class='bar' style='width:{width:.1f}%'></span></span>"
    if class_id != 0:
        mark = swatch(class_id)
    return (
        f"<tr><td>{mark}{text(class_name(results.table.names, class_id), longest=60)}</td>"
        f"<td>{bar}</td><td>{text(percent(share))}</td><td>{summary.photos_with[class_id]}</td></tr>"
    )


def _galleries(results: Results, summary: Summary) -> Iterator[str]:
    """Yield the most doubtful photos with reasons, then photos from all over the folder."""
    if summary.doubtful:
        cards = "".join(
            card(results, facts, why=f"{rank}. {reasons(facts)}")
            for rank, facts in enumerate(map(results.facts, summary.doubtful), start=1)
        )
        yield (
            "<section id='next'><h2>Label these next</h2><p class='note'>The most doubtful photos "
            "(lowest mean confidence): a mask drawn by hand teaches most here. All photos in this "
            f"order: images.csv.</p><div class='cards'>{cards}</div></section>"
        )
    others = [name for name in results.names() if name not in set(summary.doubtful)]
    if others:
        cards = "".join(card(results, results.facts(n)) for n in _spread(others))
        yield (
            "<section id='gallery'><h2>From all over the folder</h2>"
            f"<div class='cards'>{cards}</div></section>"
        )


def _spread(names: Sequence[str]) -> Sequence[str]:
    return sample_ids(list(names), min(SHOWN, len(names)))


def _put_aside(rows: Sequence[tuple[str, str]]) -> str:
    if not rows:
        return ""
    shown = "".join(
        f"<tr><td>{text(source)}</td><td>{text(reason, longest=400)}</td></tr>"
        for source, reason in rows[:LISTED]
    )
    more = len(rows) - LISTED
    rest = f"<p class='note'>and {more} more, see quarantine.csv</p>" if more > 0 else ""
    return (
        "<section id='put-aside'><h2>Put aside</h2><table class='wide put-aside'><thead><tr>"
        f"<th>File</th><th>Reason</th></tr></thead><tbody>{shown}</tbody></table>{rest}</section>"
    )


def _made_with(commands: Sequence[str], made_with: Mapping[str, Any]) -> str:
    lines = "\n".join(text(line, longest=5000) for line in commands)
    rows = "".join(
        f"<tr><td>{text(key)}</td><td>{text(value, longest=300)}</td></tr>"
        for key, value in _flattened(
            {k: v for k, v in made_with.items() if k not in {"calibration", "classes"}}
        )
    )
    return (
        f"<section id='made-with'><h2>Going on</h2><pre>{lines}</pre>"
        "<details><summary>Every choice that made these labels</summary>"
        f"<table class='put-aside'><tbody>{rows}</tbody></table></details></section>"
    )


def _commands(table: ClassTable) -> tuple[str, ...]:
    """Return what to type next, with PHOTOS, OUT and MASKS for the reader's own folders."""
    named = zip(table.names[1:], table.prompts, strict=True)
    classes = ", ".join(name if name == asked else f"{name}={asked}" for name, asked in named)
    others = f" --background {shlex.quote(', '.join(table.background))}" if table.background else ""
    return (
        "# go on after a stop or with new photos; pass the other options of the first run, too",
        f"zspl annotate --images PHOTOS --classes {shlex.quote(classes)}{others} --out OUT",
        "# correct the labels by hand",
        "... --export labelstudio",
        "# for other tools",
        "... --export coco,voc,yolo",
        "# have thresholds and confidence fitted on photos with masks, in a folder of its own",
        "... --masks MASKS --out OUT2",
    )


def _flattened(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted key, value as text), sorted by key."""
    for key, value in sorted(values.items()):
        name = f"{above}{key}"
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{name}.")
        elif isinstance(value, list):
            yield name, ", ".join(str(entry) for entry in value)
        else:
            yield name, "none" if value is None else str(value)
