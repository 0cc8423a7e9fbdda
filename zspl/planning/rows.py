"""The stage instances of a params.yaml with their work, time and disk space."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from zspl.datasets import Dataset
from zspl.evaluation.results import configured_cells
from zspl.io.timings import method_text, network_text, recipe_text, signature
from zspl.methods import Method, Round
from zspl.methods import needs as needs_of
from zspl.planning.disk import Networks, features_bytes
from zspl.planning.rates import ESTIMATE, MEASURED, NOTHING, UNKNOWN, Quote, Rates
from zspl.records import Sizes
from zspl.sections import build_plugin
from zspl.settings import Settings

SCORED_TWICE = 2
"""A cell has its best and its last checkpoint scored where a selection may choose another."""

WRITE_ONCE = frozenset({"train", "evaluate", "tabulate"})
"""Stages whose output does not grow with the images they read."""

READ_AS = "pascal_voc"
"""A data set whose reading was not timed is told by this one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One stage instance.

    Attributes:
        stage: Its word.
        instance: What names it, as on the command line.
        images: That it reads; of a training, those of its split.
        steps: Of the optimiser, 0 for other stages.
        seconds: Of the device, None where no rate is known.
        bytes: That stay on disk, None where that is not known.
        kind: measured, estimate or no rate: what the seconds rest on.
        basis: Where the rate comes from.
    """

    stage: str
    instance: Mapping[str, str]
    images: int
    steps: int
    seconds: float | None
    bytes: float | None
    kind: str
    basis: str


class Planner:
    """Makes the rows of one benchmark.

    Args:
        settings: Of the benchmark; the current folder is that of its params.yaml.
        rates: Of the device to plan for.

    Raises:
        SettingsError: if a split does not exist.
        DataError: if the sizes of the splits are only in data that is missing.
    """

    def __init__(self, settings: Settings, rates: Rates) -> None:
        dataset: Dataset = settings.prepare.dataset.build("zspl.datasets")
        source = settings.paths.source
        self.settings = settings
        self.rates = rates
        self.sizes = {name: dataset.sizes(source, name) for name in settings.prepare.splits}
        self._networks = Networks(settings, dataset.table.names)
        self._any = next(iter(self.sizes.values()))

    def rows(self) -> Iterator[Row]:
        """Yield every stage instance in the order of dvc.yaml."""
        yield self._images("prepare", {}, self._any.train + self._any.val)
        yield from self._annotators()
        variants = [{"variant": name} for name in self.settings.label.variants]
        for variant in variants:
            yield self._images("label", variant, self._annotated)
        cells = list(self._cells())
        for cell in cells:
            yield self._training(cell)
        for cell in cells:
            yield self._scoring(cell)
        for variant in variants:
            yield self._images("evaluate", variant, self._audited)
        yield self._images("tabulate", {}, len(cells))

    @property
    def _annotated(self) -> int:
        return self._any.train + (self._any.val if self.settings.prepare.annotate_val else 0)

    @property
    def _audited(self) -> int:
        sizes = self.sizes[self.settings.label.calibration_split]
        return sizes.labeled + (sizes.val if self.settings.prepare.annotate_val else 0)

    def _annotators(self) -> Iterator[Row]:
        settings, shards = self.settings, self.settings.prepare.shards
        kinds: list[tuple[str, dict[str, str]]] = [
            *(("propose", {"proposer": name}) for name in settings.propose),
            *(("embed", {"encoder": name}) for name in settings.embed),
            *(
                ("embed", {"encoder": name, "proposals": proposer})
                for name in settings.embed_segments
                for proposer in settings.propose
            ),
        ]
        for stage, names in kinds:
            for shard in shards:
                images = len(range(shard, self._annotated, len(shards)))
                yield self._images(stage, {**names, "shard": str(shard)}, images)

    def _cells(self) -> Iterator[dict[str, str]]:
        for cell in configured_cells(self.settings):
            yield cell.instance

    def _images(self, stage: str, instance: dict[str, str], images: int) -> Row:
        """Return a row whose time is so much per image."""
        pixels = None if stage in ("propose", "embed", "tabulate") else float(self._any.pixels)
        quote = self.rates.quote(stage, signature(self.settings, stage, instance), size=pixels)
        if stage == "prepare" and quote.seconds is None:
            read = self.rates.quote(stage, READ_AS, size=pixels)
            quote = replace(read, kind=ESTIMATE if read.seconds is not None else UNKNOWN)
        size = quote.bytes
        if stage == "embed":
            name = instance["encoder"]
            sections = {**self.settings.embed, **self.settings.embed_segments}
            size = quote.bytes or features_bytes(name, sections[name])
        return self._row(stage, instance, images=images, parts=[(float(images), quote)], size=size)

    def _training(self, cell: Mapping[str, str]) -> Row:
        settings, method, model = self.settings, cell["method"], cell["model"]
        network = self._networks.of(model, method)
        built: Method = build_plugin("zspl.methods", method, settings.train.methods[method])
        sizes, steps = self.sizes[cell["split"]], 0
        parts: list[tuple[float, Quote]] = []
        for planned in built.rounds():
            needs = planned.needs or needs_of(method)
            done = self._steps(planned, sizes, needs=needs)
            parts.append((float(done), self._step(method, model, planned, needs=needs)))
            parts += self._looks(planned, done, sizes, model=model)
            steps += done
        kept = 1 if settings.train.selection == "last" else SCORED_TWICE
        return self._row(
            "train",
            cell,
            images=sizes.labeled + (sizes.unlabeled if "unlabeled" in needs_of(method) else 0),
            steps=steps,
            parts=parts,
            size=float(kept * network.bytes),
        )

    def _steps(self, planned: Round, sizes: Sizes, *, needs: frozenset[str]) -> int:
        recipe = self.settings.train
        unlabeled = "unlabeled" in needs
        images, batch = sizes.labeled, recipe.batch_labeled
        if unlabeled:
            share = planned.self_labels.share if planned.self_labels else 1.0
            images, batch = round(sizes.unlabeled * share), recipe.batch_unlabeled
        epoch = max(1, math.ceil(images / batch))
        full = recipe.iterations or epoch * (recipe.epochs or 1)
        return max(1, round(full * planned.length))

    def _step(self, method: str, model: str, planned: Round, *, needs: frozenset[str]) -> Quote:
        """Return what a step of a round takes; a round of self-labels is told by `supervised`."""
        settings = self.settings
        recipe, crops = settings.train, settings.train.batch_labeled
        if planned.name:  # ST++: cross-entropy, on labeled crops and then on as many more
            text, factor = "supervised", 1.0
            if "unlabeled" in needs:
                factor = (recipe.batch_labeled + recipe.batch_unlabeled) / recipe.batch_labeled
        else:
            text, factor = method_text(settings, method), 1.0
            crops += recipe.batch_unlabeled if "unlabeled" in needs else 0
        size = self._networks.of(model, method).gflop * crops
        quote = self.rates.of_training(
            text, network_text(settings, model), recipe_text(settings), size=size
        )
        if quote.seconds is None or not planned.name:
            return quote
        basis = f"from supervised, times {factor:g} ({quote.basis})"
        return Quote(seconds=quote.seconds * factor, bytes=quote.bytes, kind=ESTIMATE, basis=basis)

    def _looks(
        self, planned: Round, steps: int, sizes: Sizes, *, model: str
    ) -> list[tuple[float, Quote]]:
        """Return how many photos a round looks at whole: to select a model, or to label them."""
        recipe = self.settings.train
        quote = self._predicted(model)
        number = 0.0
        if recipe.selection != "last":
            held = round(sizes.labeled * self.settings.prepare.holdout)
            each = sizes.val if recipe.selection == "val" else held
            number += each * math.ceil(steps / recipe.evaluate_every)
        how = planned.self_labels
        if how is not None:
            views = math.fsum(s * s for s in how.scales) * (2 if how.flip else 1)
            number += round(sizes.unlabeled * how.share) * views
        return [(number, quote)] if number else []

    def _predicted(self, model: str) -> Quote:
        """Return what it takes to predict and score one photo."""
        pixels = float(self._any.pixels)
        exact = self.rates.quote("evaluate", network_text(self.settings, model), size=pixels)
        if exact.seconds is not None:
            return exact
        # A prediction is a forward pass, a third of a supervised step over as many pixels.
        recipe = self.settings.train
        area = self._any.pixels / recipe.crop_size**2
        size = (
            self._networks.of(model, "supervised").gflop if "supervised" in recipe.methods else 0.0
        )
        if not size:
            return NOTHING
        step = self.rates.of_training(
            "supervised",
            network_text(self.settings, model),
            recipe_text(self.settings),
            size=size * recipe.batch_labeled,
        )
        if step.seconds is None:
            return NOTHING
        seconds = step.seconds / recipe.batch_labeled / 3 * area
        basis = f"a third of a step, by pixels ({step.basis})"
        return Quote(seconds=seconds, bytes=None, kind=ESTIMATE, basis=basis)

    def _scoring(self, cell: Mapping[str, str]) -> Row:
        how, sizes = self.settings.evaluate, self.sizes[cell["split"]]
        views = math.fsum(s * s for s in how.scales) * (2 if how.flip else 1)
        times = 1 if self.settings.train.selection == "last" else SCORED_TWICE
        quote = self._predicted(cell["model"])
        number = sizes.val * views * times
        audit = self.rates.quote("evaluate", "labels", size=float(self._any.pixels))
        size = quote.bytes or audit.bytes  # both keep a few predictions
        return self._row("evaluate", cell, images=sizes.val, parts=[(number, quote)], size=size)

    def _row(
        self,
        stage: str,
        instance: Mapping[str, str],
        *,
        images: int,
        parts: list[tuple[float, Quote]],
        size: float | None,
        steps: int = 0,
    ) -> Row:
        parts = [*parts, (1.0, self.rates.quote("start", ""))]
        kinds = {quote.kind for _, quote in parts}
        kind = next(kind for kind in (UNKNOWN, ESTIMATE, MEASURED) if kind in kinds)
        known = [number * (quote.seconds or 0) for number, quote in parts]
        return Row(
            stage=stage,
            instance=dict(instance),
            images=images,
            steps=steps,
            seconds=None if kind == UNKNOWN else sum(known),
            bytes=None if size is None else size * (1 if stage in WRITE_ONCE else images),
            kind=kind,
            basis=next((quote.basis for _, quote in parts if quote.kind == kind), ""),
        )
