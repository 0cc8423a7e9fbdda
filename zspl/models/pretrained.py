"""Putting published weights into a backbone or a head, or one clear line why not."""

import logging
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from zspl.errors import WeightsError
from zspl.io import weights
from zspl.models.importing import PARTS, Imported, translate
from zspl.settings import Section

LOG = logging.getLogger("zspl.models")

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

FILE_ENDINGS = (".safetensors", ".pth", ".pt", ".bin")

WRAPPERS = ("state_dict", "model", "model_ema")
"""Under which key training code keeps a network beside its optimiser; the first one counts.

UniMatch V2 keeps the student and its moving average, and chooses the file by the student's score.
"""

_COUNTER = "num_batches_tracked"


class HeadSettings(Section):
    """Settings of every decoder that can start from a whole network's checkpoint."""

    pretrained: str | None = Field(
        default=None,
        pattern=r"\.(safetensors|pth|pt|bin)$",
        description="null, or a checkpoint file that holds a network with this decoder.",
    )
    sha256: str | None = Field(default=None, description="Checksum of that file, in hex.")


def is_file(pretrained: str) -> bool:
    """Tell a checkpoint file from a published tag, by its ending."""
    return pretrained.endswith(FILE_ENDINGS)


def load_backbone_file(
    module: nn.Module,
    name: str,
    *,
    sha256: str | None,
    placed: Callable[[str], str] | None = None,
) -> None:
    """Load a checkpoint file into a backbone, in place.

    The file is one of those that zspl.models.importing knows, or has the backbone's own names.
    In the latter case it may also hold parts that the backbone lacks, such as a classifier.

    Args:
        module: The backbone; each of its keys must be in the file, with the same shape.
        name: The file's name below the weights folder.
        sha256: Checksum of the file in hex, or None to take it as it is.
        placed: Gives the backbone's own name of a key in a file of its library.

    Raises:
        WeightsError: if the file is missing, damaged or of another network.
    """
    path = weights.resolve(name, sha256=sha256)
    imported = translate(read_state(path), placed=placed)
    _load(module, imported, part="backbone", path=path)


def load_head_file(module: nn.Module, name: str, *, sha256: str | None) -> None:
    """Load the decoder's part of a whole network's checkpoint file into a head, in place.

    Raises:
        WeightsError: if the file is missing, damaged or of another network.
    """
    path = weights.resolve(name, sha256=sha256)
    _load(module, translate(read_state(path)), part="head", path=path)


def _load(module: nn.Module, imported: Imported, *, part: str, path: Path) -> None:
    prefix = f"{part}."
    state = {
        key.removeprefix(prefix): tensor
        for key, tensor in imported.state.items()
        if key.startswith(prefix)
    }
    wanted = module.state_dict()
    problem = _problem(state, wanted, imported=imported, part=part)
    if problem is not None:
        raise WeightsError(
            f"{path}: {problem}; it is a checkpoint of another network ({imported.what}), choose "
            f"the {part} and the settings that fit"
        )
    strange = next((key for key, tensor in state.items() if not tensor.isfinite().all()), None)
    if strange is not None:
        raise WeightsError(
            f"{path}: {strange} of the {part} holds values that are not finite; fetch or make it "
            "again"
        )
    module.load_state_dict({key: state.get(key, tensor) for key, tensor in wanted.items()})
    if imported.restriction is not None:
        notify(f"{path.name}: {imported.restriction}")


def _problem(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], *, imported: Imported, part: str
) -> str | None:
    """Return why the tensors of a part do not fit, or None."""
    missing = [key for key in wanted if key not in state and _COUNTER not in key]
    if missing:
        counts = f"{len(missing)} of {len(wanted)}"
        return f"lacks {counts} tensors of this {part} (first: {missing[0]})"
    foreign = _foreign(state, wanted, imported)
    if foreign:
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        return f"holds {foreign[0]}{more}, for which this {part} has no place"
    return _misshapen(state, wanted, of=f" of the {part}")


def misfit(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str | None:
    """Return how the tensors of a checkpoint differ from those of a module, or None.

    Args:
        state: By name, of the checkpoint.
        wanted: By name, of the module: the same names with the same shapes.
    """
    lacking = [key for key in wanted if key not in state]
    if lacking:
        return f"lacks {len(lacking)} of {len(wanted)} tensors (first: {lacking[0]})"
    foreign = [key for key in state if key not in wanted]
    if foreign:
        return f"holds {len(foreign)} tensor(s) too many (first: {foreign[0]})"
    return _misshapen(state, wanted)


def _misshapen(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], *, of: str = ""
) -> str | None:
    for key, tensor in wanted.items():
        if key in state and state[key].shape != tensor.shape:
            found, expected = tuple(state[key].shape), tuple(tensor.shape)
            return f"{key}{of} has shape {found}, expected {expected}"
    return None


def _foreign(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], imported: Imported
) -> list[str]:
    """Return the keys that have no place, sorted."""
    foreign = state.keys() - wanted.keys()
    if not imported.whole:
        known = {_first(key) for key in wanted}
        return sorted(key for key in foreign if _first(key) in known)
    strays = {key for key in imported.state if _first(key) not in PARTS}
    return sorted(foreign | strays)


def _first(key: str) -> str:
    return key.partition(".")[0]


@cache
def notify(line: str) -> None:
    """Log a line that the user should see, once per process."""
    LOG.warning("%s", line)


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a .safetensors or PyTorch checkpoint without running code from it.

    Entries that are no tensor, such as an epoch number, are left out. Of a file that keeps the
    network beside the optimiser's state, the network is returned.

    Raises:
        WeightsError: if the file is missing, damaged or holds no tensors by name.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(_numbers()):
            state: object = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such checkpoint; run the stage that writes it") from error
    except UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"{path}: not a readable checkpoint ({reason}); fetch or make it again"
        ) from error
    if not isinstance(state, Mapping):
        raise WeightsError(
            f"{path}: holds a {type(state).__name__}, expected tensors by name; save a state_dict"
        )
    inner = next((state[key] for key in WRAPPERS if isinstance(state.get(key), Mapping)), state)
    return {key: value for key, value in inner.items() if isinstance(value, Tensor)}


def _numbers() -> list[Any]:
    """Return what a pickled NumPy number names: UniMatch keeps its best score as one."""
    number = np.float64(0)
    make = number.__reduce__()[0]
    places = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    kinds = {type(np.dtype(kind)) for kind in ("float64", "float32", "int64")}
    return [*((make, place) for place in places), np.dtype, *kinds]


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
