"""The numbers of a whole folder of results, gathered one photo at a time."""

import heapq
from collections import Counter
from dataclasses import dataclass, field

from zspl.annotation.facts import Facts
from zspl.annotation.results import Results
from zspl.records import IGNORE_INDEX

_MUCH_UNCLAIMED = 0.2
_LITTLE_COVERAGE = 0.7
_MUCH_CONFLICT = 0.1


@dataclass(kw_only=True)
class _Mean:
    """A mean weighted by pixels; None as long as nothing was added."""

    total: float = 0.0
    weight: int = 0

    def add(self, value: float | None, weight: int) -> None:
        if value is not None:
            self.total += value * weight
            self.weight += weight

    @property
    def value(self) -> float | None:
        return self.total / self.weight if self.weight else None


@dataclass(kw_only=True)
class Summary:
    """Totals over all labeled photos; every mean is over pixels.

    Attributes:
        photos: How many are labeled.
        pixels: Pixels by class id, 255 included.
        photos_with: Photos that show a class, by class id.
        doubtful: Names of the most doubtful photos, most doubtful first.
    """

    photos: int = 0
    pixels: Counter[int] = field(default_factory=Counter)
    photos_with: Counter[int] = field(default_factory=Counter)
    doubtful: list[str] = field(default_factory=list)
    _coverage: _Mean = field(default_factory=_Mean)
    _conflict: _Mean = field(default_factory=_Mean)
    _doubt: _Mean = field(default_factory=_Mean)

    @property
    def coverage(self) -> float | None:
        """Share of pixels in a segment, in [0, 1]; None without segments."""
        return self._coverage.value

    @property
    def conflict(self) -> float | None:
        """Share of pixels whose segments disagree, in [0, 1]; None where that is not known."""
        return self._conflict.value

    @property
    def confidence(self) -> float | None:
        """Mean confidence in [0, 1]; None without photos."""
        doubt = self._doubt.value
        return None if doubt is None else 1 - doubt

    def share(self, class_id: int) -> float:
        """Return the share of all pixels that a class has, in [0, 1]."""
        return self.pixels[class_id] / max(1, self.pixels.total())

    def add(self, facts: Facts) -> None:
        """Count one photo."""
        area = facts.width * facts.height
        self.photos += 1
        self.pixels.update(facts.pixels)
        self.photos_with.update(i for i, count in facts.pixels.items() if count > 0)
        self._coverage.add(facts.coverage, area)
        self._conflict.add(facts.conflict, area)
        self._doubt.add(facts.doubt, area)


def summarise(results: Results, *, doubtful: int) -> Summary:
    """Read the facts of every photo, one at a time.

    Args:
        results: The folder of results.
        doubtful: How many of the most doubtful photos to name; ties go by name.

    Raises:
        DataError: if a file of facts is damaged.
    """
    summary = Summary()
    doubts: list[tuple[float, str]] = []
    for name in results.names():
        facts = results.facts(name)
        summary.add(facts)
        doubts.append((-facts.doubt, name))
    summary.doubtful = [name for _, name in heapq.nsmallest(doubtful, doubts)]
    return summary


def reasons(facts: Facts) -> str:
    """Return in words why a photo is doubtful, the confidence first."""
    area = facts.width * facts.height
    found = [f"mean confidence {1 - facts.doubt:.2f}"]
    if not any(count for i, count in facts.pixels.items() if i not in {0, IGNORE_INDEX}):
        found.append("no class was found")
    if (unclaimed := facts.pixels.get(IGNORE_INDEX, 0) / area) >= _MUCH_UNCLAIMED:
        found.append(f"{100 * unclaimed:.0f} % not claimed")
    if facts.coverage is not None and facts.coverage <= _LITTLE_COVERAGE:
        found.append(f"{100 * (1 - facts.coverage):.0f} % in no segment")
    if facts.conflict is not None and facts.conflict >= _MUCH_CONFLICT:
        found.append(f"segments disagree on {100 * facts.conflict:.0f} %")
    return ", ".join(found)
