"""Where tensors are computed: the environment's ZSPL_DEVICE, or a GPU when there is one."""

import os

import torch

from zspl.errors import SettingsError


def chosen() -> torch.device:
    """Return the device that models run on.

    Raises:
        SettingsError: if ZSPL_DEVICE names none that exists here.
    """
    name = os.environ.get("ZSPL_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SettingsError(f"ZSPL_DEVICE is {name!r}, expected cpu, cuda or cuda:<n>") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SettingsError(
            f"ZSPL_DEVICE is {name!r} but {torch.cuda.device_count()} GPUs are visible; "
            "unset it or set cpu"
        )
    return device
