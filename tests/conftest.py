"""What every test may ask for: exact costs, which do not depend on the machine or its load."""

from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


@dataclass
class Costs:
    """What a block of code cost, filled in when the block is left.

    `flops` as torch counts them: matrix products, convolutions and attention. `ops` are the
    torch ops that compute or copy; views are free. `largest` is the largest tensor, in bytes.
    """

    flops: int = 0
    ops: int = 0
    largest: int = 0


class _Ledger(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.ops = 0
        self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if not func.is_view and func.namespace != "profiler":
            self.ops += 1
        given = {_storage(value) for value in tree_leaves((args, kwargs)) if _is_tensor(value)}
        for value in tree_leaves(result):
            if _is_tensor(value) and _storage(value) not in given:
                self.largest = max(self.largest, value.untyped_storage().nbytes())
        return result


def _cpu_attention_flops(query, key, value, *args, out_shape=None, **kwargs):
    return sdpa_flop_count(query, key, value)


def _is_tensor(value):
    return isinstance(value, torch.Tensor)


def _storage(tensor):
    return tensor.untyped_storage()._cdata


@pytest.fixture
def count_costs():
    """Return a context manager: `with count_costs() as costs: ...`, then read `costs`."""

    @contextmanager
    def counting():
        costs, ledger = Costs(), _Ledger()
        # torch counts the attention kernels of a GPU but not the one of a CPU
        counter = FlopCounterMode(
            display=False, custom_mapping={CPU_ATTENTION: _cpu_attention_flops}
        )
        with counter as flops, ledger:
            yield costs
        costs.flops = flops.get_total_flops()
        costs.ops = ledger.ops
        costs.largest = ledger.largest

    return counting
