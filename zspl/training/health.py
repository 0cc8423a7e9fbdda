"""Signs that a training goes wrong: classes that vanish, weights that are no numbers."""

import logging
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from zspl.errors import ZsplError
from zspl.io import processes
from zspl.losses import count_classes
from zspl.records import IGNORE_INDEX

LOG = logging.getLogger("zspl.training")

KEEP = 0.99
"""Share of the running counts that outlives a step: they remember about a hundred steps."""

VANISHED, THERE = 0.01, 0.1
"""Shares in the pseudo labels, over those in the masks, below and from which a class is so."""

SILENT = 0.1
"""Share of a training in which nothing is called vanished: a new network guesses."""


class Drift:
    """How far the classes of the model's pseudo labels are from those of the labeled masks.

    Both are running counts of pixels, on the processor or the device; reading them waits for it.

    Args:
        name: Of the training, for its lines.
        classes: Names, background first.
    """

    def __init__(self, name: str, classes: Sequence[str]) -> None:
        self._name = name
        self._classes = tuple(classes)
        self._there: set[int] = set()
        self._taught = torch.zeros(len(classes), dtype=torch.float64)
        self._found = torch.zeros(len(classes), dtype=torch.float64)

    def update(self, label: Int64[Tensor, "B S S"], found: Int64[Tensor, " C"]) -> None:
        """Add a process's share of a step: its masks, and its pixels of each pseudo class."""
        if self._found.device != found.device:
            self._taught, self._found = self._taught.to(found.device), self._found.to(found.device)
        taught = count_classes(label, label != IGNORE_INDEX, classes=len(self._classes))
        both = processes.total(torch.stack([taught, found]))
        self._taught, self._found = self._taught * KEEP + both[0], self._found * KEEP + both[1]

    def report(self, *, done: float) -> Mapping[str, float]:
        """Return `class_drift`, and say in one line which classes have vanished since.

        The drift is half the sum of the differences between the shares of the classes, in
        [0, 1]; nothing is returned for a method that finds no labels.

        Args:
            done: Share of the training, in [0, 1].
        """
        found, taught = self._found.cpu(), self._taught.cpu()
        if not found.sum() > 0:
            return {}
        of_found, of_taught = found / found.sum(), taught / taught.sum().clamp(min=1)
        if done >= SILENT:
            self._look_for_vanished(of_found, of_taught)
        return {"class_drift": float((of_found - of_taught).abs().sum() / 2)}

    def state_dict(self) -> dict[str, Tensor]:
        """Return what a resumed training needs."""
        there = torch.tensor(sorted(self._there), dtype=torch.long)
        return {"taught": self._taught.cpu(), "found": self._found.cpu(), "there": there}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` returned."""
        self._taught, self._found = state["taught"], state["found"]
        self._there = set(state["there"].tolist())

    def _look_for_vanished(self, found: Float[Tensor, " C"], taught: Float[Tensor, " C"]) -> None:
        gone = {k for k in self._there if found[k] < VANISHED * taught[k]}
        come = ((taught > 0) & (found >= THERE * taught)).nonzero().flatten().tolist()
        self._there = (self._there - gone) | set(come)
        if gone and processes.is_first():
            names = ", ".join(repr(self._classes[k]) for k in sorted(gone))
            LOG.warning(
                "train %s: the model has stopped finding %s in unlabeled images, though the masks "
                "show it; watch class_drift, or train longer on labeled images",
                self._name,
                names,
            )


def check_weights(model: nn.Module, *, where: str, stays: str) -> None:
    """Refuse weights that are not finite before they replace a good checkpoint.

    Args:
        model: What is trained.
        where: Which training, and when.
        stays: What it leaves behind.

    Raises:
        ZsplError: if a parameter or buffer holds a value that is not finite.
    """
    tensors = {key: v for key, v in model.state_dict().items() if v.is_floating_point()}
    finite = torch.stack([value.isfinite().all() for value in tensors.values()]).cpu()
    if not finite.all():
        key = next(key for key, good in zip(tensors, finite.tolist(), strict=True) if not good)
        raise ZsplError(
            f"{where}: the weights {key} are not finite; lower train.learning_rate or "
            f"train.head_multiplier ({stays})"
        )


def strange_crop(batches: Mapping[str, Tensor]) -> tuple[str, int] | None:
    """Return the name of the first batch of crops that holds a value that is not finite, and where.

    Args:
        batches: Normalised crops Float[B ...] by name.

    Returns:
        The name and the crop's 0-based place in the batch; None if all are finite.
    """
    for name, crops in batches.items():
        strange = (~crops.isfinite()).flatten(1).any(dim=1).nonzero()
        if len(strange):
            return name, int(strange[0])
    return None
