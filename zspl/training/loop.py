"""The training loop: one optimiser step after another, killable at any of them."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import Tensor, nn
from tqdm import tqdm

from zspl.io import processes
from zspl.methods import Method, Moment, deployed
from zspl.observer import Observer
from zspl.settings import Train
from zspl.training import checkpoints
from zspl.training.checkpoints import Best, Progress, Stateful
from zspl.training.health import Drift, check_weights
from zspl.training.history import History
from zspl.training.schedule import poly_factor
from zspl.training.selection import Selection
from zspl.training.step import Batch, Ids, Learner, Step, build_learner, make_step

REPORTS = 200
"""A training reports its losses about this often."""

Batches = Iterable[Batch]
Numbers = Mapping[str, Tensor]


@runtime_checkable
class BatchSource(Protocol):
    """Where the batches of the steps start, start+1, ..., stop-1 come from."""

    def __call__(self, start: int, stop: int) -> Batches:
        """Return the batches, the same ones whenever the training is resumed at `start`."""


def _unknown(iteration: int) -> Ids:  # noqa: ARG001 - for batches that come without names
    return (), ()


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
        ids: Tells the ids of the labeled and the unlabeled images of a step.
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
    ids: Callable[[int], Ids] = _unknown

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
        ZsplError: if the loss or a weight is not finite; the last good checkpoint stays.
        WeightsError: if the checkpoint is of another model.
    """
    drift = Drift(training.name, training.selection.table.names)
    learner = build_learner(model, training.recipe, drift)
    beside: dict[str, Stateful] = {"scaler": learner.scaler, "drift": drift}
    progress = checkpoints.resume(training.folder, model, learner.optimiser, others=beside)
    report = _Report(training, observer, progress)
    total = training.iterations
    model.train()
    with tqdm(
        desc=f"train {training.name}",
        total=total,
        initial=progress.iteration,
        dynamic_ncols=True,
        disable=not processes.is_first(),
    ) as bar:
        started = time.monotonic()
        for batch in training.batches(progress.iteration, total):
            numbers = _step(training, learner, progress.iteration, batch)
            now = time.monotonic()
            progress, started = progress.advanced(seconds=now - started), now
            bar.update()
            if _due(progress.iteration, every=max(1, total // REPORTS), total=total):
                values = _values(numbers, learner, done=progress.iteration / total)
                bar.set_postfix(loss=f"{values['loss']:.3f}")
                report.add(values, iteration=progress.iteration)
            saves = _due(progress.iteration, every=training.recipe.checkpoint_every, total=total)
            if saves:
                check_weights(
                    model,
                    where=f"train {training.name}: iteration {progress.iteration}",
                    stays=checkpoints.what_stays(training.folder),
                )
            progress = _select(training, model, progress, report)
            if progress.iteration in training.kept and processes.is_first():
                kept = training.kept_path(progress.iteration)
                checkpoints.save_weights(kept, checkpoints.snapshot(deployed(model)))
            if saves and processes.is_first():
                checkpoints.save(training.folder, model, learner.optimiser, progress, others=beside)
    processes.wait()
    return progress


class _Report:
    """Tells metrics.jsonl and the observer the same numbers, once for all processes."""

    def __init__(self, training: Training, observer: Observer, progress: Progress) -> None:
        self._before = training.before
        self._observer = observer
        path = training.folder / "metrics.jsonl"
        start = self._before + progress.iteration
        self._history = History(path, iteration=start) if processes.is_first() else None

    def add(self, values: Mapping[str, float], *, iteration: int) -> None:
        if self._history is None:
            return
        self._history.add(values, iteration=self._before + iteration)
        self._observer.metrics(values, step=self._before + iteration)


def _due(iteration: int, *, every: int, total: int) -> bool:
    return iteration % every == 0 or iteration == total


def _step(training: Training, learner: Learner, iteration: int, batch: Batch) -> Numbers:
    recipe, total = training.recipe, training.iterations
    step = Step(
        name=training.name,
        folder=training.folder,
        moment=training.moment(iteration),
        factor=poly_factor(iteration, total=total, power=recipe.poly_power),
        seed=training.seed,
        ids=training.ids(iteration),
    )
    return make_step(step, learner, training.method, recipe, batch)


def _values(numbers: Numbers, learner: Learner, *, done: float) -> Mapping[str, float]:
    """Return what is reported of a step, over all processes."""
    means = {key: float(processes.mean(value.float())) for key, value in numbers.items()}
    rate = learner.optimiser.param_groups[0]["lr"]
    return {**means, **learner.drift.report(done=done), "learning_rate": rate}


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
