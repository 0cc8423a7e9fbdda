"""params.yaml of a new project: values that suit its photos and this machine, with comments."""

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import yaml

from zspl import plugins
from zspl.annotation.choices import PARTS, Asked, Choices, choose
from zspl.io import devices

_SHARD = 500
"""Photos of a shard, which is what a killed run of SAM or CLIP may lose none of."""

_LARGE = 1024
"""Longer side in pixels from which photos are looked at smaller."""

_SEEN = 768
"""The longer side that they are then looked at with."""

_SMALL_MODEL = (
    "{backbone: {name: compact}, "
    "head: {name: deeplabv3plus, width: 48, low_width: 32, dilations: [1, 2]}}"
)
_MOBILENET = (
    '{backbone: {name: mobilenetv2_100, pretrained: ra_in1k, pad_type: ""}, '
    "head: {name: deeplabv3plus, width: 64, low_width: 24, dilations: [3, 6, 9]}}"
)
_R101 = "{backbone: {name: resnet101s, pretrained: gluon_in1k}, head: {name: deeplabv3plus}}"
_MIT_B2 = (
    "{backbone: {name: mit, size: b2, pretrained: imagenet}, head: {name: segformer, width: 256}}"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Recipe:
    network: str
    crop: int
    batch: int
    iterations: int
    optimizer: str
    learning_rate: float
    head_multiplier: float
    weight_decay: float
    note: str


_RECIPES = {
    "small": _Recipe(
        network=_SMALL_MODEL, crop=160, batch=8, iterations=1000, optimizer="sgd",
        learning_rate=0.1, head_multiplier=1.0, weight_decay=0.0001,
        note="starts from nothing; minutes on a CPU",
    ),
    "mobilenet": _Recipe(
        network=_MOBILENET, crop=225, batch=4, iterations=600, optimizer="adamw",
        learning_rate=0.0001, head_multiplier=10.0, weight_decay=0.01,
        note="ImageNet weights, Apache-2.0; trains on a CPU",
    ),
    "r101": _Recipe(
        network=_R101, crop=321, batch=8, iterations=8000, optimizer="sgd",
        learning_rate=0.001, head_multiplier=10.0, weight_decay=0.0001,
        note="ImageNet weights, Apache-2.0; the network of the paper, wants a GPU",
    ),
    "mit_b2": _Recipe(
        network=_MIT_B2, crop=321, batch=8, iterations=8000, optimizer="adamw",
        learning_rate=0.00006, head_multiplier=10.0, weight_decay=0.01,
        note="ImageNet weights, not for commercial use; wants a GPU",
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Project:
    """What a project is of.

    Attributes:
        name: Of its folder.
        photos: How many.
        labeled: Photos with masks that teach.
        val: Photos with masks that are scored on.
        long_side: Median of the photos' longer sides, in pixels.
        short_side: Median of their shorter sides.
        roots: Where photos and masks really lie.
        model: A name of `zspl init --model`, or None for what suits the device.
        iterations: Of each training, or None for what suits the model.
    """

    name: str
    photos: int
    labeled: int
    val: int
    long_side: int
    short_side: int
    roots: tuple[Path, ...]
    model: str | None
    iterations: int | None

    @property
    def network(self) -> str:
        """The key of the network in train.models."""
        return self.model or ("mobilenet" if devices.chosen().type == "cpu" else "r101")

    @property
    def scale(self) -> float:
        """How large photos are looked at, over their own size."""
        if self.long_side <= _LARGE:
            return 1.0
        return max(0.1, round(_SEEN / self.long_side, 2))


def choices(classes: str, background: str, *, sam: str | None, clip: str | None) -> Choices:
    """Check classes and models, and fill in what `zspl annotate` would choose on this machine.

    Raises:
        SettingsError: if a name is unknown or a value is wrong.
    """
    # The tiny CLIP learned its cosines against a plain background, not its probabilities.
    changes = {"labeler.score": "cosine"} if clip == "tiny" else {}
    return choose(
        Asked(
            classes=classes, background=background, sam=sam, clip=clip, calibrated=True,
            changes=changes,
        )
    )  # fmt: skip


def class_entries(chosen: Choices) -> tuple[str, ...]:
    """Return the classes as prepare.dataset.classes takes them: `dog=dog|puppy`."""
    pairs = zip(chosen.table.names[1:], chosen.table.prompts, strict=True)
    return tuple(name if name == prompt else f"{name}={prompt}" for name, prompt in pairs)


def text(project: Project, chosen: Choices) -> str:
    """Return params.yaml."""
    recipe = _RECIPES[project.network]
    scale = project.scale
    iterations = project.iterations or recipe.iterations
    crop = min(recipe.crop, max(32, int(project.short_side * scale) // 32 * 32))
    low, high = (0.9, 1.1) if project.network == "small" else (0.5, 1.5)
    labeler = {"name": chosen.parts["labeler"]["name"], **_changed(chosen, "labeler")}
    return _PARAMS.substitute(
        name=json.dumps(project.name),
        benchmark=re.sub(r"[^a-z0-9_]+", "_", project.name.lower()) or "project",
        counts=f"{project.photos} photos, {project.labeled + project.val} with a mask",
        device=devices.chosen().type,
        threads=1 if chosen.tiny else max(1, min(8, (os.cpu_count() or 1) // 2)),
        classes=_flow(list(class_entries(chosen))),
        background=_flow(list(chosen.table.background)),
        roots=_flow([str(root) for root in project.roots]),
        val=project.val,
        labeled=project.labeled,
        shards=list(range(max(1, -(-project.photos // _SHARD)))),
        sam=_flow(_changed(chosen, "proposals")),
        gem=_flow(_changed(chosen, "features")),
        labeler=_flow(labeler),
        model=project.network,
        network=recipe.network,
        note=recipe.note,
        crop=crop,
        low=max(0.01, round(low * scale, 3)),
        high=round(high * scale, 3),
        batch=recipe.batch,
        iterations=iterations,
        checkpoint_every=max(1, min(200, iterations // 4)),
        optimizer=recipe.optimizer,
        rate=f"{recipe.learning_rate:f}".rstrip("0"),
        multiplier=recipe.head_multiplier,
        decay=f"{recipe.weight_decay:f}".rstrip("0"),
        scales=[scale],
    )


def _changed(chosen: Choices, part: str) -> Mapping[str, Any]:
    """Return the settings of a part that are not the plugin's defaults, the model always."""
    package, name = PARTS[part], chosen.parts[part]["name"]
    fields = plugins.load(package, name).Settings.model_fields
    return {
        key: value
        for key, value in chosen.parts[part]["settings"].items()
        if key == "model" or value != fields[key].default
    }


def _flow(value: Any) -> str:  # noqa: ANN401 - whatever YAML holds
    """Return a list or a mapping as one line of YAML."""
    dumped: str = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=math.inf
    )
    return dumped.strip()


_PARAMS = Template("""\
# $name: $counts. Made by `zspl init` for a machine whose device is $device.
# Everything that can change a number stands here; every key is checked, and an unknown or missing
# one is named. After an edit `dvc repro` runs what changed, and no more.
benchmark: $benchmark
seed: 0
threads: $threads                   # per stage on a CPU, half of its cores; sums depend on it

paths:
  source: data               # links to the photos and masks, and the lists of the split
  out: artifacts
  code: code                 # a link to the installed zspl

prepare:
  dataset:
    name: folder
    # Of the mask values 1, 2, ...; "dog=dog|puppy": what CLIP is asked for instead of the name.
    classes: $classes
    # What else may be seen, such as sky, grass.
    background: $background
    images: photos
    masks: masks
    lists: lists
    val_list: val            # $val photos with a mask, scored on and never learned from
    # Where the links in data lead; a link to anywhere else is refused.
    linked_from: $roots
  splits: [labeled]          # data/lists/labeled.txt, $labeled photos with a mask; drawn_N: N
  shards: $shards
  holdout: 0.0
  annotate_val: true         # so that the pseudo labels are scored on photos nothing was chosen on

propose:
  sam: $sam

embed:
  gem: $gem

embed_segments: {}

label:
  calibration_split: labeled
  variants:
    sam_gem: {proposals: sam, features: gem, labeler: $labeler}

# One training for each method, model, split and seed. More methods: a name of zspl/methods here and
# in train.methods, such as unimatch (no pseudo labels) or paper (with them).
cells:
  methods: [supervised]      # the masks alone: what everything else is compared with
  label_methods: [recommended]
  labels: [sam_gem]
  models: [$model]
  splits: [labeled]
  seeds: [0]

train:
  crop_size: $crop
  scale_range: [$low, $high]
  batch_labeled: $batch
  batch_unlabeled: $batch
  cutmix_partner: batch
  views: pillow
  accumulate: 1              # 2, 4: less memory, the same step
  precision: float32         # auto: half precision on a GPU
  epochs: null
  iterations: $iterations
  optimizer: $optimizer
  learning_rate: $rate
  head_multiplier: $multiplier
  momentum: 0.9
  weight_decay: $decay
  poly_power: 0.9
  evaluate_every: $iterations
  checkpoint_every: $checkpoint_every
  selection: last            # few masks: a model chosen on them would look better than it is
  methods:
    supervised: {}
    recommended: {}
  models:
    # $note
    $model: $network

evaluate:
  window: null               # N: through windows of N pixels
  scales: $scales              # sizes, over the photo's own, whose probabilities are averaged
  flip: false                # and mirror images

tabulate:
  checkpoint: last
  published: null
""")
