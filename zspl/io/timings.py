"""What finished stage instances took: one small JSON each, beside the artifacts.

They are no outputs of DVC, since a time is never the same twice: what ran elsewhere has none here.
`zspl plan` and the report's table of costs read them.
"""

import hashlib
import json
import os
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import torch

from zspl.errors import DiskError, SettingsError
from zspl.io import atomic, devices
from zspl.io.layout import Layout
from zspl.settings import Settings, features_name

_LONGEST = 200
"""Characters of a file's name before a hash stands for the rest; file systems take 255."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """One finished stage instance.

    Attributes:
        stage: Its word.
        instance: What names it, such as shard=0.
        what: All settings that the time of one image or step depends on, `signature`.
        device: `cpu`, or the name of a GPU.
        seconds: Of the wall clock, without the start of Python; of a training those of its steps
            and selections, in all processes that continued it, what a kill undid left out.
        cpu_seconds: Of all cores, of this process and its loaders; None if it was continued.
        units: Images or steps that were done, None where the stage counts none.
        peak_memory_mib: Of the GPU what PyTorch had in use, on a CPU the resident memory, of the
            process that finished; in MiB.
    """

    stage: str
    instance: Mapping[str, str]
    what: str
    device: str
    seconds: float
    cpu_seconds: float | None
    units: int | None
    peak_memory_mib: int

    @property
    def cost(self) -> float | None:
        """Seconds of the device: core-seconds on a CPU, seconds of the wall clock on a GPU."""
        return self.cpu_seconds if self.device == "cpu" else self.seconds


def device_name() -> str:
    """Return `cpu`, or the name of the GPU that would be used."""
    device = devices.chosen()
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def cpu_seconds() -> float:
    """Return the processor time of this process and of its finished children."""
    return time.process_time() + sum(os.times()[2:4])


def path_of(out: Path, stage: str, instance: Mapping[str, Any]) -> Path:
    """Return the file that tells what an instance took, below `paths.out`."""
    words = (f"{key}={quote(str(value), safe='')}" for key, value in sorted(instance.items()))
    name = ",".join((stage, *words))
    if len(name) > _LONGEST:
        name = name[:_LONGEST] + hashlib.sha256(name.encode()).hexdigest()[:16]
    return Layout(out).timings / f"{name}.json"


@contextmanager
def timed(
    settings: Settings, stage: str, instance: Mapping[str, Any]
) -> Iterator[dict[str, float]]:
    """Time one stage instance; the caller puts the stage's numbers into what is yielded.

    One that ends by an error, or is killed, counts as continued the next time, unless its settings
    were wrong, so that it had not begun.
    """
    if os.environ.get("RANK", "0") != "0":  # of processes started together the first one writes
        yield {}
        return
    path = path_of(settings.paths.out, stage, instance)
    mark = path.with_suffix(".unfinished")
    continued = mark.exists()
    atomic.write_text(mark, "")
    path.unlink(missing_ok=True)
    numbers: dict[str, float] = {}
    started, used = time.monotonic(), cpu_seconds()
    try:
        yield numbers
    except SettingsError:
        if not continued:
            mark.unlink(missing_ok=True)
        raise
    mark.unlink(missing_ok=True)
    if continued and "seconds" not in numbers:
        return
    units = numbers.get("iterations", numbers.get("images"))
    timing = Timing(
        stage=stage,
        instance={key: str(value) for key, value in instance.items()},
        what=signature(settings, stage, instance),
        device=device_name(),
        seconds=round(numbers.get("seconds", time.monotonic() - started), 3),
        cpu_seconds=None if continued else round(cpu_seconds() - used, 3),
        units=None if units is None else int(units),
        peak_memory_mib=round(_peak_bytes() / 2**20),
    )
    with suppress(DiskError):  # a finished stage stays finished
        atomic.write_json(path, asdict(timing))


def _peak_bytes() -> int:
    device = devices.chosen()
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def read_timings(out: Path) -> list[Timing]:
    """Return what the finished instances below `paths.out` took; unreadable files do not count."""
    found = []
    for path in sorted(Layout(out).timings.glob("*.json")):
        timing = _read(path)
        if timing is not None:
            found.append(timing)
    return found


def timing_of(settings: Settings, stage: str, instance: Mapping[str, Any]) -> Timing | None:
    """Return what an instance took, None if not known, or known of other settings of a step.

    How many steps there were stands in `units`; it may be another number than now.
    """
    timing = _read(path_of(settings.paths.out, stage, instance))
    current = timing is not None and timing.what == signature(settings, stage, instance)
    return timing if current else None


def _read(path: Path) -> Timing | None:
    try:
        return Timing(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def signature(settings: Settings, stage: str, instance: Mapping[str, Any]) -> str:
    """Return the settings that decide what one unit of a stage instance takes, as text."""
    told = {"propose": _annotator, "embed": _annotator, "label": _variant, "train": _training}
    if stage in told:
        return told[stage](settings, instance)
    if stage == "evaluate":
        return "labels" if "variant" in instance else network_text(settings, instance["model"])
    return settings.prepare.dataset.name if stage == "prepare" else ""


def _annotator(settings: Settings, instance: Mapping[str, Any]) -> str:
    if "encoder" not in instance:
        return _text(instance["proposer"], settings.propose[instance["proposer"]])
    encoder, proposer = instance["encoder"], instance.get("proposals")
    sections = settings.embed if proposer is None else settings.embed_segments
    return _text(features_name(encoder, proposer), sections[encoder])


def _variant(settings: Settings, instance: Mapping[str, Any]) -> str:
    variant = settings.label.variants[instance["variant"]]
    return f"{variant.proposals} {variant.features} {variant.labeler.name}"


def _training(settings: Settings, instance: Mapping[str, Any]) -> str:
    method = method_text(settings, instance["method"])
    return f"{method} | {network_text(settings, instance['model'])} | {recipe_text(settings)}"


def method_text(settings: Settings, method: str) -> str:
    """Return a method and its settings."""
    return _text(method, settings.train.methods[method])


def network_text(settings: Settings, model: str) -> str:
    """Return a network and its settings, without where its weights come from."""
    network = settings.train.models[model]
    return " + ".join(
        _text(part.name, {k: v for k, v in (part.model_extra or {}).items() if k not in _WEIGHTS})
        for part in (network.backbone, network.head)
    )


def recipe_text(settings: Settings) -> str:
    """Return what the time of a step depends on beside method and network."""
    recipe = settings.train
    return (
        f"crop {recipe.crop_size} batch {recipe.batch_labeled}+{recipe.batch_unlabeled} "
        f"partner {recipe.cutmix_partner} views {recipe.views} precision {recipe.precision} "
        f"accumulate {recipe.accumulate} optimizer {recipe.optimizer}"
    )


_WEIGHTS = ("pretrained", "sha256")


def _text(name: str, section: Mapping[str, Any]) -> str:
    return " ".join((name, *(f"{key}={section[key]}" for key in sorted(section))))
