"""Rates from what this benchmark's finished stage instances took."""

from statistics import median

from zspl.datasets import Dataset
from zspl.io.timings import Timing, read_timings
from zspl.planning.rates import Rate
from zspl.records import Sizes
from zspl.settings import Settings

STAGES = ("prepare", "propose", "embed", "label", "evaluate")
"""A finished training is left out: its time holds selections, and other settings may have more."""


def rates_of(settings: Settings) -> list[Rate]:
    """Return the rates of what has finished below `paths.out`, the median over equal instances."""
    timings = read_timings(settings.paths.out)
    if not timings:
        return []
    dataset: Dataset = settings.prepare.dataset.build("zspl.datasets")
    source = settings.paths.source
    sizes = {name: dataset.sizes(source, name) for name in settings.prepare.splits}
    groups: dict[tuple[str, str, str], list[float]] = {}
    for timing in timings:
        units = _units(timing, sizes, settings)
        if units and timing.cost is not None:
            key = (timing.device, timing.stage, timing.what)
            groups.setdefault(key, []).append(timing.cost / units)
    pixels = next(iter(sizes.values())).pixels
    return [
        Rate(
            device=device,
            stage=stage,
            what=what,
            unit="image",
            seconds=median(costs),
            size=None if stage in ("propose", "embed") else float(pixels),
            basis=f"{len(costs)} finished here",
        )
        for (device, stage, what), costs in groups.items()
    ]


def _units(timing: Timing, sizes: dict[str, Sizes], settings: Settings) -> float | None:
    """Return how many images an instance worked off, None if that is not known."""
    if timing.stage not in STAGES:
        return None
    if timing.stage != "evaluate":
        return None if timing.units is None else float(timing.units)
    if "variant" in timing.instance:
        return None
    split = sizes.get(timing.instance["split"])
    how = settings.evaluate
    views = sum(s * s for s in how.scales) * (2 if how.flip else 1)
    twice = 1 if settings.train.selection == "last" else 2
    return None if split is None else split.val * views * twice
