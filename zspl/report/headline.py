"""The result in plain words, and what may not be concluded from it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from zspl.evaluation.results import Results
from zspl.report.published import Pair
from zspl.report.roles import BASELINE, row_of, series_name
from zspl.report.tables import Spread, over_seeds
from zspl.settings import Settings

_RARE = 0.05
"""How seldom chance alone may order the seeds so, for an order to be called clear."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Headline:
    """Sentences: what was found, what must not be read into it, and the names of ours in both."""

    found: tuple[str, ...]
    caution: tuple[str, ...]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Place:
    name: str
    row: str
    scores: tuple[float, ...]
    spread: Spread


def headline(settings: Settings, results: Results, found: Sequence[Pair]) -> Headline:
    """Return the result in words.

    Args:
        settings: All settings.
        results: Our scores.
        found: Ours beside published numbers.
    """
    sentences, unclear = [], []
    for split in settings.cells.splits:
        places = _places(settings, results, split)
        labels = results.labeled_images[split]
        if not places:
            sentences.append(f"With {labels} labeled images no training has a score.")
            continue
        sentences.append(_winner(settings, places, labels))
        if len(places) > 1:
            unclear.append(_doubt(places[0], places[1], labels))
    if results.cells[settings.tabulate.checkpoint].isna().all():
        sentences = ["No training has a score yet."]
    return Headline(
        found=(*sentences, *_beside(found)),
        caution=(*_order(unclear), *_limits(settings, results, found)),
        names=tuple(dict.fromkeys(_names(results))),
    )


def _names(results: Results) -> Iterator[str]:
    for row, model in zip(results.cells["row"], results.cells["model"], strict=True):
        yield series_name(results, str(row), str(model))


def _places(settings: Settings, results: Results, split: str) -> list[_Place]:
    """Return what has a score at a split, best mean first."""
    checkpoint = settings.tabulate.checkpoint
    cells = results.cells[results.cells["split"] == split]
    places = []
    for (row, model), runs in cells.groupby(["row", "model"], sort=False):
        scores = tuple(runs[checkpoint].dropna())
        if scores:
            name = series_name(results, str(row), str(model))
            places.append(_Place(name, str(row), scores, over_seeds(runs[checkpoint])))
    return sorted(places, key=lambda place: -place.spread.mean)


def _winner(settings: Settings, places: Sequence[_Place], labels: int) -> str:
    best, *others = places
    text = f"With {labels} labeled images {best.name} has the highest mIoU: {_said(best.spread)}"
    if others:
        second = others[0]
        gap = best.spread.mean - second.spread.mean
        text += f"; next is {second.name} with {_said(second.spread)}, {gap:.1f} points less"
    baseline = row_of(settings, BASELINE)
    below = next((place for place in places if place.row == baseline), None)
    if below is not None and below not in places[:2]:
        text += f"; {below.name} has {_said(below.spread)}"
    return text + "."


def _said(spread: Spread) -> str:
    if spread.n == 1:
        return f"{spread.mean:.1f} % (one seed)"
    return f"{spread.mean:.1f} ± {spread.std:.1f} % ({spread.n} seeds)"


def _doubt(best: _Place, second: _Place, labels: int) -> tuple[int, str]:
    """Return the number of labels and how sure the order of the first two is."""
    apart = min(best.scores) > max(second.scores)
    chance = 2 / math.comb(len(best.scores) + len(second.scores), len(best.scores))
    if len(best.scores) == 1 or len(second.scores) == 1:
        return labels, "one seed"
    if not apart:
        return labels, f"seeds of {best.name} and {second.name} overlap"
    if chance > _RARE:
        return (
            labels,
            f"too few seeds: chance alone separates them so in 1 of {1 / chance:.0f} cases",
        )
    return labels, ""


def _order(doubts: Sequence[tuple[int, str]]) -> list[str]:
    """Return one sentence per kind of doubt about who is first, naming the numbers of labels."""
    by_kind: dict[str, list[str]] = {}
    for labels, doubt in doubts:
        if doubt:
            by_kind.setdefault(doubt, []).append(str(labels))
    sentences = []
    for doubt, counts in by_kind.items():
        where = f"at {_listed(counts)} labels"
        if doubt == "one seed":
            sentences.append(
                f"Who is first {where} is not settled: the first or the second has one seed, and "
                "another seed can move a score by several points."
            )
        else:
            sentences.append(f"Who is first {where} is not settled ({doubt}).")
    return sentences


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _beside(found: Sequence[Pair]) -> list[str]:
    run = [pair for pair in found if pair.ours.n]
    if not run:
        return []
    gaps = [pair.ours.mean - pair.published for pair in run]
    low, high = min(gaps), max(gaps)
    return [
        f"{len(run)} of our numbers have a published one beside them; ours minus published goes "
        f"from {low:+.1f} to {high:+.1f} points."
    ]


def _limits(settings: Settings, results: Results, found: Sequence[Pair]) -> list[str]:
    """Return what limits every number of the page."""
    limits = []
    if results.cells[settings.tabulate.checkpoint].isna().all():
        return ["There is nothing of ours to compare."]
    if results.missing:
        limits.append(
            f"{len(results.missing)} scores are missing, so a mean may be over fewer seeds than "
            "the one it is compared with."
        )
    if settings.tabulate.checkpoint == "best" and settings.train.selection == "val":
        limits.append("The checkpoints were chosen on val, so every number is optimistic.")
    if len(results.seen) > 1:
        limits.append("Not all trainings were evaluated alike; the tables say which.")
    if any(pair.ours.n for pair in found):
        limits.append(
            "A difference from a published number is no improvement or failure by itself: "
            "networks, crops, schedules and seeds differ where the table says so."
        )
    limits.append(
        f"The numbers hold for {settings.prepare.dataset.name} as it was cut here, these networks "
        "and this length of training. An order found here need not hold elsewhere."
    )
    return limits
