"""What a training leaves on disk so that a killed one continues as if nothing had happened."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn, optim

from zspl.errors import DataError, WeightsError
from zspl.io import atomic
from zspl.models.pretrained import UNREADABLE, misfit

CHECKPOINT = "checkpoint.pt"
PARTS = ("iteration", "seconds", "model", "optimiser", "others", "best")
"""What a checkpoint holds."""

State = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Best:
    """The best model so far: `score` is its mIoU in [0, 1], None when nothing selects."""

    iteration: int
    score: float | None
    model: State


def what_stays(folder: Path) -> str:
    """Return what a training that stops here leaves behind, for the line that says why."""
    if (folder / CHECKPOINT).exists():
        return f"the last good checkpoint stays in {folder} until other settings train anew"
    return "there was no checkpoint yet"


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Where a training stands: `iteration` steps are done.

    Random numbers need no place here: each step seeds its own from the run's seed.
    """

    iteration: int = 0
    seconds: float = 0.0
    best: Best | None = None

    def advanced(self, *, seconds: float) -> "Progress":
        """Return the progress after one more step that took `seconds`."""
        return replace(self, iteration=self.iteration + 1, seconds=self.seconds + seconds)


def snapshot(model: nn.Module) -> State:
    """Return a copy of the model's tensors on the processor."""
    return {key: value.detach().cpu().clone() for key, value in model.state_dict().items()}


def save_weights(path: Path, state: State) -> None:
    """Write a model's tensors as safetensors, atomically.

    Raises:
        DiskError: if the disk is full or the folder is not writable.
    """
    contiguous = {key: value.contiguous() for key, value in state.items()}
    atomic.write_bytes(path, to_safetensors(contiguous))


@runtime_checkable
class Stateful(Protocol):
    """Something small beside the model and its optimiser that a resumed training needs."""

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and numbers by name."""

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Take over what `state_dict` returned."""


def save(
    folder: Path,
    model: nn.Module,
    optimiser: optim.Optimizer,
    progress: Progress,
    *,
    others: Mapping[str, Stateful] = MappingProxyType({}),
) -> None:
    """Write the checkpoint that `resume` reads, replacing the last one atomically.

    Raises:
        DiskError: if the disk is full or the folder is not writable.
    """
    best = progress.best
    content = {
        "iteration": progress.iteration,
        "seconds": progress.seconds,
        "model": snapshot(model),
        "optimiser": optimiser.state_dict(),
        "others": {name: other.state_dict() for name, other in others.items()},
        "best": best and {"iteration": best.iteration, "score": best.score, "model": best.model},
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    atomic.write_bytes(folder / CHECKPOINT, buffer.getvalue())


def resume(
    folder: Path,
    model: nn.Module,
    optimiser: optim.Optimizer,
    *,
    others: Mapping[str, Stateful] = MappingProxyType({}),
) -> Progress:
    """Load the last checkpoint into model, optimiser and others; without one, start at 0.

    Raises:
        DataError: if the checkpoint cannot be read.
        WeightsError: if it is of another model.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return Progress()
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise DataError(
            f"{path}: not a readable checkpoint; delete the file to train from the start"
        ) from error
    if not isinstance(content, Mapping) or any(part not in content for part in PARTS):
        raise DataError(
            f"{path}: holds no state of a training, expected {', '.join(PARTS)}; delete the file "
            "to train from the start"
        )
    try:
        reason = misfit(content["model"], model.state_dict())
        if reason is None:
            model.load_state_dict(content["model"])
            optimiser.load_state_dict(content["optimiser"])
            for name, other in others.items():
                other.load_state_dict(content["others"][name])
    except UNREADABLE as error:
        reason = " ".join(str(error).split())[:200]
    if reason is not None:
        raise WeightsError(
            f"{path}: is of another model or version ({reason}); delete the file to train from "
            "the start"
        )
    best = content["best"]
    return Progress(
        iteration=content["iteration"], seconds=content["seconds"], best=best and Best(**best)
    )
