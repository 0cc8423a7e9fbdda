"""Seconds per unit of work, each with where it comes from.

Known are, in this order: what `zspl plan --measure` timed here, what this benchmark's finished
stage instances took (zspl/io/timings.py), and the table shipped with zspl. A rate of other settings
is scaled by floating-point operations or pixels; it is then an estimate and says so. Nothing is
carried from one device to another.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from zspl.errors import DataError
from zspl.io import atomic

SHIPPED = Path(__file__).parents[1] / "rates.csv"
OWN = "rates.csv"
"""What --measure found, below `paths.out`/timings."""

MEASURED, ESTIMATE, UNKNOWN = "measured", "estimate", "no rate"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """What one unit of a stage takes.

    Attributes:
        device: `cpu` (seconds of one core), or the name of a GPU (seconds of the wall clock).
        stage: Its word, or `start`: a process until its stage begins.
        what: `zspl.io.timings.signature`, all settings that the time depends on.
        unit: image or step.
        seconds: Per unit, at least 0.
        bytes: Written per unit (evaluate, tabulate: per instance), None if not measured.
        size: What a unit's time grows with: GFLOP of a forward pass over a step's crops, or the
            pixels of an image; None if with nothing.
        basis: The machine and the command that measured it; it begins with "estimate" where the
            rate was reckoned from measured ones.
    """

    device: str
    stage: str
    what: str
    unit: str
    seconds: float
    bytes: float | None = None
    size: float | None = None
    basis: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Quote:
    """The answer for one kind of work; `seconds` is None where no rate is known."""

    seconds: float | None
    bytes: float | None
    kind: str
    basis: str


NOTHING = Quote(seconds=None, bytes=None, kind=UNKNOWN, basis="")


def read_rates(path: Path) -> list[Rate]:
    """Read a table of rates; a file that is not there has none.

    Raises:
        DataError: if it is no such table.
    """
    if not path.is_file():
        return []
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
        return [_rate(row) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: is no table of rates ({error!r}); delete it") from error


def _rate(row: dict[str, str]) -> Rate:
    seconds = float(row["seconds"])
    if not seconds >= 0:
        raise ValueError(f"seconds is {row['seconds']}, expected 0 or more")
    return Rate(
        device=row["device"],
        stage=row["stage"],
        what=row["what"],
        unit=row["unit"],
        seconds=seconds,
        bytes=float(row["bytes"]) if row["bytes"] else None,
        size=float(row["size"]) if row["size"] else None,
        basis=row["basis"],
    )


def write_rates(path: Path, rates: Iterable[Rate]) -> None:
    """Write a table of rates atomically."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(Rate)], lineterminator="\n")
    writer.writeheader()
    for rate in rates:
        writer.writerow({key: "" if v is None else v for key, v in asdict(rate).items()})
    atomic.write_text(path, text.getvalue())


class Rates:
    """All rates of one device, the most trusted first."""

    def __init__(self, known: Sequence[Rate], *, device: str) -> None:
        self._known = [rate for rate in known if rate.device == device]
        self.device = device

    def __bool__(self) -> bool:
        return bool(self._known)

    def measured(self, stage: str, what: str) -> Rate | None:
        """Return the most trusted rate of exactly these settings."""
        return next((r for r in self._known if (r.stage, r.what) == (stage, what)), None)

    def quote(self, stage: str, what: str, *, size: float | None = None) -> Quote:
        """Return what a unit of these settings takes, scaled to another `size` if need be."""
        rate = self.measured(stage, what)
        return NOTHING if rate is None else scaled(rate, size=size)

    def of_training(self, method: str, network: str, recipe: str, *, size: float) -> Quote:
        """Return what a step takes, measured, or estimated from the steps that were measured.

        Estimates are scaled by the operations of a forward pass from the same method on the
        network of the nearest size; without one, from a method measured on the same network, by
        the ratio of the two methods elsewhere.
        """
        exact = self.measured("train", f"{method} | {network} | {recipe}")
        if exact is not None:
            return scaled(exact, size=None)
        steps = [(r, *_parts(r)) for r in self._known if r.stage == "train" and r.size]
        own = [r for r, m, _, _ in steps if _name(m) == _name(method)]
        if not own:
            return NOTHING
        nearest = min(own, key=lambda r: _distance(r, size))
        others = [r for r, *_ in steps]
        bridge = min(others, key=lambda r: _distance(r, size))
        ratio = self._ratio(_name(method), _name(_parts(bridge)[0]))
        if ratio is None or _distance(nearest, size) <= _distance(bridge, size):
            return scaled(nearest, size=size, why=f"by GFLOP from {nearest.what}")
        why = f"by GFLOP from {bridge.what}, times {ratio:.2f} for the method"
        return scaled(replace(bridge, seconds=bridge.seconds * ratio), size=size, why=why)

    def _ratio(self, method: str, other: str) -> float | None:
        """Return how much longer a step of one method takes than one of another, side by side."""
        found: dict[str, dict[str, float]] = {}
        for rate in self._known:
            if rate.stage == "train" and " | " in rate.what:
                name, network, recipe = _parts(rate)
                found.setdefault(f"{network} | {recipe}", {}).setdefault(_name(name), rate.seconds)
        both = [known for known in found.values() if method in known and other in known]
        return both[0][method] / both[0][other] if both else None


def scaled(rate: Rate, *, size: float | None, why: str = "") -> Quote:
    """Return a rate for a unit of another size; the same size is no estimate."""
    if size is None or rate.size is None or (not why and size == rate.size):
        kind = ESTIMATE if rate.basis.startswith(ESTIMATE) else MEASURED
        return Quote(seconds=rate.seconds, bytes=rate.bytes, kind=kind, basis=rate.basis)
    factor = size / rate.size
    return Quote(
        seconds=rate.seconds * factor,
        bytes=None if rate.bytes is None else rate.bytes * factor,
        kind=ESTIMATE,
        basis=f"{why or 'by pixels'} ({rate.basis})",
    )


def _parts(rate: Rate) -> tuple[str, str, str]:
    method, network, recipe = rate.what.split(" | ")
    return method, network, recipe


def _name(text: str) -> str:
    return text.partition(" ")[0]


def _distance(rate: Rate, size: float) -> float:
    """Return how far apart two sizes are, as a factor from 1 up."""
    known = rate.size or 1.0
    return max(size / known, known / size)
