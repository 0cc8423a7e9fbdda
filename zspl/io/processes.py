"""Several processes that train one network together, as `torchrun` starts them; usually one.

Each process computes its share of the same batch, so that their number changes how fast a
training is and not the photos it is trained on. What a method draws within a batch, such as the
pairs of CutMix, it draws within each share.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor
from torch import distributed as group

from zspl.io import devices

Item = TypeVar("Item")

PATIENCE = timedelta(hours=6)
"""How long a process waits for another one; torchrun notices sooner when one has died."""


@contextmanager
def joined() -> Iterator[None]:
    """Join the processes that torchrun started, until the block is left; alone, do nothing.

    GPUs speak NCCL; processors, and processes that must share a GPU, speak gloo.
    """
    if int(os.environ.get("WORLD_SIZE") or 1) == 1 or group.is_initialized():
        yield
        return
    device = devices.chosen()
    crowded = int(os.environ.get("LOCAL_WORLD_SIZE") or 1) > torch.cuda.device_count()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    group.init_process_group(
        "gloo" if device.type == "cpu" or crowded else "nccl", timeout=PATIENCE
    )
    try:
        yield
    finally:
        group.destroy_process_group()


def count() -> int:
    """Return the number of processes."""
    return group.get_world_size() if _many() else 1


def rank() -> int:
    """Return this process's number, from 0."""
    return group.get_rank() if _many() else 0


def is_first() -> bool:
    """Return whether this process writes the files and speaks for all."""
    return rank() == 0


def wait() -> None:
    """Wait until every process is here."""
    if _many():
        group.barrier()


def share(items: Sequence[Item]) -> Sequence[Item]:
    """Return this process's share of a list that is worked off item by item."""
    return items[rank() :: count()]


def total(tensor: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes, bit for bit the same on each."""
    if not _many():
        return tensor
    result = tensor.clone()
    group.all_reduce(result)
    return result


def mean(tensor: Tensor) -> Tensor:
    """Return the mean of a floating tensor over all processes, the same on each."""
    return total(tensor) / count() if _many() else tensor


def from_first(tensors: Sequence[Tensor]) -> None:
    """Overwrite each tensor, in place, with the first process's."""
    kinds = {tensor.dtype for tensor in tensors} if _many() else set()
    for kind in sorted(kinds, key=str):
        same = [tensor for tensor in tensors if tensor.dtype == kind]
        flat = torch.cat([tensor.reshape(-1) for tensor in same])
        group.broadcast(flat, src=0)
        parts = torch.split(flat, [tensor.numel() for tensor in same])
        for tensor, part in zip(same, parts, strict=True):
            tensor.copy_(part.view_as(tensor))


def gathered(items: Sequence[Item]) -> list[Item]:
    """Return the items of all processes, in the order of the processes."""
    if not _many():
        return list(items)
    found: list[Sequence[Item]] = [() for _ in range(count())]
    group.all_gather_object(found, items)
    return [item for part in found for item in part]


def _many() -> bool:
    return group.is_available() and group.is_initialized() and group.get_world_size() > 1
