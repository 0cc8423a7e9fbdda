"""The training loop: one optimiser step after another, killable at any of them."""

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn, optim
from tqdm import tqdm

from zspl.errors import ZsplError
from zspl.methods import Method, Moment, deployed
from zspl.observer import Observer
from zspl.records import LabeledBatch, UnlabeledBatch
from zspl.seeding import derive
from zspl.settings import Train
from zspl.training import checkpoints
from zspl.training.checkpoints import Best, Progress
from zspl.training.history import History
from zspl.training.schedule import build_optimiser, poly_factor, set_learning_rate
from zspl.training.selection import Selection

REPORTS = 200
"""A training reports its losses about this often."""

Batch = tuple[LabeledBatch, UnlabeledBatch | None, UnlabeledBatch | None]
Batches = Iterable[Batch]


@runtime_checkable
class BatchSource(Protocol):
    """Where the batches of the steps start, start+1, ..., stop-1 come from."""

    def __call__(self, start: int, stop: int) -> Batches:
        """Return the batches, the same ones whenever the training is resumed at `start`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """All that a training needs and that a resumed one needs again, unchanged.

    Attributes:
        name: What the progress bar shows.
        recipe: `train` of params.yaml.
        iterations: Steps to do, `per_epoch` of them to an epoch.
        before: Steps that earlier rounds of the cell did; only reports count them.
        kept: Numbers of finished steps after which the network is written to `kept_path`.
        seed: Of the round.
        method: Whose loss is minimised.
        batches: What the steps learn from.
        selection: Chooses the best model.
        folder: Where the checkpoint and metrics.jsonl lie while the training is unfinished.
    """

    name: str
    recipe: Train
    iterations: int
    per_epoch: int
    before: int = 0
    kept: tuple[int, ...] = ()
    seed: int
    method: Method
    batches: BatchSource
    selection: Selection
    folder: Path

    def kept_path(self, iteration: int) -> Path:
        """Return the file of the network that was kept after `iteration` steps."""
        return self.folder / f"kept-{iteration}.safetensors"

    def moment(self, iteration: int) -> Moment:
        """Return a step as methods see it."""
        return Moment(iteration=iteration, total=self.iterations, per_epoch=self.per_epoch)


def train(training: Training, model: nn.Module, observer: Observer) -> Progress:
    """Train `model` in place from where its last checkpoint stands to the end.

    Args:
        training: What to do.
        model: What the method's `prepare` returned, on the device to train on.
        observer: Gets the losses and the scores of the selection.

    Returns:
        The finished progress, with the best model.

    Raises:
        ZsplError: if the loss is not finite; the last checkpoint stays.
    """
    optimiser = build_optimiser(model, training.recipe)
    progress = checkpoints.resume(training.folder, model, optimiser)
    report = _Report(training, observer, progress)
    total = training.iterations
    model.train()
    with tqdm(
        desc=f"train {training.name}", total=total, initial=progress.iteration, dynamic_ncols=True
    ) as bar:
        started = time.monotonic()
        for batch in training.batches(progress.iteration, total):
            numbers = _step(training, model, optimiser, progress.iteration, batch)
            now = time.monotonic()
            progress, started = progress.advanced(seconds=now - started), now
            bar.update()
            if _due(progress.iteration, every=max(1, total // REPORTS), total=total):
                values = {key: float(value) for key, value in numbers.items()}
                bar.set_postfix(loss=f"{values['loss']:.3f}")
                report.add(values, iteration=progress.iteration)
            progress = _select(training, model, progress, report)
            if progress.iteration in training.kept:
                kept = training.kept_path(progress.iteration)
                checkpoints.save_weights(kept, checkpoints.snapshot(deployed(model)))
            if _due(progress.iteration, every=training.recipe.checkpoint_every, total=total):
                checkpoints.save(training.folder, model, optimiser, progress)
    return progress


class _Report:
    """Tells metrics.jsonl and the observer the same numbers."""

    def __init__(self, training: Training, observer: Observer, progress: Progress) -> None:
        self._before = training.before
        self._observer = observer
        path = training.folder / "metrics.jsonl"
        self._history = History(path, iteration=self._before + progress.iteration)

    def add(self, values: Mapping[str, float], *, iteration: int) -> None:
        self._history.add(values, iteration=self._before + iteration)
        self._observer.metrics(values, step=self._before + iteration)


def _due(iteration: int, *, every: int, total: int) -> bool:
    return iteration % every == 0 or iteration == total


def _step(
    training: Training,
    model: nn.Module,
    optimiser: optim.Optimizer,
    iteration: int,
    batch: Batch,
) -> Mapping[str, Tensor | float]:
    recipe = training.recipe
    factor = poly_factor(iteration, total=training.iterations, power=recipe.poly_power)
    set_learning_rate(optimiser, recipe, factor=factor)
    torch.manual_seed(derive(training.seed, "step", iteration))
    moment = training.moment(iteration)
    method = training.method.at(moment)
    loss = method(model, *_to(batch, next(model.parameters()).device))
    value = loss.total.item()
    if not math.isfinite(value):
        raise ZsplError(
            f"train {training.name}: the loss is {value} at iteration {iteration} of "
            f"{training.iterations}; lower train.learning_rate or train.head_multiplier (the last "
            f"checkpoint stays in {training.folder})"
        )
    optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward(loss.total)
    optimiser.step()
    with torch.no_grad():
        method.after_step(model, moment)
    return {"loss": value, **loss.parts, "learning_rate": recipe.learning_rate * factor}


def _select(training: Training, model: nn.Module, progress: Progress, report: _Report) -> Progress:
    """Score the network when that is due, and keep it if it is the best so far."""
    iteration, total = progress.iteration, training.iterations
    selection, network = training.selection, deployed(model)
    if selection.name == "last":
        if iteration < total:
            return progress
        last = Best(iteration=total, score=None, model=checkpoints.snapshot(network))
        return replace(progress, best=last)
    if not _due(iteration, every=training.recipe.evaluate_every, total=total):
        return progress
    score = selection.score(network)
    report.add({f"{selection.name}_miou": score}, iteration=iteration)
    best = progress.best
    if best is not None and best.score is not None and not score > best.score:
        return progress
    return replace(
        progress, best=Best(iteration=iteration, score=score, model=checkpoints.snapshot(network))
    )


def _to(batch: Batch, device: torch.device) -> Batch:
    """Move the tensors of a step's batches to the device."""
    labeled, unlabeled, partner = batch
    return (
        replace(labeled, **_moved(labeled, device)),
        unlabeled and replace(unlabeled, **_moved(unlabeled, device)),
        partner and replace(partner, **_moved(partner, device)),
    )


def _moved(batch: LabeledBatch | UnlabeledBatch, device: torch.device) -> dict[str, Any]:
    tensors = ((field.name, getattr(batch, field.name)) for field in fields(batch))
    return {name: v if v is None else v.to(device, non_blocking=True) for name, v in tensors}
