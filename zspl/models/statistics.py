"""Which batches count in the running statistics that batch norm uses in evaluation."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def uncounted(network: nn.Module) -> Iterator[None]:
    """Leave the running means and variances of batch norm as they are, inside the `with` block.

    Training mode normalises by the batch itself, so outputs and gradients stay the same; what
    changes is how the network acts in evaluation mode.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    tracked = [norm.track_running_stats for norm in norms]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm, tracks in zip(norms, tracked, strict=True):
            norm.track_running_stats = tracks
