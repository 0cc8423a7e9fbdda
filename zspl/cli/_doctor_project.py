"""What `zspl doctor` finds out about the params.yaml here: settings, weights, data, disk."""

import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from zspl.cli._finding import Finding, note, ok, problem
from zspl.cli._init_place import PACKAGE, PIPELINE
from zspl.errors import WeightsError, ZsplError
from zspl.io import catalog, weights
from zspl.io.atomic import existing_parent
from zspl.sections import plugin_settings
from zspl.settings import Settings

_GB = 10**9
_SAMS = {"vit_t": "mobile_sam", "vit_b": "sam_vit_b", "vit_l": "sam_vit_l", "vit_h": "sam_vit_h"}
_SLOW_TO_LIST = {"coco"}

_OF_PHOTO = {"features": 900_000, "labels": 200_000, "proposals": 60_000}
"""Bytes per photo of ViT-B/16's grid at 448 pixels in half precision, of a pseudo label and its
confidence at 500 pixels, and of SAM's masks."""

_OF_CELL = 300_000_000
"""Bytes of one training: two checkpoints of a large network, or a moderate one and its state."""

_KEPT_TWICE = 2
"""DVC keeps a copy in its cache, where the file system has no cheaper one."""


def findings(params: Path) -> Iterator[Finding]:
    """Yield what is found; paths of params.yaml are seen from the current folder."""
    yield _writable("folder", Path.cwd())
    yield _writable("weights", weights.folder())
    if not params.is_file():
        fix = "cd there, or make one: zspl init DIR --images PHOTOS --masks MASKS --classes A,B"
        yield note("settings", f"no {params} here, so no data and no weights are checked", fix)
        yield _disk(Path.cwd(), None)
        return
    try:
        settings = Settings.read(params)
    except ZsplError as error:
        yield problem("settings", " ".join(str(error).split()), f"edit {params}")
        yield _disk(Path.cwd(), None)
        return
    cells = settings.cells
    trainings = len(cells.methods) + len(cells.label_methods) * len(cells.labels)
    trainings *= len(cells.models) * len(cells.splits) * len(cells.seeds)
    yield ok("settings", f"{params}: benchmark {settings.benchmark}, {trainings} trainings")
    yield from _pipeline(settings)
    yield from _weights(settings)
    photos, found = _data(settings)
    yield found
    need = None if photos is None else _need(settings, photos=photos, trainings=trainings)
    yield _disk(settings.paths.out, need)


def _writable(about: str, folder: Path) -> Finding:
    place = folder if folder.exists() else existing_parent(folder)
    if os.access(place, os.W_OK | os.X_OK):
        return ok(about, f"{folder} can be written")
    if about == "weights":
        return problem(about, f"{folder} cannot be written", "export ZSPL_WEIGHTS=DIR")
    return problem(about, f"{folder} cannot be written", f"chmod u+rwx {shlex.quote(str(place))}")


def _pipeline(settings: Settings) -> Iterator[Finding]:
    pipeline = Path("dvc.yaml")
    if not pipeline.is_file():
        yield problem("pipeline", "no dvc.yaml here", f"cp {shlex.quote(str(PIPELINE))} dvc.yaml")
        return
    if PIPELINE.is_file() and pipeline.read_bytes() != PIPELINE.read_bytes():
        found = "dvc.yaml differs from the one of the installed zspl"
        yield note("pipeline", found, f"cp {shlex.quote(str(PIPELINE))} dvc.yaml")
    watched = settings.paths.code / "zspl"
    if watched.resolve() != PACKAGE.resolve():
        fix = f"ln -sfn {shlex.quote(str(PACKAGE))} {shlex.quote(str(watched))}"
        yield problem("pipeline", f"DVC watches {watched}, but {PACKAGE} runs", fix)
        return
    here = Path.cwd()
    if not any((folder / ".dvc").is_dir() for folder in (here, *here.parents)):
        yield problem(
            "pipeline", "no DVC repository around this folder", "dvc init   # after git init"
        )
        return
    yield ok("pipeline", f"dvc.yaml, code in {watched}")


def _weights(settings: Settings) -> Iterator[Finding]:
    """Yield one finding for each checkpoint that params.yaml needs."""
    for name in sorted(set(_needed(settings))):
        try:
            yield _weight(name)
        except WeightsError as error:
            yield problem("weights", " ".join(str(error).split()), "edit params.yaml")


def _needed(settings: Settings) -> Iterator[str]:
    """Yield names of the catalog, or of files below ZSPL_WEIGHTS."""
    if (sam := settings.propose.get("sam")) is not None:
        chosen = plugin_settings("zspl.proposals", "sam", sam).model_dump()
        if chosen["model"] != "tiny":
            yield chosen["checkpoint"] or _SAMS[chosen["model"]]
    for name, values in (*settings.embed.items(), *settings.embed_segments.items()):
        chosen = plugin_settings("zspl.features", name, values).model_dump()
        if chosen.get("model", "tiny") != "tiny":
            weight = str(chosen["pretrained"])
            yield weight if _is_file(weight) else f"{chosen['model']}:{weight}"
    for name in settings.cells.models:
        backbone = settings.train.models[name].backbone
        values = backbone.model_extra or {}
        chosen = plugin_settings("zspl.models.backbones", backbone.name, values).model_dump()
        tag = chosen.get("pretrained")
        if tag is not None:
            size = f"_{chosen['size']}" if "size" in chosen else ""
            yield tag if _is_file(tag) else f"{backbone.name}{size}.{tag}"


def _is_file(tag: str) -> bool:
    return Path(tag).suffix in weights.ENDINGS


def _weight(name: str) -> Finding:
    about = "weights"
    if _is_file(name):
        path = weights.below(name)
        fix = f"put it there, or: zspl weights get {shlex.quote(name)} --url ADDRESS"
        return (
            ok(about, f"{name} is here")
            if path.is_file()
            else problem(about, f"{path}: missing", fix)
        )
    try:
        entry = catalog.find(name)
    except WeightsError:
        return note(about, f"{name}: comes from its library's hub at first use")
    state, get = entry.state(), f"zspl weights get {name}"
    if state == "present":
        return ok(
            about, f"{name} is here, of the right size (`zspl weights verify {name}` hashes it)"
        )
    if state == "damaged":
        return problem(
            about, f"{entry.path}: has another size", f"rm {shlex.quote(str(entry.path))}; {get}"
        )
    size = "" if entry.size is None else f", {entry.size / _GB:.2f} GB"
    return note(about, f"{name}: {state}, downloaded at first use{size}", get)


def _data(settings: Settings) -> tuple[int | None, Finding]:
    """Return how many photos there are, if that is quick to tell, and the finding."""
    about, source = "data", settings.paths.source
    if not source.exists():
        hint = "edit paths.source, or link the photos there"
        return None, problem(about, f"{source}: no such folder", f"{hint}: ln -s PHOTOS {source}")
    name = settings.prepare.dataset.name
    if name in _SLOW_TO_LIST:
        return None, ok(about, f"{source} is there ({name}; the stage prepare reads it)")
    try:
        dataset = settings.prepare.dataset.build("zspl.datasets")
        photos = len(dataset.train_ids(source))
    except ZsplError as error:
        return None, problem(about, " ".join(str(error).split()), "zspl run prepare   # after that")
    return photos, ok(about, f"{source}: {photos} photos to learn from ({name})")


def _need(settings: Settings, *, photos: int, trainings: int) -> int:
    of_photo = _OF_PHOTO["features"] * (
        len(settings.embed) + len(settings.embed_segments) * len(settings.propose)
    )
    of_photo += _OF_PHOTO["labels"] * len(settings.label.variants)
    of_photo += _OF_PHOTO["proposals"] * len(settings.propose)
    return _KEPT_TWICE * (photos * of_photo + trainings * _OF_CELL)


def _disk(out: Path, need: int | None) -> Finding:
    place = out if out.exists() else existing_parent(out)
    free = shutil.disk_usage(place).free
    if need is None:
        return ok("disk", f"{free / _GB:.1f} GB free")
    found = f"{free / _GB:.1f} GB free, roughly {need / _GB:.1f} GB needed"
    if free < need:
        return note(
            "disk", found, "set paths.out and DVC's cache to a larger disk: dvc cache dir DIR"
        )
    return ok("disk", found)
