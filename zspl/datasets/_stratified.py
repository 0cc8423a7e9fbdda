"""Drawing a few images so that each class gets its share."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from zspl.errors import SettingsError

PREFIX = "drawn_"
"""A split `drawn_<n>` labels n images drawn by `stratified_order`."""


def drawn_number(name: str, *, limit: int) -> int | None:
    """Return n of the split name `drawn_<n>`, None for a name of another kind.

    Raises:
        SettingsError: if n is no number from 1 to `limit`.

    Example:
        >>> drawn_number("drawn_20", limit=100), drawn_number("mine", limit=100)
        (20, None)
    """
    if not name.startswith(PREFIX):
        return None
    digits = name.removeprefix(PREFIX)
    number = int(digits) if digits.isascii() and digits.isdecimal() else 0
    if not 1 <= number <= limit or digits != str(number):
        raise SettingsError(
            f"prepare.splits: no split {name!r}; write drawn_<n> with n from 1 to {limit}, the "
            "images that can be labeled"
        )
    return number


def draw(
    ids: Sequence[str],
    shown: npt.NDArray[np.bool_],
    *,
    number: int,
    rng: np.random.Generator,
) -> tuple[str, ...]:
    """Return the first `number` ids of the stratified order.

    Args:
        ids: N image ids.
        shown: Bool[N C], whether an image shows a class.
        number: At most N.
        rng: Decides between images that serve equally well.
    """
    order = itertools.islice(stratified_order(shown, rng), number)
    return tuple(ids[index] for index in order)


def stratified_order(shown: npt.NDArray[np.bool_], rng: np.random.Generator) -> Iterator[int]:
    """Yield every index once, so that each class has its share of every head of the order.

    The next image is one of the class that is furthest behind: the one with the smallest part of
    its images already taken, the rarer class first where parts are equal. Images that show no
    class count as a class. So the first images show each class at least once, as far as one image
    per class goes, and a shorter head is a part of every longer one.

    Args:
        shown: Bool[N C], whether an image shows a class.
        rng: Decides between the images of a class.
    """
    groups = np.column_stack([shown, ~shown.any(axis=1)])
    groups = groups[:, groups.any(axis=0)]
    sizes = groups.sum(axis=0)
    by_rarity = np.argsort(sizes, kind="stable")
    groups, sizes = groups[:, by_rarity], sizes[by_rarity]
    shuffled = rng.permutation(len(groups))
    waiting = [iter(shuffled[groups[shuffled, group]]) for group in range(len(sizes))]
    taken = np.zeros(len(groups), bool)
    counts = np.zeros(len(sizes), np.int64)
    for _ in range(len(groups)):
        group = int(np.argmin(np.where(counts < sizes, counts / sizes, np.inf)))
        index = next(int(index) for index in waiting[group] if not taken[index])
        taken[index] = True
        counts += groups[index]
        yield index
