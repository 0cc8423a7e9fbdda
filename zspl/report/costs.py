"""What the trainings cost, as far as this machine ran them."""

import json
import math

import pandas as pd

from zspl.evaluation.results import configured_cells
from zspl.io.layout import Cell, Layout
from zspl.io.timings import Timing, timing_of
from zspl.report.formats import ABSENT, Table, duration
from zspl.settings import Settings


def read_costs(settings: Settings) -> pd.DataFrame:
    """Return one row per configured training; NaN where this machine knows no cost.

    Columns: method, model, split, seed, device (empty if unknown), steps, seconds,
    peak_memory_mib.
    """
    return pd.DataFrame(
        {"method": cell.name, "model": cell.model, "split": cell.split, "seed": cell.seed}
        | _numbers(timing_of(settings, "train", cell.instance), _steps(settings, cell))
        for cell in configured_cells(settings)
    )


def _steps(settings: Settings, cell: Cell) -> int | None:
    """Return the steps of the training that is there; the one that was timed may be another."""
    try:
        path = Layout(settings.paths.out).cell(cell) / "summary.json"
        return int(json.loads(path.read_text(encoding="utf-8"))["iterations"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _numbers(timing: Timing | None, steps: int | None) -> dict[str, str | float]:
    if timing is None or steps not in (None, timing.units):
        return {"device": "", **dict.fromkeys(("steps", "seconds", "peak_memory_mib"), math.nan)}
    return {
        "device": timing.device,
        "steps": float(timing.units or math.nan),
        "seconds": timing.seconds,
        "peak_memory_mib": float(timing.peak_memory_mib),
    }


def cost_table(costs: pd.DataFrame) -> Table | None:
    """Time and memory per method, model and split, over seeds, and the sum; None if unknown."""
    known = costs.dropna(subset=["seconds"])
    if known.empty:
        return None
    rows = []
    for names, runs in costs.groupby(["method", "model", "split"], sort=False):
        row = dict(zip(("method", "model", "split"), map(str, names), strict=True))
        found = runs.dropna(subset=["seconds"])
        row["trainings"] = (
            f"{len(found)} of {len(runs)}" if len(found) < len(runs) else f"{len(found)}"
        )
        rows.append(row | _shown(found))
    total = {"method": "all", "model": "", "split": "", "trainings": str(len(known))}
    rows.append(total | dict.fromkeys(("steps", "time each", "steps/s"), "") | _sums(known))
    unknown = len(costs) - len(known)
    notes = [
        "Time of the steps and of the selections on val; labels and scores come on top. "
        f"Device: {', '.join(sorted(set(known['device'])))}. "
        "Peak memory: of the GPU, or on a CPU of the process with all its libraries."
    ]
    if unknown:
        notes.append(f"{unknown} trainings ran elsewhere or earlier; their cost is not known here.")
    return Table(
        name="cost",
        title="Cost of the trainings",
        display=pd.DataFrame(rows),
        numbers=costs.assign(steps_per_second=costs["steps"] / costs["seconds"]),
        notes=tuple(notes),
        headings=3,
    )


def _shown(found: pd.DataFrame) -> dict[str, str]:
    if found.empty:
        return dict.fromkeys(
            ("steps", "time each", "steps/s", "peak memory", "time in all"), ABSENT
        )
    seconds = found["seconds"].mean()
    rate = (found["steps"] / found["seconds"]).mean()
    return {
        "steps": f"{found['steps'].max():.0f}",
        "time each": duration(seconds),
        "steps/s": f"{rate:.1f}" if math.isfinite(rate) else ABSENT,
        **_sums(found),
    }


def _sums(found: pd.DataFrame) -> dict[str, str]:
    return {
        "peak memory": f"{found['peak_memory_mib'].max() / 1024:.1f} GiB",
        "time in all": duration(found["seconds"].sum()),
    }
