"""zspl plan: what a benchmark takes, before anything runs."""

import argparse
import contextlib
import sys
from pathlib import Path

from zspl.cli._pairs import values
from zspl.errors import SettingsError, suggestion
from zspl.io import atomic
from zspl.io.layout import Layout
from zspl.io.timings import device_name
from zspl.planning import rates as known
from zspl.planning.finished import rates_of
from zspl.planning.measure import measure
from zspl.planning.rates import ESTIMATE, UNKNOWN, Rate, Rates
from zspl.planning.rows import Planner, Row
from zspl.planning.table import lines, to_csv
from zspl.settings import Settings

BENCHMARKS = Path("benchmarks")


def run(arguments: argparse.Namespace) -> int:
    """Print the plan, and write it as CSV."""
    folder = _folder(arguments.benchmark)
    target = None if arguments.csv is None else arguments.csv.absolute()
    with contextlib.chdir(folder):
        settings = Settings.read(Path("params.yaml"), values(arguments.changes))
        own = Layout(settings.paths.out).timings / known.OWN
        if arguments.measure:
            known.write_rates(own, _measured(settings))
            print(f"  kept in {folder / own}; later plans read it", file=sys.stderr)
        device = device_name()
        rates = Rates(
            [
                *known.read_rates(own),
                *rates_of(settings),
                *known.read_rates(known.SHIPPED),
            ],
            device=device,
        )
        planner = Planner(settings, rates)
        rows = list(planner.rows())
    if target is not None:
        atomic.write_text(target, to_csv(rows, device=device))
    print(f"{settings.benchmark}: {len(rows)} stage instances, planned for {device}\n")
    print("\n".join(lines(rows, device=device)))
    print("\n" + "\n".join(_notes(planner, rows, device)))
    return 0


def _folder(text: str) -> Path:
    """Return the folder of a benchmark given by its name or as a path."""
    for folder in (BENCHMARKS / text, Path(text)):
        if (folder / "params.yaml").is_file():
            return folder
    names = [path.parent.name for path in BENCHMARKS.glob("*/params.yaml")]
    hint = suggestion(text, names) if names else "Run it where benchmarks/ lies."
    raise SettingsError(f"plan: no benchmark {text!r}, nor a folder with a params.yaml. {hint}")


def _measured(settings: Settings) -> list[Rate]:
    found = []
    for rate in measure(settings, lambda line: print(f"  {line}", file=sys.stderr)):
        found.append(rate)
        print(f"  {rate.stage} {rate.what}: {rate.seconds:.3f} s per {rate.unit}", file=sys.stderr)
    return found


def _notes(planner: Planner, rows: list[Row], device: str) -> list[str]:
    notes = []
    kinds = {row.kind for row in rows}
    if ESTIMATE in kinds:
        notes.append("~ estimated from rates of other settings on this device; --csv names them")
    if UNKNOWN in kinds:
        notes.append(f"- no rate known on {device}, sums then begin with >; --measure finds one")
    if device == "cpu":
        notes.append("no rate was measured on a GPU; on one, zspl plan ... --measure finds it")
    if any(not sizes.exact for sizes in planner.sizes.values()):
        notes.append("the data is not here: numbers of images are those of the lists, at most")
    notes.append(
        "disk: what stays; DVC's cache holds a second copy unless it links (cache.type), and an "
        "unfinished training about three checkpoints more"
    )
    return notes
