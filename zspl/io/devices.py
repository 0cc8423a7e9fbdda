"""Where tensors are computed, and in which precision: ZSPL_DEVICE, or a GPU when there is one."""

import os

import torch

from zspl.errors import SettingsError, suggestion

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def chosen() -> torch.device:
    """Return the device that models run on; of processes started together, each one's own GPU.

    Raises:
        SettingsError: if ZSPL_DEVICE names none that exists here.
    """
    name = os.environ.get("ZSPL_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SettingsError(
            f"ZSPL_DEVICE is {name!r} (or --device), expected cpu, cuda or cuda:<n>"
        ) from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SettingsError(
            f"ZSPL_DEVICE is {name!r} (or --device) but {torch.cuda.device_count()} GPUs are "
            "visible; leave it out or set cpu"
        )
    local = os.environ.get("LOCAL_RANK")
    if device.type == "cuda" and device.index is None and local is not None:
        # torchrun numbers the processes of a machine; more of them than GPUs take turns.
        return torch.device("cuda", int(local) % torch.cuda.device_count())
    return device


def dtype(name: str) -> torch.dtype:
    """Return the precision that a setting names, if the chosen device computes in it natively.

    An emulated half precision is slower than float32 by orders of magnitude, so it is refused.

    Args:
        name: float32, bfloat16, float16 or auto. auto is float32 on a CPU, and on a GPU
            bfloat16, or float16 where the GPU has no bfloat16.

    Raises:
        SettingsError: if there is no such precision, the chosen device has no native support for
            it (a CPU never has float16), or ZSPL_DEVICE names no device.
    """
    if name != "auto" and name not in _DTYPES:
        raise SettingsError(f"dtype is {name!r}. {suggestion(name, [*_DTYPES, 'auto'])}")
    device = chosen()
    on_cpu = device.type == "cpu"
    if name == "auto":
        half = torch.bfloat16 if _has_native_bfloat16(device) else torch.float16
        return torch.float32 if on_cpu else half
    if on_cpu and name == "float16":
        raise SettingsError("dtype is float16, which no CPU computes fast; set float32 or auto")
    if name == "bfloat16" and not _has_native_bfloat16(device):
        lacking = "CPU has neither AVX512-BF16 nor AMX" if on_cpu else "GPU has no native bfloat16"
        raise SettingsError(f"dtype is bfloat16 but this {lacking}; set float32 or auto")
    return _DTYPES[name]


def _has_native_bfloat16(device: torch.device) -> bool:
    if device.type == "cpu":
        return any(_cpu_has(feature) for feature in ("avx512_bf16", "amx_tile"))
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return False


def _cpu_has(feature: str) -> bool:
    """Ask torch, whose queries are private: one that a later torch lacks counts as no."""
    query = getattr(torch.cpu, f"_is_{feature}_supported", None)
    return bool(query is not None and query())
