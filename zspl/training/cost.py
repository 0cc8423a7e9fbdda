"""What a training cost on the machine that ran it.

Written beside the cells, not into them: time is no result, and a cell's bytes stay those of its
settings. DVC does not watch these files; what ran elsewhere has none here.
"""

import resource
import sys
from pathlib import Path

import torch

from zspl.io import atomic, devices
from zspl.training.rounds import Outcome

_MIB = 2**20


def write_cost(path: Path, outcome: Outcome) -> None:
    """Write steps, seconds (selections and waiting for images included) and peak memory in MiB.

    Memory is the GPU's that PyTorch had in use, or on a CPU the resident memory of this process.
    Steps that a kill undid are not counted, and memory is of the process that finished.
    """
    device = devices.chosen()
    content = {
        "device": device.type,
        "steps": outcome.iterations,
        "seconds": round(outcome.seconds, 1),
        "peak_memory_mib": round(_peak_bytes(device) / _MIB),
    }
    atomic.write_json(path, content)


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
