"""What a stage tells whoever listens: numbers, files and notes, never the other way round."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

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
