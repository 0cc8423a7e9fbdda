"""What a flow run shows on its page: how far it is, its tables, and its pictures.

Showing is not the work: a server that is away costs a line in the log, not the run.
"""

import base64
import io
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from PIL import Image
from prefect import get_run_logger
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)
from prefect.client.schemas.objects import State

PICTURE_SIDE = 1100
"""Pictures are shrunk to this many pixels: an artifact lies in the server's database."""

_NAMED = 8


class Progress:
    """Whose turn it is, and how many stage instances are done, cached, failed, and left."""

    def __init__(self, benchmark: str, total: int, parallel: int) -> None:
        self._made_of = (benchmark, total, parallel)
        self._key = f"progress-{key(benchmark)}"
        self._total = total
        self._turns = threading.Semaphore(parallel)
        self._running: list[str] = []
        self._lock = threading.Lock()
        self._artifact: UUID | None = None
        self._shown = ""

    def __reduce__(self) -> tuple[type["Progress"], tuple[str, int, int]]:
        """Travel to a Dask worker, whose own places say how many run, with nothing running."""
        return Progress, self._made_of

    @contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """Wait until fewer than `parallel` run, then count `name` as running."""
        with self._turns:
            with self._lock:
                self._running.append(name)
            try:
                yield
            finally:
                with self._lock:
                    self._running.remove(name)

    def show(self, states: Mapping[str, State[Any]]) -> None:
        """Update the artifact if something changed; `states` are those of ended instances."""
        with self._lock:
            running = [name for name in self._running if name not in states]
        text = _summary(states, running, total=self._total)
        if text == self._shown:
            return
        self._shown = text
        percent = 100.0 * len(states) / max(1, self._total)
        attempt(lambda: self._send(percent, text))

    def _send(self, percent: float, text: str) -> None:
        if self._artifact is None:
            made: Any = create_progress_artifact(percent, key=self._key, description=text)
            self._artifact = made
        else:
            update_progress_artifact(self._artifact, percent, description=text)


def show_tables(tables: Sequence[str], name: str) -> None:
    """Show Markdown texts, one below the other."""
    if tables:
        attempt(lambda: create_markdown_artifact("\n\n".join(tables), key=f"tables-{key(name)}"))


def show_picture(path: Path, name: str, caption: str) -> None:
    """Show one picture, shrunk and embedded, so that it needs no file server."""
    text = f"![{caption}]({embedded(path)})\n\n{caption}"
    attempt(lambda: create_markdown_artifact(text, key=f"picture-{key(name)}"))


def embedded(path: Path) -> str:
    """Return a picture of at most `PICTURE_SIDE` pixels, 256 colours, as a data address."""
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    buffer = io.BytesIO()
    picture.quantize(256).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def attempt(show: Callable[[], Any]) -> None:
    """Show something; a failure is one line in the log."""
    try:
        show()
    except Exception as error:  # the run goes on, whatever ails the server
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        get_run_logger().warning("not shown on the run's page (%s); the run goes on", reason)


def key(name: str) -> str:
    """Return `name` in the letters Prefect allows in a key."""
    kept = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name)
    return kept.lower().strip("-") or "run"


def _summary(states: Mapping[str, State[Any]], running: Sequence[str], *, total: int) -> str:
    cached = sum(state.name == "Cached" for state in states.values())
    done = sum(state.is_completed() for state in states.values()) - cached
    failed = [name for name, state in states.items() if not state.is_completed()]
    left = total - len(states) - len(running)
    counts = {"done": done, "cached": cached, "running": len(running), "failed": len(failed)}
    told = [f"{count} {what}" for what, count in {**counts, "left": left}.items()]
    lines = [f"{', '.join(told)}, of {total} stage instances"]
    for what, names in (("Running", running), ("Failed, or held up by a failed one", failed)):
        if names:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            shown = ", ".join(f"`{name}`" for name in sorted(names)[:_NAMED])
            lines += ["", f"{what}: {shown}{more}"]
    return "\n".join(lines)
