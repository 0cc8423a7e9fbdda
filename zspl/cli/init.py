"""zspl init: a project of one's own photos, masks and classes."""

import argparse
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from zspl.annotation.photos import printable
from zspl.cli import _init_data, _init_params, _init_place
from zspl.cli._folders import be_strict_with_photos, say
from zspl.cli._init_data import Collected
from zspl.cli._init_params import Project
from zspl.errors import SettingsError
from zspl.io import atomic
from zspl.io.classes import ClassTable
from zspl.records import IGNORE_INDEX, Split
from zspl.settings import Settings

LEFT_OUT = 1
_SHOWN = 5
_FEW_MASKS = 20
_ASKED = {
    "images": "Folder of the photos",
    "masks": "Folder of the masks",
    "classes": 'Classes of the mask values 1, 2, ... ("cat, dog=dog|puppy")',
}


def run(arguments: argparse.Namespace) -> int:
    """Look at photos and masks, write the project, and say what to type next."""
    be_strict_with_photos()
    folder: Path = arguments.folder
    _init_place.check(folder)
    _ask(arguments)
    images, masks = Path(arguments.images).expanduser(), Path(arguments.masks).expanduser()
    chosen = _init_params.choices(
        arguments.classes, arguments.background, sam=arguments.sam, clip=arguments.clip
    )
    collected = _init_data.collect(images, masks, chosen.table, apart_from=[folder])
    with atomic.disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    roots = collected.roots(images, masks)
    _init_data.link(collected, folder / "data")
    classes = _init_params.class_entries(chosen)
    split = _init_data.split(folder / "data", classes, collected, roots=roots)
    project = Project(
        name=folder.resolve().name,
        photos=len(collected.photos),
        labeled=len(split.labeled),
        val=len(split.val),
        long_side=collected.long_side,
        short_side=collected.short_side,
        roots=roots,
        model=arguments.model,
        iterations=arguments.iterations,
    )
    _init_place.furnish(folder)
    # Last: a folder with params.yaml is a whole project.
    _write_params(folder / "params.yaml", _init_params.text(project, chosen))
    _report(folder, collected, split, chosen.table)
    for line in _next(folder, images, project):
        say(line)
    return LEFT_OUT if collected.left_out else 0


def _ask(arguments: argparse.Namespace) -> None:
    """Ask for what is missing on a terminal; in a script that is an error."""
    for name, question in _ASKED.items():
        if getattr(arguments, name) is not None:
            continue
        if not sys.stdin.isatty():
            raise SettingsError(f"--{name} is missing; pass it, or run zspl init on a terminal")
        try:
            answer = input(f"{question}: ").strip()
        except EOFError:
            answer = ""
        if not answer:
            raise SettingsError(f"--{name} is missing; nothing was written")
        setattr(arguments, name, answer)


def _write_params(path: Path, text: str) -> None:
    """Write params.yaml, checked before it has its name."""
    draft = path.with_name(".params.yaml")
    atomic.write_text(draft, text)
    try:
        Settings.read(draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _report(folder: Path, collected: Collected, split: Split, table: ClassTable) -> None:
    photos, masks = len(collected.photos), len(collected.masks)
    say(
        f"photos   {photos} linked in {folder / 'data' / _init_data.PHOTOS}, none copied or changed"
    )
    say(
        f"masks    {masks}: {len(split.labeled)} to learn from, {len(split.val)} to score on; "
        f"{photos - masks} photos without"
    )
    known = max(1, sum(n for i, n in collected.pixels.items() if i != IGNORE_INDEX))
    for class_id, name in enumerate(table.names):
        share, shown = collected.pixels[class_id] / known, collected.shown[class_id]
        say(f"class    {class_id:>3} {printable(name):<20} {share:6.1%} of pixels, {shown} masks")
    for line in _warnings(collected, split, table):
        say(f"warning  {line}")


def _warnings(collected: Collected, split: Split, table: ClassTable) -> Iterator[str]:
    """Yield what the user should know before anything runs."""
    left_out = sorted(collected.left_out)
    for file, reason in left_out[:_SHOWN]:
        yield f"left out: {printable(file)}: {printable(reason)}"
    if len(left_out) > _SHOWN:
        yield f"left out: {len(left_out) - _SHOWN} more"
    for suffix, count in collected.ignored.items():
        yield f"ignored: {count} files that are no images ({suffix})"
    if collected.strangers:
        count = len(collected.strangers)
        yield f"{count} masks belong to no photo, such as {printable(collected.strangers[0])}"
    unseen = [n for i, n in enumerate(table.names) if i and not collected.shown[i]]
    for name in unseen:
        yield f"no mask shows {printable(name)}; nothing teaches it, and nothing can score it"
    if len(collected.masks) < _FEW_MASKS:
        yield f"{len(collected.masks)} masks are few: a score on {len(split.val)} says little"
    largest = max(collected.sizes.values(), key=max)
    if max(largest) > 2 * collected.long_side:
        yield f"photos differ in size, up to {largest[0]}x{largest[1]}; scales fit the median"


def _next(folder: Path, images: Path, project: Project) -> Iterator[str]:
    """Yield what to type next."""
    yield ""
    yield "next, in this order:"
    yield f"  cd {shlex.quote(str(folder))}"
    activate = Path(sys.prefix) / "bin" / "activate"
    found = shutil.which("python")
    if activate.is_file() and (found is None or Path(found).parent != activate.parent):
        yield f"  . {shlex.quote(str(activate))}"
    yield "  zspl doctor                          # is all there that params.yaml needs?"
    yield "  dvc repro                            # runs everything; killed, it continues"
    yield "  cat artifacts/tables/table.txt       # with pictures: artifacts/tables/index.html"
    cell = f"artifacts/cells/recommended-sam_gem/{project.network}/labeled/seed-0"
    scale = "" if project.scale == 1 else f" --scales {project.scale}"
    photos = shlex.quote(str(images.absolute()))
    yield f"  zspl predict --checkpoint {cell} --images {photos} --out predictions{scale}"
