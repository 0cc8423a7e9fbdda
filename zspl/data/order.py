"""The order in which a training meets its images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from zspl.errors import SettingsError
from zspl.seeding import generator


@dataclass(frozen=True, slots=True)
class Share:
    """What one of several processes loads of every batch: the same part of each micro-batch.

    Attributes:
        process: Number of the process, from 0.
        processes: That share a batch.
        micro_batches: That a batch is worked off in.
    """

    process: int = 0
    processes: int = 1
    micro_batches: int = 1

    def of(self, ids: Sequence[str]) -> list[tuple[int, str]]:
        """Return the places, in the whole batch, and the ids of this process's images, in order.

        Example:
            >>> Share(process=1, processes=2, micro_batches=2).of("abcd")
            [(1, 'b'), (3, 'd')]

        Raises:
            SettingsError: if the batch cannot be shared evenly.
        """
        size, rest = divmod(len(ids), self.processes * self.micro_batches)
        if rest:
            raise SettingsError(
                f"train: a batch of {len(ids)} images cannot be shared evenly by {self.processes} "
                f"processes in {self.micro_batches} micro-batches; change train.batch_labeled and "
                "train.batch_unlabeled, train.accumulate or the number of processes"
            )
        starts = range(self.process * size, len(ids), self.processes * size)
        return [(place, ids[place]) for start in starts for place in range(start, start + size)]

    def check_pairs(self, batch: int) -> None:
        """Refuse a batch whose micro-batches hold one crop in a process, with none to pair it with.

        Raises:
            SettingsError: if that is so.
        """
        parts = self.processes * self.micro_batches
        if batch < 2 * parts:
            raise SettingsError(
                f"train: cutmix_partner is batch, but of {batch} unlabeled crops each of {parts} "
                "part(s) of a step gets one, which has no other to paste; raise "
                "train.batch_unlabeled, lower train.accumulate or the number of processes, or set "
                "train.cutmix_partner to same_image"
            )


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
        """Return the batches of one epoch; ids that do not fill a batch are left out of it.

        Unlike the official code on G GPUs, which repeats up to G - 1 ids to share them evenly, this
        is the same for any number of processes: at most one batch fewer (docs/parity.md).
        """
        return len(self._ids) // self._batch

    def at(self, step: int) -> list[str]:
        """Return the ids of a step (0-based), whatever was asked for before."""
        epoch, position = divmod(step, len(self))
        if self._shuffled[0] != epoch:
            order = generator(self._seed, "order", self._purpose, epoch).permutation(len(self._ids))
            self._shuffled = (epoch, order.tolist())
        first = position * self._batch
        return [self._ids[k] for k in self._shuffled[1][first : first + self._batch]]
