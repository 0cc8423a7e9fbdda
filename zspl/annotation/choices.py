"""From what a user asks for to checked settings of every part, before a model is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zspl import __version__, plugins
from zspl.annotation.annotator import Annotator
from zspl.annotation.sam_choice import sam_settings
from zspl.annotation.vocabulary import read_classes
from zspl.errors import SettingsError, suggestion
from zspl.features import Encoder
from zspl.io import devices
from zspl.io.classes import ClassTable
from zspl.labeling import Labeler
from zspl.sections import build_plugin, plugin_settings

PARTS = {
    "proposals": "zspl.proposals",
    "features": "zspl.features",
    "labeler": "zspl.labeling",
}
NONE = "none"
CALIBRATED = "calibrated_per_class"

_SHOWN = {"vit_t": "MobileSAM"}
_CLIP = "ViT-B-16-quickgelu:openai"
_THRESHOLDS = {"probability": 0.85, "cosine": 0.25}

_TINY = {"depth": 5, "ss_attn_temp": 20.0}
"""What fits the weights in the package."""

Values = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What a user asks for; None is the default, which may depend on the machine.

    `changes` are settings of a part as "part.key", and win over everything else.
    """

    classes: str
    background: str = ""
    proposals: str = "sam"
    sam: str | None = None
    features: str = "gem"
    clip: str | None = None
    labeler: str | None = None
    templates: str | None = None
    prompt: str | None = None
    threshold: float | None = None
    calibrated: bool = False
    unassigned: int = 0
    dtype: str = "auto"
    max_side: int | None = 2048
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Choices:
    """What was chosen, complete and checked.

    `parts` holds name and settings of each part; `threshold` is None when masks decide;
    `max_side` is the side in pixels to which larger photos are shrunk for the models.
    """

    table: ClassTable
    parts: Mapping[str, Values]
    threshold: float | None
    max_side: int | None

    def as_json(self) -> Values:
        """Return every choice that can change a label."""
        return {
            "zspl": __version__,
            "classes": list(self.table.names),
            "prompts": list(self.table.prompts),
            "background": list(self.table.background),
            "threshold": self.threshold,
            "max_side": self.max_side,
            **self.parts,
        }

    @property
    def tiny(self) -> bool:
        """Whether a model is one of those in the package, which know rendered textures only."""
        return any(part["settings"].get("model") == "tiny" for part in self.parts.values())

    def models(self) -> str:
        """Name the models in one line."""
        shown = []
        for part in (self.parts["proposals"], self.parts["features"]):
            settings, name = part["settings"], part["name"]
            model = settings.get("model")
            words = [_SHOWN.get(model, model), settings.get("checkpoint")]
            words += [settings.get("pretrained")] if model != "tiny" else []
            named = " ".join(str(word) for word in words if word)
            shown.append(f"{name} ({named})" if named else str(name))
        return " + ".join(name for name in shown if name != NONE)

    def build(self) -> Annotator:
        """Load the models.

        Raises:
            SettingsError: if a model does not go with its settings.
            WeightsError: if weights cannot be had, or a class is unknown to the tiny CLIP.
        """
        labeler: Labeler = self._part("labeler")
        self._check_segments("labeler", needed="proposals" in labeler.needs)
        encoder: Encoder | None = self._part("features") if "features" in labeler.needs else None
        sees = encoder is not None and encoder.sees_segments
        self._check_segments("features", needed=sees)
        return Annotator(
            table=self.table,
            labeler=labeler,
            proposer=self._part("proposals") if sees or "proposals" in labeler.needs else None,
            encoder=encoder,
            text=encoder.text(self.table.texts) if encoder else None,
        )

    def _check_segments(self, part: str, *, needed: bool) -> None:
        if needed and self.parts["proposals"]["name"] == NONE:
            raise SettingsError(
                f"--{part} {self.parts[part]['name']} needs segments; pass --proposals sam or "
                "superpixels, or another one"
            )

    def _part(self, part: str) -> Any:  # noqa: ANN401 - whatever the plugin builds
        choice = self.parts[part]
        return build_plugin(PARTS[part], choice["name"], choice["settings"])


def choose(asked: Asked) -> Choices:
    """Check what was asked for and fill in the rest.

    Raises:
        SettingsError: if a name is unknown, a value is wrong, or two do not go together.
    """
    table = read_classes(asked.classes, asked.background)
    bare = asked.proposals == NONE
    labeler = asked.labeler or ("pixel_argmax" if bare else "region_pool")
    names = {"proposals": asked.proposals, "features": asked.features, "labeler": labeler}
    implied = {
        "proposals": _proposals(asked),
        "features": _features(asked),
        "labeler": {"unassigned": asked.unassigned},
    }
    values = {part: _fitting(part, name, implied[part]) for part, name in names.items()}
    _change(values, asked.changes)
    threshold = _threshold(asked, values["labeler"])
    values["labeler"] |= _fitting("labeler", labeler, _decided(threshold))
    settings = {part: _checked(part, name, values[part]) for part, name in names.items()}
    parts = {part: {"name": names[part], "settings": settings[part]} for part in names}
    reads_maps = "score" not in settings["labeler"]
    _check_texts(table, settings["labeler"])
    return Choices(
        table=table,
        parts=parts,
        threshold=threshold,
        max_side=None if reads_maps else asked.max_side,
    )


def _proposals(asked: Asked) -> Values:
    if asked.proposals != "sam":
        if asked.sam is not None:
            raise SettingsError(f"--sam {asked.sam} is for --proposals sam; leave one out")
        return {}
    changes = {
        key.removeprefix("proposals."): value
        for key, value in asked.changes.items()
        if key.startswith("proposals.")
    }
    return sam_settings(asked.sam, dtype=asked.dtype, changes=changes)


def _features(asked: Asked) -> Values:
    model, _, pretrained = (asked.clip or _CLIP).partition(":")
    values: Values = {
        "model": model,
        "dtype": str(devices.dtype(asked.dtype)).removeprefix("torch."),
    }
    values |= {"pretrained": pretrained} if pretrained else {}
    values |= {"templates": asked.templates} if asked.templates else {}
    values |= {"prompt": asked.prompt} if asked.prompt else {}
    return values | (_TINY if model == "tiny" else {})


def _change(values: Mapping[str, Values], changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        part, _, setting = key.partition(".")
        if part not in values or not setting:
            raise SettingsError(f"--set {key}: {suggestion(part, values)} Write part.setting=value")
        if key in {"labeler.threshold", "labeler.confidence"}:
            raise SettingsError(f"--set {key}: pass --threshold, or --masks to have it fitted")
        values[part][setting] = value


def _threshold(asked: Asked, labeler: Values) -> float | None:
    """Return the threshold, or None where masks choose it."""
    if asked.calibrated and asked.threshold is not None:
        raise SettingsError("--threshold and --masks: masks choose thresholds; leave one out")
    if asked.calibrated or asked.threshold is not None:
        return asked.threshold
    return _THRESHOLDS.get(labeler.get("score", "probability"), _THRESHOLDS["probability"])


def _decided(threshold: float | None) -> Values:
    if threshold is None:
        return {"threshold": CALIBRATED, "confidence": "calibrated"}
    return {"threshold": threshold, "confidence": "raw"}


def _fitting(part: str, name: str, implied: Values) -> Values:
    """Return the implied settings that the plugin has."""
    if part == "proposals" and name == NONE:
        return {}
    known = plugins.load(PARTS[part], name).Settings.model_fields
    return {key: value for key, value in implied.items() if key in known}


def _checked(part: str, name: str, values: Values) -> Values:
    """Return all settings of a plugin as JSON values."""
    if part == "proposals" and name == NONE:
        return {}
    return plugin_settings(PARTS[part], name, values).model_dump(mode="json")


def _check_texts(table: ClassTable, labeler: Mapping[str, Any]) -> None:
    if len(table.texts) == 1 and labeler.get("score", "cosine") == "probability":
        raise SettingsError(
            "--classes names one class, whose probability is always 1; say what else may be seen "
            'with --background "grass, sky, wall", or name more classes, or pass '
            "--set labeler.score=cosine"
        )
