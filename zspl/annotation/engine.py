"""The run itself: photos are read ahead of the models, results are written behind them.

A photo is done when its facts are there, which are written last; so a run that was killed at any
moment continues with the same result.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image

from zspl.annotation.annotator import Annotation, Seen
from zspl.annotation.facts import Facts
from zspl.annotation.photos import Photo
from zspl.annotation.quarantine import Quarantine, reason_of
from zspl.annotation.results import confidence_path, facts_path, label_path
from zspl.errors import DataError, ZsplError
from zspl.io.images import Pixels, read_image, write_confidence, write_label
from zspl.observer import Bar, bar

Annotate = Callable[[Sequence[Seen]], list[Annotation]]
"""Labels several photos in one pass."""

Keep = Callable[[Seen, Pixels], None]
"""Writes something more about a photo as it was seen and its label map UInt8[H W]."""

_READERS = 2
_WRITERS = 2
_GROUPS_AHEAD = 2
_WRITES_BEHIND = 8


@dataclass(kw_only=True)
class Tally:
    """What a run did: photos labeled and put aside by this run, and how long it took."""

    labeled: int = 0
    quarantined: int = 0
    seconds: float = 0.0
    reasons: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """What is left to do, and what was settled before.

    `groups` are passes with at least one photo to do; the others of a group are looked at once
    more without being written, so that a pass is the same after a kill. `held` is (source, reason)
    of photos that stay quarantined.
    """

    groups: tuple[tuple[Photo, ...], ...]
    todo: frozenset[str]
    done: int
    held: dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Read:
    photo: Photo
    stat: tuple[int, int]
    seen: Seen | None
    reason: str = ""


def plan(photos: Sequence[Photo], out: Path, *, batch: int = 1, again: bool = False) -> Waiting:
    """Find out what is left to do.

    Args:
        photos: All photos of the run, always in the same order.
        out: The output folder.
        batch: Photos that share a pass of the networks.
        again: Whether quarantined photos that did not change are tried again.
    """
    quarantine, held = Quarantine(out), {}
    todo: set[str] = set()
    for photo in photos:
        stat = _stat(photo)
        if _is_done(out, photo, stat):
            continue
        reason = None if again else quarantine.reason(photo, stat)
        if reason is None:
            todo.add(photo.name)
        else:
            held[photo.source] = reason
    groups = (
        tuple(photo for photo in photos[step : step + batch] if photo.source not in held)
        for step in range(0, len(photos), batch)
    )
    return Waiting(
        groups=tuple(group for group in groups if any(p.name in todo for p in group)),
        todo=frozenset(todo),
        done=len(photos) - len(todo) - len(held),
        held=held,
    )


def run(
    waiting: Waiting,
    annotate: Annotate,
    *,
    out: Path,
    max_side: int | None = None,
    keep: Keep | None = None,
    what: str = "annotate",
) -> Tally:
    """Label what is left to do; a photo that cannot be read or breaks a model is put aside.

    Args:
        waiting: What is left to do.
        annotate: What labels the photos of one pass.
        out: The output folder.
        max_side: The side in pixels to which larger photos are shrunk for the models.
        keep: Called for each labeled photo before it counts as done.
        what: Title of the progress bar.

    Raises:
        DiskError: if a result cannot be written; what was written before stays.
        ZsplError: if a model cannot be used at all.
        KeyboardInterrupt: if the user stops it; results under way are still written.
    """
    started = time.monotonic()
    tally, quarantine = Tally(), Quarantine(out)
    total = waiting.done + len(waiting.todo)
    with (
        bar(what=what, unit="photo", total=total, done=waiting.done) as shown,
        _written() as writer,
        _read_ahead(waiting.groups, max_side) as groups,
    ):
        for read, made in (pair for group in groups for pair in _labeled(group, annotate)):
            if read.photo.name in waiting.todo:
                writer.submit(_keep, out, quarantine, read, made, keep)
                _count(tally, shown, read, made)
    tally.seconds = time.monotonic() - started
    return tally


def _count(tally: Tally, shown: Bar, read: _Read, made: Annotation | str) -> None:
    if isinstance(made, str):
        tally.quarantined += 1
        tally.reasons[read.photo.source] = made
    else:
        tally.labeled += 1
    shown.step(quarantined=tally.quarantined)


def _labeled(
    group: Sequence[_Read], annotate: Annotate
) -> Iterator[tuple[_Read, Annotation | str]]:
    """Yield each photo of a group with its annotation, or the reason why there is none."""
    yield from ((read, read.reason) for read in group if read.seen is None)
    reads = [read for read in group if read.seen is not None]
    if not reads:
        return
    made = _attempt(annotate, [read.seen for read in reads if read.seen is not None])
    if not isinstance(made, str):
        yield from zip(reads, made, strict=True)
    elif len(reads) == 1:
        yield reads[0], made
    else:
        # One photo breaks the pass; each alone tells which.
        for read in reads:
            yield from _labeled([read], annotate)


def _attempt(annotate: Annotate, photos: Sequence[Seen]) -> list[Annotation] | str:
    """Return the annotations, or why there are none."""
    first = photos[0].photo
    try:
        return annotate(photos)
    except DataError as error:
        return reason_of(error, first)
    except ZsplError:
        raise
    except Exception as error:  # whatever breaks a model on one photo must not end the run
        reason = f"{type(error).__name__}: {reason_of(error, first)}"
    if torch.cuda.is_available():
        # The failed pass let go of its memory only now.
        torch.cuda.empty_cache()
    return reason


def _keep(
    out: Path, quarantine: Quarantine, read: _Read, made: Annotation | str, more: Keep | None
) -> None:
    """Write what was made of a photo, the facts last."""
    name = read.photo.name
    if isinstance(made, str):
        # What was made of an earlier file of that name is no label of this one; facts go first.
        for place in (facts_path, label_path, confidence_path):
            place(out, name).unlink(missing_ok=True)
        quarantine.put(read.photo, made, read.stat)
        return
    label = made.label()
    write_confidence(confidence_path(out, name), made.confidence())
    write_label(label_path(out, name), label)
    if more is not None:
        more(made.seen, label)
    made.facts(label, read.stat).write(facts_path(out, name))
    quarantine.release(read.photo)


def _is_done(out: Path, photo: Photo, stat: tuple[int, int]) -> bool:
    try:
        facts = Facts.read(facts_path(out, photo.name))
    except DataError:
        return False
    files = (label_path(out, photo.name), confidence_path(out, photo.name))
    same = facts.stat == stat and facts.source == photo.source
    return same and all(path.is_file() for path in files)


def _stat(photo: Photo) -> tuple[int, int]:
    """Return the size in bytes and the time in ns that tell whether a file changed."""
    try:
        status = photo.path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _read(photo: Photo, max_side: int | None) -> _Read:
    # Before the bytes: a file that changes meanwhile is done again next time.
    stat = _stat(photo)
    try:
        seen = Seen.of(photo, read_image(photo.path), max_side)
        return _Read(photo=photo, stat=stat, seen=seen)
    except Exception as error:  # decoders raise anything on damaged files
        return _Read(photo=photo, stat=stat, seen=None, reason=reason_of(error, photo))


@contextmanager
def _read_ahead(
    groups: Sequence[Sequence[Photo]], max_side: int | None
) -> Iterator[Iterator[list[_Read]]]:
    """Give an iterator over the groups, read by threads ahead of its consumer."""
    # Pillow finds its rarer formats at first need, and of two threads that need one only one does.
    Image.init()
    pool = ThreadPoolExecutor(_READERS, thread_name_prefix="read")

    def reads() -> Iterator[list[_Read]]:
        ahead: deque[list[Future[_Read]]] = deque()
        for group in groups:
            ahead.append([pool.submit(_read, photo, max_side) for photo in group])
            if len(ahead) > _GROUPS_AHEAD:
                yield [future.result() for future in ahead.popleft()]
        while ahead:
            yield [future.result() for future in ahead.popleft()]

    try:
        yield reads()
    finally:
        pool.shutdown(cancel_futures=True)


class _Writer:
    """Runs writes in threads; the first that fails ends the run at the next submit."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._pending: deque[Future[None]] = deque()

    def submit(self, write: Callable[..., None], *arguments: object) -> None:
        """Start a write, after waiting for room."""
        while self._pending and (len(self._pending) >= _WRITES_BEHIND or self._pending[0].done()):
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(write, *arguments))

    def finish(self) -> None:
        """Wait for all writes, and raise what the first failing one raised."""
        while self._pending:
            self._pending.popleft().result()


@contextmanager
def _written() -> Iterator[_Writer]:
    """Give a writer whose writes are all finished at the end, even if the run is stopped."""
    with ThreadPoolExecutor(_WRITERS, thread_name_prefix="write") as pool:
        writer = _Writer(pool)
        yield writer
        writer.finish()
