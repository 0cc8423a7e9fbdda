"""What a stage tells whoever listens: numbers, files and notes, never the other way round."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Never, Protocol, TypeVar, runtime_checkable

from tqdm import tqdm

Item = TypeVar("Item")


@runtime_checkable
class Observer(Protocol):
    """Receives the numbers, files and facts of one stage while it runs."""

    def params(self, values: Mapping[str, str | int | float | bool]) -> None:
        """Take facts that identify the run (dataset, split, method, backbone, seed)."""

    def metrics(self, values: Mapping[str, float], *, step: int | None = None) -> None:
        """Take numbers, with the training step they belong to if any."""

    def artifact(self, path: Path) -> None:
        """Take a finished file worth keeping beside the numbers."""


class Silent:
    """The observer of those who do not listen."""

    def params(self, values: Mapping[str, str | int | float | bool]) -> None:
        """Ignore facts."""

    def metrics(self, values: Mapping[str, float], *, step: int | None = None) -> None:
        """Ignore numbers."""

    def artifact(self, path: Path) -> None:
        """Ignore files."""


def progress(items: Iterable[Item], *, what: str, total: int | None = None) -> Iterator[Item]:
    """Yield `items` under a progress bar on stderr with rate and time left."""
    yield from tqdm(items, desc=what, total=total, dynamic_ncols=True, mininterval=0.5)


class Bar:
    """A progress bar that counts what is finished, in whatever order."""

    def __init__(self, shown: "tqdm[Never]") -> None:
        self._shown = shown

    def step(self, **counts: int) -> None:
        """Count one more item; `counts` above 0 are shown beside the bar."""
        worth = {name: count for name, count in counts.items() if count}
        self._shown.set_postfix(worth, refresh=False)
        self._shown.update()


@contextmanager
def bar(*, what: str, unit: str, total: int, done: int) -> Iterator[Bar]:
    """Show a bar on stderr with rate and time left; the rate does not count the first `done`."""
    with tqdm(
        desc=what, unit=unit, total=total, initial=done, dynamic_ncols=True, mininterval=0.5
    ) as shown:
        yield Bar(shown)
