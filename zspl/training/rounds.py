"""The rounds of one cell: one training after the other, each killable at any step.

A finished round is recognised by its checkpoint, which stands at its end; so a killed cell walks
through the finished ones without a step and continues the one that was under way.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from torch import nn

from zspl.data.label_quality import LabelQuality
from zspl.data.loading import TrainingData
from zspl.io import devices, processes
from zspl.io.classes import ClassTable
from zspl.methods import Facts, Method, Round, Trained, deployed
from zspl.models import SegmentationNetwork
from zspl.models.pretrained import read_state
from zspl.observer import Observer
from zspl.records import ImageRecord, Split
from zspl.seeding import derive, seed_everything
from zspl.settings import Train
from zspl.training import checkpoints
from zspl.training.checkpoints import Best, Progress, State
from zspl.training.loop import Batches, Training, train
from zspl.training.selection import Selection
from zspl.training.self_labels import judge, most_stable, write_labels

LABELS = "labels"
STABILITY = "stability.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Course:
    """All that the rounds of one cell share.

    Attributes:
        name: What the progress bar shows.
        recipe: `train` of params.yaml.
        seed: Of the cell.
        method: Says which rounds there are, and what each step minimises.
        needs: What the method reads.
        records: The images of the data set, by id.
        split: Who is labeled and unlabeled.
        table: The classes.
        pseudo_labels: The folder of a label variant, for a method that reads one.
        selection: Chooses the best model of each round.
        folder: Where unfinished work lies.
        workers: Processes that load ahead.
        build: Builds the network on the processor; what is not pretrained starts at random.
        label_quality: How right the pseudo labels are where masks are known, for a method that
            reads it.
    """

    name: str
    recipe: Train
    seed: int
    method: Method
    needs: frozenset[str]
    records: Mapping[str, ImageRecord]
    split: Split
    table: ClassTable
    pseudo_labels: Path | None
    selection: Selection
    folder: Path
    workers: int
    build: Callable[[], SegmentationNetwork]
    label_quality: LabelQuality | None = None

    @property
    def facts(self) -> Facts:
        """What methods may know of it."""
        return Facts(
            class_names=self.table.names,
            crop_size=self.recipe.crop_size,
            label_quality=self.label_quality,
        )

    def network(self) -> SegmentationNetwork:
        """Return the network that will be evaluated, with new initial weights."""
        return self.method.adapt(self.build(), self.facts)

    def trained(self) -> Trained:
        """Return what is trained, with new initial weights."""
        return self.method.prepare(self.network(), self.network, self.facts)

    def load(self, state: State) -> SegmentationNetwork:
        """Return the network with these weights, ready to predict."""
        network = self.network()
        network.load_state_dict(state)
        return network.to(devices.chosen()).eval()


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """A finished round: `last` is its network after the last step."""

    training: Training
    progress: Progress
    last: State


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a cell's rounds end in; iterations count from the first round's start."""

    iterations: int
    seconds: float
    best: Best | None
    last: State
    histories: tuple[Path, ...]


def run_rounds(course: Course, observer: Observer) -> Outcome:
    """Run all rounds, or the rest of them.

    Raises:
        DataError: if an input is missing or the split does not fit the method.
        ZsplError: if a loss is not finite.
    """
    done: list[Finished] = []
    for planned in course.method.rounds():
        done.append(_run_round(course, planned, done, observer))
    final = done[-1]
    best = final.progress.best
    before = final.training.before
    return Outcome(
        iterations=before + final.training.iterations,
        seconds=sum(finished.progress.seconds for finished in done),
        best=best and replace(best, iteration=before + best.iteration),
        last=final.last,
        histories=tuple(finished.training.folder / "metrics.jsonl" for finished in done),
    )


def _run_round(
    course: Course, planned: Round, done: list[Finished], observer: Observer
) -> Finished:
    # The first round has the cell's own seed, so that a method of one round is as before.
    seed = derive(course.seed, "round", len(done)) if done else course.seed
    training = _training(course, planned, done, seed=seed)
    seed_everything(derive(seed, "initial weights"))
    model = _together(course.trained().to(devices.chosen()))
    progress = train(training, model, observer)
    return Finished(
        training=training, progress=progress, last=checkpoints.snapshot(deployed(model))
    )


def _together(model: Trained) -> Trained:
    """Return the model with batch norm over all processes, which torch has on GPUs only."""
    if processes.count() == 1 or devices.chosen().type != "cuda":
        return model
    # torch declares no types here.
    convert: Callable[[Trained], Trained] = nn.SyncBatchNorm.convert_sync_batchnorm
    return convert(model)


def _training(course: Course, planned: Round, done: list[Finished], *, seed: int) -> Training:
    recipe, needs = course.recipe, planned.needs or course.needs
    split, labels = course.split, course.pseudo_labels
    if planned.self_labels is not None:
        split, labels = _label(course, planned, done), course.folder / LABELS
    data = TrainingData(
        course.records, split, course.table, recipe, seed=seed, pseudo_labels=labels
    )

    def batches(start: int, stop: int) -> Batches:
        return data.batches(start, stop, workers=course.workers, needs=needs)

    per_epoch = data.iterations_per_epoch(needs)
    full = recipe.iterations or per_epoch * (recipe.epochs or 1)
    iterations = max(1, round(full * planned.length))
    unit = 1 if recipe.epochs is None else per_epoch
    return Training(
        name=f"{course.name} {planned.name}".rstrip(),
        recipe=recipe,
        iterations=iterations,
        per_epoch=per_epoch,
        before=sum(finished.training.iterations for finished in done),
        kept=_kept(planned, iterations, unit=unit),
        seed=seed,
        method=course.method,
        batches=batches,
        selection=course.selection,
        folder=course.folder / planned.name,
        ids=partial(data.ids, needs=needs),
    )


def _kept(planned: Round, iterations: int, *, unit: int) -> tuple[int, ...]:
    """Return the shares of a round in whole units (epochs or iterations), as iterations."""
    at = (int(iterations // unit * share) * unit for share in planned.kept if share < 1)
    ends = [iterations] if 1 in planned.kept else []
    return tuple(sorted({max(1, iteration) for iteration in at} | set(ends)))


def _label(course: Course, planned: Round, done: list[Finished]) -> Split:
    """Label unlabeled images with the model of the round before; return who is labeled now."""
    how = planned.self_labels
    best = done[-1].progress.best if done else None
    if how is None or best is None:
        raise ValueError(f"round {planned.name!r}: labels itself, expected a round before it")
    ids = _chosen(course, how.share, done)
    records = [course.records[image_id] for image_id in course.split.unlabeled if image_id in ids]
    write_labels(course.load(best.model), records, how, folder=course.folder / LABELS)
    return replace(course.split, unlabeled=tuple(record.image_id for record in records))


def _chosen(course: Course, share: float, done: list[Finished]) -> frozenset[str]:
    """Return the unlabeled images whose predictions are stablest."""
    if share >= 1:
        return frozenset(course.split.unlabeled)
    judges = next((finished.training for finished in done if finished.training.kept), None)
    if judges is None:
        raise ValueError("choosing stable images needs an earlier round with `kept` models")
    path = course.folder / STABILITY
    # The kept models are only read when there is something left to judge.
    states = [] if path.exists() else [read_state(judges.kept_path(k)) for k in judges.kept]
    found = judge(
        [course.load(state) for state in states],
        [course.records[image_id] for image_id in course.split.unlabeled],
        num_classes=course.table.num_classes,
        path=path,
    )
    return frozenset(most_stable(found, share))
