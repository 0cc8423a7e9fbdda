"""The order in which a training meets its images."""

import math
from collections.abc import Sequence

from zspl.seeding import generator


class IdStream:
    """An endless shuffled list of ids: whole batches of one permutation per epoch.

    A list shorter than a batch is repeated until it fills one.

    Args:
        ids: At least one id.
        batch: Ids per step.
        seed: Of the training.
        purpose: Tells the streams of one training apart.
    """

    def __init__(self, ids: Sequence[str], batch: int, *, seed: int, purpose: str) -> None:
        self._ids = tuple(ids) * max(1, math.ceil(batch / len(ids)))
        self._batch = batch
        self._seed = seed
        self._purpose = purpose
        self._shuffled: tuple[int, list[int]] = (-1, [])

    def __len__(self) -> int:
        """Return the batches of one epoch; ids that do not fill a batch are left out of it."""
        return len(self._ids) // self._batch

    def at(self, step: int) -> list[str]:
        """Return the ids of a step (0-based), whatever was asked for before."""
        epoch, position = divmod(step, len(self))
        if self._shuffled[0] != epoch:
            order = generator(self._seed, "order", self._purpose, epoch).permutation(len(self._ids))
            self._shuffled = (epoch, order.tolist())
        first = position * self._batch
        return [self._ids[k] for k in self._shuffled[1][first : first + self._batch]]
