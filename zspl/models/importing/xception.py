"""Xception-65 on ImageNet as UniMatch's code reads it: the file xception.pth."""

from collections.abc import Mapping, Set

from torch import Tensor

from zspl.models.importing._renaming import renamed
from zspl.models.importing._xception import rules

WHAT = "UniMatch's Xception-65"
LICENCE: str | None = None

# What is left of the conversion from TensorFlow; the published code skips the same names.
_LEFT_OVER = (r".*(itr|tmp|track).*", None)


def matches(keys: Set[str]) -> bool:
    """Tell whether a checkpoint with these keys is such a backbone."""
    return "block1.sepconv1.depthwise.weight" in keys


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under zspl's names."""
    return renamed(state, [_LEFT_OVER, *rules("")])
