"""What `zspl doctor` finds out about the machine and what is installed on it."""

import http.client
import os
import platform
import re
import shutil
import socket
import sys
from collections import defaultdict
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import torch

from zspl.cli._finding import Finding, note, ok, problem
from zspl.errors import SettingsError
from zspl.io import devices

GIB = 2**30
_LEAST_MEMORY = 4 * GIB
_LEAST_SHARED = GIB
_SHARED = Path("/dev/shm")
_WAIT = 0.5
_SERVERS = (
    (4200, "Prefect", "/api/health", b"true", "prefect server start"),
    (5000, "MLflow", "/health", b"OK", "mlflow ui --backend-store-uri sqlite:///mlflow.db"),
)
_REQUIREMENT = re.compile(r"^([A-Za-z0-9_.-]+)(?:\[[^]]*\])?(?:==([^;, ]+))?")
_EXTRA = re.compile(r"extra == ['\"]([^'\"]+)['\"]")


def findings() -> Iterator[Finding]:
    """Yield what is found."""
    yield from _python()
    yield from _packages()
    yield from _device()
    yield _memory()
    yield _shared_memory()
    yield _encoding()
    for port, name, path, answer, start in _SERVERS:
        yield _port(port, name=name, path=path, answer=answer, start=start)


def _python() -> Iterator[Finding]:
    yield ok("python", f"{platform.python_version()} ({sys.executable})")
    called = shutil.which("python")
    if called is None or Path(called).parent != Path(sys.executable).parent:
        place = Path(sys.prefix) / "bin" / "activate"
        fix = (
            f". {place}" if place.is_file() else f"export PATH={Path(sys.executable).parent}:$PATH"
        )
        found = f"dvc.yaml calls `python`, which is {called or 'not on the PATH'} here"
        yield problem("python", found, fix)


def _packages() -> Iterator[Finding]:
    """Compare what zspl's own metadata asks for with what is installed, importing nothing."""
    missing: dict[str, list[str]] = defaultdict(list)
    here: dict[str, list[str]] = defaultdict(list)
    for line in metadata.requires("zspl") or ():
        match, extra = _REQUIREMENT.match(line), _EXTRA.search(line)
        if match is None:
            continue
        name, wanted = match.groups()
        group = extra.group(1) if extra else ""
        found = _version(name)
        if found is None:
            missing[group].append(name)
        elif wanted and found.split("+")[0] != wanted:
            yield note(name, f"{found}, tested with {wanted}", f"pip install '{name}=={wanted}'")
        elif not group or wanted:
            here[group].append(f"{name} {found}")
        else:
            here[group].append(name)
    for group in sorted({*missing, *here}):
        about = f"zspl[{group}]" if group else f"zspl {_version('zspl')}"
        if not missing[group]:
            yield ok(about, ", ".join(here[group]))
        else:
            lacking, package = (note, f"'zspl[{group}]'") if group else (problem, "zspl")
            found = f"lacks {', '.join(missing[group])}"
            yield lacking(about, found, f"pip install {package}")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _device() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        device = devices.chosen()
    except SettingsError as error:
        yield problem("device", str(error), "unset ZSPL_DEVICE")
        return
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        name = torch.cuda.get_device_name(device)
        yield ok("device", f"{name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free; {cores} cores")
        return
    yield ok(
        "device", f"{device.type}, {cores} cores, torch uses {torch.get_num_threads()} threads"
    )
    if torch.cuda.is_available():
        yield note("device", "a GPU is here, but ZSPL_DEVICE is cpu", "unset ZSPL_DEVICE")
    elif shutil.which("nvidia-smi"):
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else ""
        found = f"nvidia-smi is here, but torch sees no GPU ({built or 'torch is built for CPUs'})"
        yield problem("device", found, "nvidia-smi   # what its driver supports")


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    found = f"{total / GIB:.1f} GiB, {free / GIB:.1f} GiB unused"
    if total < _LEAST_MEMORY:
        fix = "export ZSPL_WORKERS=0   # and a small model: --sam mobile_sam, --model mobilenet"
        return note("memory", f"{found}; large models want more", fix)
    return ok("memory", found)


def _shared_memory() -> Finding:
    workers = os.environ.get("ZSPL_WORKERS") or "0"
    if not _SHARED.is_dir():
        return ok("shared memory", "this system has no /dev/shm")
    size = shutil.disk_usage(_SHARED).total
    found = f"{size / GIB:.2f} GiB in /dev/shm, ZSPL_WORKERS is {workers}"
    if size >= _LEAST_SHARED:
        return ok("shared memory", found)
    fix = "docker run --shm-size=8g ...   # or export ZSPL_WORKERS=0"
    how = note if workers == "0" else problem
    return how("shared memory", f"{found}; loader processes pass batches through it", fix)


def _encoding() -> Finding:
    names = (sys.getfilesystemencoding(), sys.stdout.encoding or "utf-8")
    if all(name.lower().replace("-", "") == "utf8" for name in names):
        return ok("encoding", "UTF-8")
    found = f"file names {names[0]}, terminal {names[1]}; signs of names will be escaped"
    return note("encoding", found, "export LC_ALL=C.UTF-8 PYTHONUTF8=1")


def _port(port: int, *, name: str, path: str, answer: bytes, start: str) -> Finding:
    about = f"port {port}"
    try:
        socket.create_connection(("127.0.0.1", port), timeout=_WAIT).close()
    except OSError:
        return ok(about, f"free; `{start}` would listen there")
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_WAIT)
        connection.request("GET", path)
        said = connection.getresponse().read(100).strip()
    except (OSError, http.client.HTTPException):
        said = b""
    if said == answer:
        return ok(about, f"answered by {name}")
    found = f"taken by something that is not {name}"
    return note(
        about, found, f"ss -ltnp 'sport = :{port}'   # who it is; or start {name} elsewhere"
    )
