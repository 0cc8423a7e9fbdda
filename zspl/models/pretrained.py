"""Putting published weights into a backbone, or one clear line why not."""

from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from zspl.errors import WeightsError
from zspl.io import weights

UNREADABLE = (
    SafetensorError,
    UnpicklingError,
    OSError,
    RuntimeError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
)
"""What the readers of checkpoint files raise on arbitrary bytes."""

FILE_ENDINGS = (".safetensors", ".pth", ".pt")


def is_file(pretrained: str) -> bool:
    """Tell a checkpoint file from a published tag, by its ending."""
    return pretrained.endswith(FILE_ENDINGS)


def load_backbone_file(module: nn.Module, name: str, *, sha256: str | None) -> None:
    """Load a checkpoint file into a backbone, in place; keys that it lacks are skipped.

    Args:
        module: The backbone; each of its keys must be in the file, with the same shape.
        name: The file's name below the weights folder, or its path.
        sha256: Checksum of the file in hex, or None to take it as it is.

    Raises:
        WeightsError: if the file is missing, damaged or of another network.
    """
    path = weights.resolve(name, sha256=sha256)
    state = read_state(path)
    wanted = module.state_dict()
    missing = [key for key in wanted if key not in state and "num_batches_tracked" not in key]
    if missing:
        raise WeightsError(
            f"{path}: lacks {len(missing)} of {len(wanted)} tensors of this backbone (first: "
            f"{missing[0]}); it is a checkpoint of another network"
        )
    for key, tensor in wanted.items():
        if key in state and state[key].shape != tensor.shape:
            raise WeightsError(
                f"{path}: {key} has shape {tuple(state[key].shape)}, expected "
                f"{tuple(tensor.shape)}; it is a checkpoint of another network"
            )
    module.load_state_dict({key: state.get(key, tensor) for key, tensor in wanted.items()})


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a .safetensors or PyTorch checkpoint without running code from it.

    Entries that are no tensor, such as an epoch number, are left out.

    Raises:
        WeightsError: if the file is missing, damaged or holds no tensors by name.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state: object = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such checkpoint; run the stage that writes it") from error
    except UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"{path}: not a readable checkpoint ({reason}); fetch it again"
        ) from error
    if not isinstance(state, Mapping):
        raise WeightsError(
            f"{path}: holds a {type(state).__name__}, expected tensors by name; save a state_dict"
        )
    return {key: value for key, value in state.items() if isinstance(value, Tensor)}


def create_from_hub(create: Callable[[], nn.Module], *, what: str) -> nn.Module:
    """Run `create`, which may download weights, and report a failed download in one line.

    Raises:
        WeightsError: if the weights cannot be downloaded.
    """
    try:
        return create()
    except (OSError, RuntimeError, ValueError, ImportError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"{what}: the pretrained weights could not be loaded ({reason}); check the network, "
            "or set backbone.pretrained to a file in the weights folder or to null"
        ) from error
