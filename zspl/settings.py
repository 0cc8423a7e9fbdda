"""params.yaml, parsed once into frozen sections that are closed to unknown keys.

Core sections have no defaults: a value that params.yaml does not hold is a value that DVC
cannot see change. A plugin's `Settings` may have defaults, since its file is watched.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from zspl.errors import SettingsError, suggestion
from zspl.sections import (
    Name,
    PlainPath,
    PluginName,
    Whole,
    build_plugin,
    check_out,
    describe,
    plugin_settings,
    read_yaml,
)


class Section(BaseModel):
    """One block of params.yaml: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Choice(Section):
    """A plugin's name plus the settings that plugin declares for itself."""

    model_config = ConfigDict(frozen=True, extra="allow")
    name: PluginName

    def build(self, package: str) -> Any:  # noqa: ANN401 - what a plugin builds is its folder's business
        """Build this choice with the plugin `package`/`name`.py."""
        return build_plugin(package, self.name, self.model_extra or {})


class Paths(Section):
    """Where things lie, seen from the folder of params.yaml."""

    source: PlainPath = Field(description="What the dataset is read from; DVC watches it.")
    out: PlainPath = Field(description="Where artifacts go, a folder of their own.")
    code: PlainPath = Field(description="The folder that holds the zspl package.")


class Prepare(Section):
    """The data set and its splits."""

    dataset: Choice
    splits: tuple[Name, ...] = Field(min_length=1, description="Split names of the data set.")
    shards: tuple[Whole, ...] = Field(min_length=1, description="0, 1, ..., number of shards - 1.")
    holdout: float = Field(
        ge=0, lt=1, description="Share of the labeled ids kept from training to select a model."
    )
    annotate_val: bool = Field(description="Also annotate the val images, to score the labels.")

    @model_validator(mode="after")
    def _shards_count_up(self) -> "Prepare":
        if self.shards != tuple(range(len(self.shards))):
            raise ValueError(f"shards must be 0, 1, ..., n-1, got {list(self.shards)}")
        return self


class LabelVariant(Section):
    """One way to make pseudo labels; `none` reads no proposals or no features."""

    proposals: PluginName = Field(description="A key of `propose`, or none.")
    features: Name = Field(description="A key of `embed`, <encoder>-<proposer>, or none.")
    labeler: Choice


class Label(Section):
    """The pseudo labels: how they are calibrated, and the variants."""

    calibration_split: Name = Field(description="The split whose labeled ids choose thresholds.")
    variants: dict[Name, LabelVariant]


class Cells(Section):
    """The matrix of trainings: methods x models x splits x seeds."""

    methods: tuple[PluginName, ...] = Field(description="Plugins that read no pseudo labels.")
    label_methods: tuple[PluginName, ...] = Field(description="Plugins that read pseudo labels.")
    labels: tuple[Name, ...] = Field(description="Keys of label.variants they read.")
    models: tuple[Name, ...]
    splits: tuple[Name, ...]
    seeds: tuple[Whole, ...] = Field(min_length=1)


class Model(Section):
    """A segmentation network: an encoder plugin and a decoder plugin."""

    backbone: Choice
    head: Choice


class Train(Section):
    """The training run; methods.md 2.1 holds the published values."""

    crop_size: int = Field(gt=0, description="Side of the square training crop, in pixels.")
    scale_range: tuple[float, float] = Field(description="Random resize of the long side.")
    batch_labeled: int = Field(gt=0, description="Labeled crops per optimiser step, in all.")
    batch_unlabeled: int = Field(gt=0, description="Unlabeled crops per optimiser step, in all.")
    cutmix_partner: Literal["same_image", "batch"] = Field(
        description="What CutMix pastes: another crop of the same image, as UniMatch's code does, "
        "or another image of the batch, as UniMatch V2 does; that loads and labels half as many."
    )
    views: Literal["pillow", "tensor"] = Field(
        description="How crops become weak and strong views. pillow: as published, bit for bit, in "
        "the loader. tensor: the same draws to about a grey level, from bytes, beside the network; "
        "choose it when a GPU waits for its loader. On a CPU pillow is faster."
    )
    accumulate: int = Field(gt=0, description="Micro-batches of a step; their mean is minimised.")
    precision: Literal["float32", "bfloat16", "float16", "auto"] = Field(
        description="Of layers under autocast; auto: half precision on a GPU, float32 on a CPU."
    )
    epochs: int | None = Field(
        gt=0, description="Passes over the unlabeled list (labeled, if no other is read), or null."
    )
    iterations: int | None = Field(gt=0, description="Optimiser steps, or null with `epochs`.")
    optimizer: Literal["sgd", "adamw"] = Field(
        description="SGD as UniMatch and the paper; AdamW as UniMatch V2, for short schedules."
    )
    learning_rate: float = Field(
        gt=0,
        description="Of the backbone; for k times the batch set k times the rate (linear rule).",
    )
    head_multiplier: float = Field(gt=0, description="Learning rate of the head / backbone.")
    momentum: float = Field(ge=0, lt=1, description="Of SGD; AdamW takes it as its first beta.")
    weight_decay: float = Field(ge=0)
    poly_power: float = Field(ge=0)
    evaluate_every: int = Field(gt=0, description="Iterations between selections of a model.")
    checkpoint_every: int = Field(gt=0, description="Iterations between resumable checkpoints.")
    selection: Literal["holdout", "val", "last"] = Field(
        description="What chooses the best model: labeled hold-out, val (as papers do), nothing."
    )
    methods: dict[PluginName, dict[str, Any]] = Field(description="Settings by method plugin.")
    models: dict[Name, Model]

    @model_validator(mode="after")
    def _one_length(self) -> "Train":
        if (self.epochs is None) == (self.iterations is None):
            raise ValueError("set exactly one of epochs and iterations; the other is null")
        low, high = self.scale_range
        if not 0 < low <= high:
            raise ValueError(f"scale_range must be 0 < low <= high, got {low}, {high}")
        if self.batch_labeled % self.accumulate or self.batch_unlabeled % self.accumulate:
            batches = f"batch_labeled {self.batch_labeled}, batch_unlabeled {self.batch_unlabeled}"
            raise ValueError(f"accumulate is {self.accumulate}, but must divide {batches}")
        return self


class Evaluate(Section):
    """How a network looks at the photos it is scored on; methods.md 2.4 and 3.4."""

    window: int | None = Field(
        ge=16,
        description="Side in pixels of windows that move by two thirds of it (UniMatch: 801 for "
        "Cityscapes), or null: the whole photo at once. The selection in training takes it too.",
    )
    scales: tuple[Annotated[float, Field(ge=0.1, le=4)], ...] = Field(
        min_length=1,
        description="Sizes, over the photo's own, whose probabilities are averaged; [1.0]: its own "
        "alone. The selection in training leaves it out: it is dear, and published code has none.",
    )
    flip: bool = Field(
        description="Average with the mirror image; left out of the selection in training, too."
    )


class Tabulate(Section):
    """The comparison tables."""

    checkpoint: Literal["best", "last"] = Field(description="Which one is the main number.")
    published: str | None = Field(description="A data set of zspl/published.csv, or null.")


class Settings(Section):
    """All of params.yaml."""

    benchmark: str = Field(
        pattern=r"^[a-z0-9_]+$", max_length=100, description="Names the experiment."
    )
    seed: int = Field(ge=0, description="Of everything that is not a training cell.")
    threads: int = Field(
        gt=0, description="Of one stage on a CPU; the order of sums depends on it."
    )
    paths: Paths
    prepare: Prepare
    propose: dict[PluginName, dict[str, Any]] = Field(description="Settings by proposer plugin.")
    embed: dict[PluginName, dict[str, Any]] = Field(description="Settings by encoder plugin.")
    embed_segments: dict[PluginName, dict[str, Any]] = Field(
        description="The same, of encoders that look at segments: each runs on each of `propose`."
    )
    label: Label
    cells: Cells
    train: Train
    evaluate: Evaluate
    tabulate: Tabulate

    @property
    def seen_by_features(self) -> dict[str, str | None]:
        """Every name that features have, and the proposer whose segments the encoder looked at."""
        looked = {features_name(e, p): p for e in self.embed_segments for p in self.propose}
        return {**dict.fromkeys(self.embed), **looked}

    @classmethod
    def read(cls, path: Path, changes: Mapping[str, Any] | None = None) -> "Settings":
        """Read and check params.yaml, plugins' sections included.

        Args:
            path: The YAML file.
            changes: Dotted keys and the values that replace the file's.

        Raises:
            SettingsError: if the file is missing, is no YAML, or holds an unknown, missing or
                wrong value; one line per problem.
        """
        values = read_yaml(path, changes or {})
        try:
            settings = cls.model_validate(values)
        except ValidationError as error:
            raise SettingsError(describe(error, where=str(path))) from error
        _check(settings, path)
        return settings


def features_name(encoder: str, proposals: str | None = None) -> str:
    """Return the name of features: `gem`, or `crops-sam` for one that looked at segments."""
    return encoder if proposals is None else f"{encoder}-{proposals}"


def _check(settings: Settings, path: Path) -> None:
    """Check what spans sections: names that refer to each other, and every plugin's section."""
    references = [
        ("label.calibration_split", (settings.label.calibration_split,), settings.prepare.splits),
        ("cells.splits", settings.cells.splits, settings.prepare.splits),
        ("cells.models", settings.cells.models, settings.train.models),
        ("cells.labels", settings.cells.labels, settings.label.variants),
        ("cells.methods", settings.cells.methods, settings.train.methods),
        ("cells.label_methods", settings.cells.label_methods, settings.train.methods),
    ]
    seen_by = settings.seen_by_features
    for name, variant in settings.label.variants.items():
        where = f"label.variants.{name}"
        references.append((f"{where}.proposals", (variant.proposals,), {*settings.propose, "none"}))
        references.append((f"{where}.features", (variant.features,), {*seen_by, "none"}))
    for key, used, known in references:
        for name in used:
            if name not in known:
                raise SettingsError(f"{path}: {key}: no {name!r}. {suggestion(name, known)}")
    if settings.train.selection == "holdout" and settings.prepare.holdout == 0:
        raise SettingsError(
            f"{path}: train.selection is holdout but prepare.holdout is 0; set a share such as 0.2"
        )
    for name, variant in settings.label.variants.items():
        seen = seen_by.get(variant.features)
        if seen is not None and variant.proposals not in (seen, "none"):
            raise SettingsError(
                f"{path}: label.variants.{name}: features {variant.features} come from segments of "
                f"{seen}, but proposals is {variant.proposals}; set it to {seen}"
            )
    check_out(path.absolute().parent, out=settings.paths.out, source=settings.paths.source)
    _check_plugins(settings)


def _check_plugins(settings: Settings) -> None:
    choices = [("zspl.datasets", settings.prepare.dataset)]
    choices += [("zspl.labeling", v.labeler) for v in settings.label.variants.values()]
    for model in settings.train.models.values():
        choices += [("zspl.models.backbones", model.backbone), ("zspl.models.heads", model.head)]
    sections = [
        *((package, choice.name, choice.model_extra or {}) for package, choice in choices),
        *(("zspl.proposals", *pair) for pair in settings.propose.items()),
        *(("zspl.features", *pair) for pair in settings.embed.items()),
        *(("zspl.features", *pair) for pair in settings.embed_segments.items()),
        *(("zspl.methods", *pair) for pair in settings.train.methods.items()),
    ]
    for package, name, values in sections:
        plugin_settings(package, name, values)
