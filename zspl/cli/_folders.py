"""What the commands that label a folder of photos say, and how they read it."""

import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from zspl.annotation import engine, ranking
from zspl.annotation.photos import Found, printable

_REASONS = 5


def be_strict_with_photos() -> None:
    """Make photos that claim to be huge an error, and damaged metadata no noise."""
    warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def say(text: str, stream: Any = None) -> None:  # noqa: ANN401 - a text stream
    """Print a line, whatever signs the terminal knows."""
    to = stream or sys.stdout
    known = to.encoding or "utf-8"
    print(text.encode(known, "backslashreplace").decode(known), file=to)


def say_quarantined(aside: Mapping[str, str], out: Path | None = None) -> None:
    """Say which photos were put aside and why, if there are any."""
    if not aside:
        return
    listed = f", all in {out / 'quarantine.csv'}" if out else ""
    say(f"{len(aside)} in quarantine{listed}:")
    for source, reason in sorted(aside.items())[:_REASONS]:
        say(f"  {printable(source)}: {printable(reason)}")
    if len(aside) > _REASONS:
        say(f"  and {len(aside) - _REASONS} more")


def say_end(out: Path, found: Found, tally: engine.Tally) -> None:
    """Say where the report lies, how fast it went, and which files were passed over."""
    say(f"report   {out / 'index.html'}, table {out / ranking.TABLE}")
    if tally.labeled:
        rate = tally.labeled / tally.seconds
        say(f"rate     {rate:.2f} photos/s ({tally.labeled} in {tally.seconds:.0f} s)")
    if found.ignored:
        say(f"ignored  {ignored(found)}")
    for folder in found.left_out:
        say(f"left out {printable(folder)}/: holds results of zspl")


def ignored(found: Found) -> str:
    """Say how many files are no photos, by kind."""
    kinds = ", ".join(f"{suffix} {count}" for suffix, count in found.ignored.items())
    total = sum(found.ignored.values())
    files = "1 file is no image" if total == 1 else f"{total} files are no images"
    return f"{files} ({kinds})"
