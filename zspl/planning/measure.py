"""Timing a miniature of a benchmark on the device at hand: a dozen photos, a few steps.

The real stages run in a temporary folder on photos of the prepared benchmark. What starts a stage,
such as loading weights, is left out by the difference of a shorter and a longer run.
"""

import contextlib
import io
import logging
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from zspl import stages
from zspl.errors import DataError, ZsplError
from zspl.io.classes import ClassTable
from zspl.io.images import read_image
from zspl.io.layout import Cell, Layout
from zspl.io.records import read_records, write_records
from zspl.io.splits import read_split, write_ids, write_split
from zspl.io.timings import cpu_seconds, device_name, signature, timing_of
from zspl.methods import Method
from zspl.methods import needs as needs_of
from zspl.observer import Silent
from zspl.planning.disk import Networks
from zspl.planning.rates import Rate
from zspl.records import Split
from zspl.sections import build_plugin
from zspl.settings import Settings, features_name

SHARDS = (2, 2, 8)
"""Photos of the three shards: one warms up, the difference of the others counts."""

STEPS = (2, 3, 13)
"""Steps of the three trainings, likewise."""

VAL = (1, 1, 7)

_STARTED = """
import zspl.stages.train
try:
    import mlflow
except ImportError:
    pass
"""

Tell = Callable[[str], None]


def measure(settings: Settings, tell: Tell) -> Iterator[Rate]:
    """Time the annotators, the trainings and the scoring of a benchmark, one rate at a time.

    Args:
        settings: Of the benchmark; the current folder is that of its params.yaml.
        tell: Gets a line about what could not be timed.

    Raises:
        DataError: if the benchmark is not prepared, or has too few photos.
    """
    logger = logging.getLogger("zspl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory(prefix="zspl-measure-") as folder:
            small = _Miniature(settings, Path(folder))
            yield small.start()
            for timing in (small.annotators, small.labels, small.trainings):
                yield from timing(tell)
    finally:
        logger.setLevel(level)


class _Miniature:
    """The benchmark with a dozen photos, below another `paths.out`."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._layout = Layout(folder)
        paths = settings.paths.model_copy(update={"out": folder})
        train = settings.train.model_copy(
            update={"epochs": None, "iterations": 1, "selection": "last"}
        )
        prepare = settings.prepare.model_copy(
            update={"shards": tuple(range(len(SHARDS))), "annotate_val": False}
        )
        self._settings = settings.model_copy(
            update={"paths": paths, "train": train, "prepare": prepare}
        )
        self._split = settings.label.calibration_split
        self._fill(Layout(settings.paths.out))
        self._device = device_name()
        self._basis = "zspl plan --measure here"

    def _fill(self, whole: Layout) -> None:
        """Copy a dozen photos' records and give the split three labeled ones."""
        records, split = read_records(whole.records), read_split(whole.split(self._split))
        number = sum(SHARDS)
        ids = (*split.labeled[:3], *split.unlabeled)[:number]
        if len(ids) < number or len(split.val) < max(VAL):
            raise DataError(
                f"{whole.split(self._split)}: measuring takes {number} train and {max(VAL)} val "
                f"photos, there are {len(split.labeled) + len(split.unlabeled)} and "
                f"{len(split.val)}; plan without --measure"
            )
        self._few = Split(
            name=self._split,
            labeled=ids[:3],
            holdout=(),
            unlabeled=ids[3:],
            val=split.val[: max(VAL)],
        )
        write_records(self._layout.records, [records[i] for i in (*ids, *self._few.val)])
        self._layout.classes.write_bytes(whole.classes.read_bytes())
        write_split(self._layout.split(self._split), self._few)
        ends = [sum(SHARDS[: n + 1]) for n in range(len(SHARDS))]
        for shard, (size, end) in enumerate(zip(SHARDS, ends, strict=True)):
            write_ids(self._layout.shard(shard), ids[end - size : end])
        sides = [read_image(records[i].image_path).size for i in ids]
        self._pixels = sum(width * height for width, height in sides) / len(sides)

    def start(self) -> Rate:
        """Time Python until a stage could begin."""
        used = cpu_seconds()
        subprocess.run([sys.executable, "-P", "-c", _STARTED], check=True)
        return self._rate("start", "", "stage", cpu_seconds() - used)

    def annotators(self, tell: Tell) -> Iterator[Rate]:
        """Time every proposer and encoder."""
        chosen = self._settings
        kinds: list[tuple[str, dict[str, str]]] = [
            *(("propose", {"proposer": name}) for name in chosen.propose),
            *(("embed", {"encoder": name}) for name in chosen.embed),
            *(
                ("embed", {"encoder": name, "proposals": proposer})
                for name in chosen.embed_segments
                for proposer in chosen.propose
            ),
        ]
        for stage, names in kinds:
            instances = [{**names, "shard": str(n)} for n in range(len(SHARDS))]
            costs = self._costs(stage, instances, tell)
            if costs:
                each = (costs[-1] - costs[-2]) / (SHARDS[-1] - SHARDS[-2])
                what = signature(chosen, stage, instances[0])
                yield self._rate(
                    stage, what, "image", each, size=None, written=self._written(stage, names)
                )

    def labels(self, tell: Tell) -> Iterator[Rate]:
        """Time every label variant, and its audit."""
        for name in self._settings.label.variants:
            instance = {"variant": name}
            what = signature(self._settings, "label", instance)
            costs = self._costs("label", [instance] * 2, tell)
            if not costs:
                continue
            size = _bytes(self._layout.labels(name)) / sum(SHARDS)
            each = costs[-1] / sum(SHARDS)
            yield self._rate("label", what, "image", each, size=self._pixels, written=size)
            costs = self._costs("evaluate", [instance] * 2, tell)
            if costs:
                each = costs[-1] / len(self._few.labeled)
                written = _bytes(self._layout.label_score(name))
                yield self._rate(
                    "evaluate", "labels", "image", each, size=self._pixels, written=written
                )

    def trainings(self, tell: Tell) -> Iterator[Rate]:
        """Time a step of every method with every network, and a prediction of every network."""
        cells = self._settings.cells
        labels = {m: cells.labels[0] for m in cells.label_methods if cells.labels}
        methods = list(dict.fromkeys((*cells.methods, *labels)))
        names = Networks(self._settings, ClassTable.read(self._layout.classes).names)
        for model in cells.models:
            scored = False
            for method in methods:
                built: Method = build_plugin(
                    "zspl.methods", method, self._settings.train.methods[method]
                )
                if built.rounds()[0].name:
                    continue  # its rounds are told by `supervised`
                cell = Cell(
                    method=method, labels=labels.get(method), model=model, split=self._split, seed=0
                )
                costs = self._train(cell, tell)
                if not costs:
                    continue
                crops = self._settings.train.batch_labeled
                if "unlabeled" in needs_of(method):
                    crops += self._settings.train.batch_unlabeled
                each = (costs[-1] - costs[-2]) / (STEPS[-1] - STEPS[-2])
                what = signature(self._settings, "train", cell.instance)
                size = names.of(model, method).gflop * crops
                yield self._rate("train", what, "step", each, size=size)
                if not scored:
                    scored = True
                    yield from self._scoring(cell, tell)

    def _train(self, cell: Cell, tell: Tell) -> list[float]:
        costs = []
        for steps in STEPS:
            recipe = self._settings.train.model_copy(update={"iterations": steps})
            changed = self._settings.model_copy(update={"train": recipe})
            costs += self._costs("train", [cell.instance], tell, settings=changed)
        return costs if len(costs) == len(STEPS) else []

    def _scoring(self, cell: Cell, tell: Tell) -> Iterator[Rate]:
        costs = []
        for number in VAL:
            write_ids(self._layout.split(self._split) / "val.txt", self._few.val[:number])
            costs += self._costs("evaluate", [cell.instance], tell)
        if len(costs) == len(VAL):
            each = (costs[-1] - costs[-2]) / (VAL[-1] - VAL[-2])
            what = signature(self._settings, "evaluate", cell.instance)
            written = _bytes(self._layout.cell_score(cell))
            yield self._rate("evaluate", what, "image", each, size=self._pixels, written=written)

    def _costs(
        self,
        stage: str,
        instances: list[dict[str, str]],
        tell: Tell,
        *,
        settings: Settings | None = None,
    ) -> list[float]:
        """Run instances and return what each took, nothing if one cannot run."""
        costs = []
        for instance in instances:
            try:
                # Progress bars and warnings about so few photos would tell nothing.
                with contextlib.redirect_stderr(io.StringIO()):
                    stages.run(stage, settings or self._settings, Silent(), **instance)
            except ZsplError as error:
                tell(f"{stage} {' '.join(instance.values())}: not timed, {error}")
                return []
            timing = timing_of(settings or self._settings, stage, instance)
            if timing is not None and timing.cost is not None:
                costs.append(timing.cost)
        return costs

    def _written(self, stage: str, names: Mapping[str, str]) -> float:
        folder = "proposals" if stage == "propose" else "features"
        name = names.get("proposer") or features_name(names["encoder"], names.get("proposals"))
        return _bytes(self._layout.out / folder / name) / sum(SHARDS)

    def _rate(
        self,
        stage: str,
        what: str,
        unit: str,
        seconds: float,
        *,
        size: float | None = None,
        written: float | None = None,
    ) -> Rate:
        return Rate(
            device=self._device,
            stage=stage,
            what=what,
            unit=unit,
            seconds=round(max(seconds, 0.0), 5),
            bytes=None if written is None else round(written, 1),
            size=None if size is None else round(size, 3),
            basis=self._basis,
        )


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
