"""What is known of a run beside its numbers: versions, hashes and data, nothing of a person."""

import hashlib
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from zspl.io.layout import Cell, Layout
from zspl.settings import Settings

Tags = dict[str, str]


def provenance(settings: Settings, labels: str | None) -> Tags:
    """Return the commit, the hashes of lock files and data, and the versions that run."""
    code = settings.paths.code
    tags = {
        "mlflow.source.git.commit": _revision(code),
        "env.python": platform.python_version(),
        "env.torch": _version("torch"),
    }
    files = {"env.requirements": code / "requirements.lock", "dvc.lock": Path("dvc.lock")}
    tags |= {key: _sha256(path) for key, path in files.items() if path.is_file()}
    layout = Layout(settings.paths.out)
    paths = {"dvc.data": layout.data}
    if labels is not None:
        paths["dvc.labels"] = layout.labels(labels)
    known = _dvc_hashes()
    return tags | {key: known[str(path)] for key, path in paths.items() if str(path) in known}


def hardware() -> Tags:
    """Return the devices of this process; known once it has computed."""
    import torch

    tags = {"env.cuda": torch.version.cuda or "none"}
    # Asking for a name would start CUDA in a stage that does not use it.
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        found = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return {**tags, "env.device": ", ".join(found)}
    return {**tags, "env.device": f"{_processor()}, {torch.get_num_threads()} threads"}


def inputs(settings: Settings, cell: Cell, *, context: str) -> list[dict[str, Any]]:
    """Return the data sets of a cell: its split by checksum, its labels by DVC's hash."""
    layout = Layout(settings.paths.out)
    split = layout.split(cell.split)
    counts = {path.stem: len(path.read_text().split()) for path in sorted(split.glob("*.txt"))}
    digest = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(split.glob("*.txt"))))
    name = settings.prepare.dataset.name
    found = [_dataset(f"{name} {cell.split}", digest.hexdigest()[:32], split, counts, context)]
    if cell.labels is not None:
        folder = layout.labels(cell.labels)
        known = _dvc_hashes().get(str(folder))
        if known is not None:
            found.append(_dataset(f"{name} {cell.labels}", known[:36], folder, {}, "pseudo labels"))
    return found if counts else []


def _dataset(
    name: str, digest: str, place: Path, counts: Mapping[str, int], context: str
) -> dict[str, Any]:
    return {
        "name": name,
        "digest": digest,
        "path": place.name,
        "images": dict(counts),
        "context": context,
    }


def _revision(code: Path) -> str:
    """Return the commit that is checked out, marked when files differ from it."""
    command = ["git", "-C", str(code), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=3)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _dvc_hashes() -> dict[str, str]:
    """Return DVC's content hash of each output in dvc.lock, by its path as written there."""
    try:
        with Path("dvc.lock").open(encoding="utf-8") as file:
            loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
            content = yaml.load(file, loader) or {}
    except (OSError, yaml.YAMLError):
        return {}
    stages = content.get("stages", {}).values()
    return dict(_hashes(out for stage in stages for out in stage.get("outs", [])))


def _hashes(outputs: Iterator[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for out in outputs:
        if "md5" in out:
            yield out["path"], str(out["md5"])


def _processor() -> str:
    """Return the kind of CPU, the same on every machine that has one like it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()} ({os.cpu_count()} cores)"
