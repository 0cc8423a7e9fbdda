"""Loading ahead: worker processes prepare steps while the network works on earlier ones."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader
from torch.utils.data import Dataset as Steps

from zspl.errors import ZsplError
from zspl.io import devices
from zspl.records import Loaded, each_tensor

Load = Callable[[int, Collection[str]], Loaded]
"""Returns what a step of a method with certain needs learns from."""


def prefetched(
    load: Load, steps: range, needs: Collection[str], *, workers: int, ahead: int
) -> Iterator[Loaded]:
    """Yield what `load` returns for each step, in order.

    Workers live as long as the iterator, which is a whole training, and compute on one thread
    each. The tensors are pinned when a GPU is used, so that they are copied to it in the
    background.

    Args:
        load: Called in a worker.
        steps: What to load.
        needs: What the method reads.
        workers: Processes; 0 loads here, one step at a time.
        ahead: Steps that each worker prepares before they are asked for.

    Raises:
        ZsplError: what `load` raised in a worker.
        SettingsError: if there are workers and ZSPL_DEVICE names no device that exists.
    """
    if workers == 0:
        yield from (load(step, needs) for step in steps)
        return
    loader = DataLoader(
        _Steps(load, needs),
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        prefetch_factor=ahead,
        pin_memory=devices.chosen().type == "cuda",
        collate_fn=_unchanged,
    )
    for loaded in loader:
        # An exception that crosses the loader itself would arrive as a page of traceback.
        if isinstance(loaded, ZsplError):
            raise loaded
        yield loaded.batches


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A step on its way; the loader calls `pin_memory` of what is no tensor."""

    batches: Loaded

    def pin_memory(self) -> "_Loaded":
        return _Loaded(each_tensor(self.batches, lambda tensor: tensor.pin_memory()))


class _Steps(Steps[_Loaded | ZsplError]):
    """The steps of a training as a map-style data set."""

    def __init__(self, load: Load, needs: Collection[str]) -> None:
        self._load = load
        self._needs = needs

    def __getitem__(self, step: int) -> _Loaded | ZsplError:
        try:
            return _Loaded(self._load(step, self._needs))
        except ZsplError as error:
            return error


def _unchanged(loaded: Any) -> Any:  # noqa: ANN401 - the loader types it as a list
    return loaded
